/** How often each L1 and L2 token was used here, where it has a limit. */

import { Reason } from "./reason.js";

/** A token that is counted. */
export interface Counted {
  readonly jti: string;
  /** The client that it was issued to. */
  readonly owner: string;
  /** How many calls it is good for. */
  readonly maxUses: number;
  /** When it can no longer pass, by uptime. */
  readonly untilMs: number;
}

/**
 * Counts by `jti`, until the token has expired. Never evicts what may still be used: when full, it refuses. Room is
 * shared out: a client may have as many tokens counted as there is room left, alone half of it.
 */
export class Uses {
  private readonly counts = new Map<string, { used: number; readonly owner: string; readonly untilMs: number }>();
  private readonly held = new Map<string, number>();
  private nextExpiryMs = Infinity;

  constructor(private readonly capacity: number) {}

  /** Takes one use of a token. */
  take({ jti, owner, maxUses, untilMs }: Counted, uptimeMs: number): void {
    const count = this.counts.get(jti);
    if (maxUses === 0 || (count !== undefined && count.used >= maxUses)) throw new Reason("used_up");
    if (count !== undefined) {
      count.used += 1;
      return;
    }
    if (!this.hasRoom(owner)) this.expire(uptimeMs);
    if (!this.hasRoom(owner)) throw new Reason("unavailable", "too many counted tokens");
    this.counts.set(jti, { used: 1, owner, untilMs });
    this.held.set(owner, (this.held.get(owner) ?? 0) + 1);
    this.nextExpiryMs = Math.min(this.nextExpiryMs, untilMs);
  }

  private hasRoom(owner: string): boolean {
    return (this.held.get(owner) ?? 0) < this.capacity - this.counts.size;
  }

  private expire(uptimeMs: number): void {
    // Nobody makes it go through everything again and again: only when something has expired.
    if (uptimeMs <= this.nextExpiryMs) return;
    this.held.clear();
    this.nextExpiryMs = Infinity;
    for (const [jti, { owner, untilMs }] of this.counts) {
      if (untilMs < uptimeMs) {
        this.counts.delete(jti);
        continue;
      }
      this.held.set(owner, (this.held.get(owner) ?? 0) + 1);
      this.nextExpiryMs = Math.min(this.nextExpiryMs, untilMs);
    }
  }
}
