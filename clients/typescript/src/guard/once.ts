/** "Seen this before?" for things that live for seconds: two generations of tags. */

/** The answer of a once-only set. `full`: no room; the caller answers 503, never forgets. */
export type Once = "first" | "seen" | "full";

/** Remembers each tag for at least `lifetimeMs` and at most twice that. Never evicts: when full, it says so. */
export class OnceSet {
  private epoch = 0;
  private current = new Set<string>();
  private previous = new Set<string>();

  /** A set that holds up to `capacity` tags in each generation. */
  constructor(
    private readonly lifetimeMs: number,
    private readonly capacity: number,
  ) {}

  /** Takes the tag. `uptimeMs` is monotonic. */
  take(tag: string, uptimeMs: number): Once {
    this.turn(Math.floor(uptimeMs / this.lifetimeMs));
    if (this.previous.has(tag) || this.current.has(tag)) return "seen";
    if (this.current.size >= this.capacity) return "full";
    this.current.add(tag);
    return "first";
  }

  private turn(epoch: number): void {
    // INVARIANT: a tag taken in epoch n leaves no earlier than epoch n + 2 begins, a whole lifetime after n ended.
    if (epoch <= this.epoch) return;
    this.previous = epoch === this.epoch + 1 ? this.current : new Set();
    this.current = new Set();
    this.epoch = epoch;
  }
}
