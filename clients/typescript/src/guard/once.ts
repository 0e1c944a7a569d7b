/** "Seen this before?" for things that live for seconds: two generations of tags. */

/** The answer of a once-only set. `full`: no room; the caller answers 503, never forgets. */
export type Once = "first" | "seen" | "full";

/**
 * Remembers each tag for at least `lifetimeMs` and at most twice that. Never evicts: when full, it says so.
 *
 * Each tag has an owner, who may hold as many of a generation as there is room left in it: alone half of it, and however
 * many are greedy, whoever comes next finds as much room as each of them holds.
 */
export class OnceSet {
  private epoch = 0;
  private current = new Set<string>();
  private previous = new Set<string>();
  private readonly held = new Map<string, number>();

  /** A set that holds up to `capacity` tags in each generation. */
  constructor(
    private readonly lifetimeMs: number,
    private readonly capacity: number,
  ) {}

  /** Takes the tag for an owner, of which there are as many as a configuration names. `uptimeMs` is monotonic. */
  take(owner: string, tag: string, uptimeMs: number): Once {
    this.turn(Math.floor(uptimeMs / this.lifetimeMs));
    if (this.previous.has(tag) || this.current.has(tag)) return "seen";
    const held = this.held.get(owner) ?? 0;
    if (held >= this.capacity - this.current.size) return "full";
    this.current.add(tag);
    this.held.set(owner, held + 1);
    return "first";
  }

  private turn(epoch: number): void {
    // INVARIANT: a tag taken in epoch n leaves no earlier than epoch n + 2 begins, a whole lifetime after n ended.
    if (epoch <= this.epoch) return;
    this.previous = epoch === this.epoch + 1 ? this.current : new Set();
    this.current = new Set();
    this.held.clear();
    this.epoch = epoch;
  }
}
