/** Tokens that may serve again: L0 to L2, until shortly before they expire, as often as they may be used. */

import type { ToolToken } from "./token.js";

interface Entry {
  readonly token: ToolToken;
  readonly untilMs: number;
  usesLeft: number;
}

/** Keyed by a hash of everything that was asked, the subject token included: no token in clear is a key. */
export class TokenCache {
  private readonly entries = new Map<string, Entry>();

  constructor(private readonly capacity: number) {}

  /** A token for the same request, if there is one with a use left. */
  take(key: string, uptimeMs: number): ToolToken | undefined {
    const entry = this.entries.get(key);
    if (entry === undefined) return undefined;
    if (uptimeMs >= entry.untilMs || entry.usesLeft <= 0) {
      this.entries.delete(key);
      return undefined;
    }
    entry.usesLeft -= 1;
    return entry.token;
  }

  /** Keeps a token that was just received and will be used once by who asked. `askedMs`: when the request was sent. */
  keep(key: string, token: ToolToken, askedMs: number): void {
    const lifetimeMs = token.expiresInSeconds * 1000 - MARGIN_MS;
    const usesLeft = (token.maxUses ?? Infinity) - 1;
    if (token.bindsOneCall || lifetimeMs <= 0 || usesLeft <= 0 || this.capacity <= 0) return;
    if (this.entries.size >= this.capacity) {
      for (const [other, { untilMs }] of this.entries) if (untilMs <= askedMs) this.entries.delete(other);
    }
    if (this.entries.size >= this.capacity) {
      const [oldest] = this.entries.keys();
      if (oldest !== undefined) this.entries.delete(oldest);
    }
    this.entries.set(key, { token, untilMs: askedMs + lifetimeMs, usesLeft });
  }

  /** Forgets a token that was revoked or refused. */
  forget(accessToken: string): void {
    for (const [key, { token }] of this.entries) if (token.accessToken === accessToken) this.entries.delete(key);
  }
}

/** A token is not handed out when it could expire on its way. */
const MARGIN_MS = 5_000;
