/** AWS credentials of one call: asked for once, kept until their window ends, and never shown. */

import {
  AwsCredentialsExpiredError, ConfigurationError, DeputizeError, ExchangeError, ProtocolError, RetryLaterError,
} from "../client/errors.js";
import type { Clock } from "../clock.js";

/**
 * Credentials as the AWS SDK for JavaScript (v3) takes them. They show nothing of themselves: printed, as JSON or logged
 * they are without key, secret and token, and `structuredClone` refuses them.
 */
export interface AwsIdentity {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  /** The end of the window: what the credentials can do ends there. */
  readonly expiration: Date;
  /** The account of the role. */
  readonly accountId?: string;
  /** What an operator asks `deputize explain` about, and the name of the session in AWS's own log. */
  readonly decisionId?: string;
}

/**
 * Gives the credentials of one call: an `AwsCredentialIdentityProvider`, for `new S3Client({ credentials })`. The SDK asks
 * it at each signing, since it wants fresh ones five minutes before these end; that costs no request.
 *
 * It rejects with {@link ExchangeError} and its kinds where the broker refuses, with {@link AwsCredentialsExpiredError}
 * where the call has run longer than its window, and with `UnreachableError` where there is no broker.
 */
export type AwsCredentialsProvider = () => Promise<AwsIdentity>;

/** What one call was given. Everything that asks shares it: one request, whoever asks at once. */
export class Kept {
  readonly #ask: () => Promise<AwsIdentity>;
  readonly #clock: Clock;
  readonly #check: () => void;
  #answer: Promise<AwsIdentity> | undefined;
  /** By the wall's clock, and by the one that nobody puts back. Absent while there is no answer. */
  #ends: { readonly nowMs: number; readonly uptimeMs: number } | undefined;
  #refused: { readonly error: DeputizeError; readonly untilMs: number } | undefined;

  /** `check` throws where the call that it is for is good no longer; then nothing is given, and nothing kept. */
  constructor(ask: () => Promise<AwsIdentity>, clock: Clock, check: () => void = () => {}) {
    this.#ask = ask;
    this.#clock = clock;
    this.#check = check;
  }

  /** The credentials, as a provider gives them. */
  readonly provider: AwsCredentialsProvider = async () => {
    this.#refuseRevoked();
    if (this.#isOver()) {
      // INVARIANT: never used past its window, and never asked for again: a call is given one window.
      this.#answer = undefined;
      this.#refused = { error: new AwsCredentialsExpiredError(), untilMs: Infinity };
    }
    if (this.#refused !== undefined && this.#clock.uptimeMs() < this.#refused.untilMs) throw this.#refused.error;
    this.#answer ??= this.#asked();
    const identity = await this.#answer;
    // It may have taken a while.
    this.#refuseRevoked();
    return shy(identity);
  };

  /** INVARIANT: nothing is given for a call that is good no longer, and what was kept of it goes. */
  #refuseRevoked(): void {
    try {
      this.#check();
    } catch (error) {
      this.#answer = undefined;
      throw error;
    }
  }

  async #asked(): Promise<AwsIdentity> {
    try {
      const identity = await this.#ask();
      this.#ends = this.#endsOf(identity);
      return identity;
    } catch (error) {
      this.#answer = undefined;
      if (error instanceof DeputizeError) {
        this.#refused = { error, untilMs: this.#clock.uptimeMs() + holdsForMs(error) };
      }
      throw error;
    }
  }

  #endsOf({ expiration }: AwsIdentity): { nowMs: number; uptimeMs: number } {
    const nowMs = expiration.getTime();
    const remainingMs = nowMs - this.#clock.nowMs();
    if (remainingMs <= 0) throw new AwsCredentialsExpiredError();
    if (remainingMs > LONGEST_WINDOW_MS) throw new ProtocolError("the AWS credentials end later than any session does");
    return { nowMs, uptimeMs: this.#clock.uptimeMs() + remainingMs };
  }

  #isOver(): boolean {
    if (this.#answer === undefined || this.#ends === undefined) return false;
    return this.#clock.nowMs() >= this.#ends.nowMs || this.#clock.uptimeMs() >= this.#ends.uptimeMs;
  }
}

/** The identity with everything in its place for an SDK, and nothing of it for a log. */
export function shy(identity: AwsIdentity): AwsIdentity {
  const { expiration, decisionId } = identity;
  const shown = () => ({ expiration: expiration.toISOString(), decisionId });
  const hiding = {};
  for (const [name, value] of Object.entries(identity)) {
    // What is read by a getter is not printed by Node; who copies it gets it.
    if (name !== "toJSON") Object.defineProperty(hiding, name, { get: () => value as unknown, enumerable: true });
  }
  // A function that is seen: what clones structures refuses it.
  Object.defineProperty(hiding, "toJSON", { value: shown, enumerable: true });
  Object.defineProperty(hiding, Symbol.for("nodejs.util.inspect.custom"), { value: shown });
  return hiding as AwsIdentity;
}

/** How long a refusal is the answer to everybody who asks again, so that a storm of failures is none. */
function holdsForMs(error: DeputizeError): number {
  if (error instanceof RetryLaterError) return Math.max((error.retryAfterSeconds ?? 0) * 1000, SHORTEST_PAUSE_MS);
  const isFinal =
    error instanceof ExchangeError || error instanceof AwsCredentialsExpiredError || error instanceof ConfigurationError;
  return isFinal ? Infinity : SHORTEST_PAUSE_MS;
}

const SHORTEST_PAUSE_MS = 1_000;
/** AWS gives no role session that lasts longer. */
const LONGEST_WINDOW_MS = 12 * 3_600_000;
