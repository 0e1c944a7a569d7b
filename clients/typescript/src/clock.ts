/** Time and ids: the only place that asks the runtime for either. */

/** Where time and unique ids come from. */
export interface Clock {
  /** Seconds since the Unix epoch. */
  nowSeconds(): number;
  /** Monotonic milliseconds since any fixed instant. */
  uptimeMs(): number;
  /** An id that never comes twice: the `jti` of assertions and proofs. */
  uniqueId(): string;
}

/** The runtime's clock and randomness. */
export const systemClock: Clock = {
  nowSeconds: () => Math.floor(Date.now() / 1000),
  uptimeMs: () => performance.now(),
  uniqueId: () => crypto.randomUUID(),
};
