/** Time and ids: the only place that asks the runtime for either. */

/** Where time and unique ids come from. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  nowMs(): number;
  /** Monotonic milliseconds since any fixed instant. */
  uptimeMs(): number;
  /** An id that never comes twice (UUIDv7, RFC 9562 §5.7): the `jti` of assertions and proofs, the id of events. */
  uniqueId(): string;
}

/** Seconds since the Unix epoch. */
export function secondsOf(clock: Clock): number {
  return Math.floor(clock.nowMs() / 1000);
}

/** The runtime's clock and randomness. */
export const systemClock: Clock = {
  nowMs: () => Date.now(),
  uptimeMs: () => performance.now(),
  uniqueId: () => {
    const time = Date.now().toString(16).padStart(12, "0");
    // A random UUID has its 74 random bits where a UUIDv7 has them.
    const random = crypto.randomUUID();
    return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`;
  },
};
