/** Revocations and kill switches, as the broker pushes them. */

import type { ToolCallClaims } from "../call/claims.js";
import { isObject, type Json } from "../call/json.js";
import { Reason } from "./reason.js";

/** One thing that is no longer good. */
export type Revocation =
  /** A token and those made from it directly; the broker names further descendants one by one. */
  | { readonly kind: "token"; readonly jti: string }
  /** Every token of a transaction. */
  | { readonly kind: "transaction"; readonly txn: string }
  /** Every token of a person. */
  | { readonly kind: "person"; readonly sub: string }
  /** Every token of a client. */
  | { readonly kind: "client"; readonly client_id: string }
  /** Every token in whose chain of actors this one stands. */
  | { readonly kind: "actor"; readonly sub: string }
  /** Every token bound to a key, by the thumbprint in `cnf`. */
  | { readonly kind: "key"; readonly thumbprint: string }
  /** Calls of one tool. */
  | { readonly kind: "tool"; readonly name: string }
  /** Everything: the server's kill switch. */
  | { readonly kind: "everything" };

/** Reads a revocation; `undefined` for what is none. */
export function readRevocation(value: Json): Revocation | undefined {
  if (!isObject(value)) return undefined;
  const { kind, ...members } = value;
  const member = typeof kind === "string" ? MEMBERS.get(kind) : undefined;
  if (member === undefined) return undefined;
  const expected = member === "" ? [] : [member];
  const isRead = Object.keys(members).length === expected.length;
  return isRead && expected.every((name) => typeof members[name] === "string") ? (value as Revocation) : undefined;
}

/**
 * What is revoked now. Tokens and transactions are remembered for longer than any token lives; all else stands until a
 * newer snapshot no longer names it.
 */
export class Revocations {
  private readonly standing = new Set<string>();
  private readonly passing = new Map<string, number>();
  /** When the broker was last heard about revocations, by uptime. */
  private heardMs: number | undefined;
  /** There was no room for a revocation: nothing can be vouched for any more. */
  private overflowed = false;

  /** The broker says that nothing else is new. */
  hear(uptimeMs: number): void {
    this.heardMs = uptimeMs;
  }

  /** Something more is revoked. */
  add(revocation: Revocation, uptimeMs: number): void {
    if (this.standing.size + this.passing.size >= MAX_REVOCATIONS) {
      for (const [key, sinceMs] of this.passing) if (uptimeMs - sinceMs >= PASSING_MS) this.passing.delete(key);
    }
    if (this.standing.size + this.passing.size >= MAX_REVOCATIONS) this.overflowed = true;
    else if (revocation.kind === "token" || revocation.kind === "transaction") {
      this.passing.set(keyOf(revocation), uptimeMs);
    } else this.standing.add(keyOf(revocation));
  }

  /** A newer snapshot names everything that still stands. */
  liftStanding(): void {
    this.standing.clear();
    this.overflowed = false;
  }

  /** Whether a tool is switched off by itself. */
  hasTool(name: string): boolean {
    return this.standing.has(keyOf({ kind: "tool", name }));
  }

  /** Whether the whole server is switched off. */
  hasEverything(): boolean {
    return this.standing.has(keyOf({ kind: "everything" }));
  }

  /** Throws where a token is no longer good, or where nobody can say. */
  check(claims: ToolCallClaims, tool: string | undefined, uptimeMs: number, maxAgeMs: number): void {
    if (this.overflowed) throw new Reason("unavailable", "too many revocations");
    if (this.heardMs === undefined || uptimeMs - this.heardMs > maxAgeMs) {
      throw new Reason("unavailable", "revocations are stale");
    }
    if (this.hasAnyOf(claims, tool)) throw new Reason("revoked");
  }

  /** Whether a token is revoked as far as was heard, or may be, however long ago that was. */
  hasAnyOf(claims: ToolCallClaims, tool: string | undefined): boolean {
    const named: Revocation[] = [
      { kind: "everything" },
      { kind: "token", jti: claims.jti },
      { kind: "transaction", txn: claims.txn },
      { kind: "person", sub: claims.sub },
      { kind: "client", client_id: claims.clientId },
      { kind: "key", thumbprint: claims.cnf.thumbprint },
      ...claims.actors.map((sub) => ({ kind: "actor", sub }) as const),
    ];
    if (claims.pjti !== undefined) named.push({ kind: "token", jti: claims.pjti });
    if (tool !== undefined) named.push({ kind: "tool", name: tool });
    return this.overflowed || named.map(keyOf).some((key) => this.standing.has(key) || this.passing.has(key));
  }
}

function keyOf(revocation: Revocation): string {
  const { kind, ...members } = revocation;
  return JSON.stringify([kind, ...Object.values(members)]);
}

/** The one member of each kind. */
const MEMBERS = new Map([
  ["token", "jti"],
  ["transaction", "txn"],
  ["person", "sub"],
  ["client", "client_id"],
  ["actor", "sub"],
  ["key", "thumbprint"],
  ["tool", "name"],
  ["everything", ""],
]);
const MAX_REVOCATIONS = 100_000;
/** Tokens live 120 s at most, and what their calls got of AWS 300 s more. */
const PASSING_MS = 600_000;
