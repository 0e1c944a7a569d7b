/** How often each L1 and L2 token was used here, where it has a limit. */

import { Reason } from "./reason.js";

/** Counts by `jti`, until the token has expired. Never evicts what may still be used: when full, it refuses. */
export class Uses {
  private readonly counts = new Map<string, { used: number; readonly untilMs: number }>();

  constructor(private readonly capacity: number) {}

  /** Takes one use of a token that is good for `maxUses`. `untilMs`: when it can no longer pass, by uptime. */
  take(jti: string, maxUses: number, uptimeMs: number, untilMs: number): void {
    const count = this.counts.get(jti);
    if (maxUses === 0 || (count !== undefined && count.used >= maxUses)) throw new Reason("used_up");
    if (count !== undefined) {
      count.used += 1;
      return;
    }
    if (this.counts.size >= this.capacity) {
      for (const [other, { untilMs: until }] of this.counts) if (until < uptimeMs) this.counts.delete(other);
    }
    if (this.counts.size >= this.capacity) throw new Reason("unavailable", "too many counted tokens");
    this.counts.set(jti, { used: 1, untilMs });
  }
}
