/**
 * Stops one caller's requests after his own went unanswered, one after another, before a token is spent on more. What
 * one caller meets he may have caused, by a call that takes for ever: nobody else is stopped.
 */

import type { ToolCallClaims } from "../call/claims.js";
import { Reason, type ReasonKind } from "../guard/reason.js";
import { callerOf } from "./sessions.js";

/** When the last failure was, or the last request was let through although there were too many. */
interface Failures {
  readonly count: number;
  readonly lastMs: number;
}

/**
 * Open for a caller after five failures; then one of his requests goes through now and then, and its answer closes it.
 * Bounded: where there are more callers than can be counted, one more is not stopped.
 */
export class Breaker {
  private readonly callers = new Map<string, Failures>();
  private sweptMs = -Infinity;

  constructor(private readonly capacity = MAX_CALLERS) {}

  /** Refuses a request of this caller that may not go through now. */
  check(claims: ToolCallClaims, uptimeMs: number): void {
    if (this.callers.size === 0) return;
    const caller = callerOf(claims);
    const failures = this.callers.get(caller);
    if (failures === undefined || failures.count < FAILURES_TO_OPEN || !isRecent(failures, uptimeMs)) return;
    if (uptimeMs - failures.lastMs < PROBE_MS) {
      throw new Reason("unavailable", "the server does not answer this caller", PROBE_MS / 1000);
    }
    this.callers.set(caller, { ...failures, lastMs: uptimeMs });
  }

  /** The server answered this caller, in one way or another. */
  answered(claims: ToolCallClaims): void {
    if (this.callers.size > 0) this.callers.delete(callerOf(claims));
  }

  /** What this caller asked came to nothing. It counts where the server was silent, or said that it is down. */
  failed(claims: ToolCallClaims, error: unknown, uptimeMs: number): void {
    if (!(error instanceof Reason)) return;
    if (!SILENCE.has(error.kind)) return this.answered(claims);
    const caller = callerOf(claims);
    if (this.callers.size >= this.capacity && !this.callers.has(caller)) this.sweep(uptimeMs);
    if (this.callers.size >= this.capacity && !this.callers.has(caller)) return;
    const before = this.callers.get(caller);
    const count = before !== undefined && isRecent(before, uptimeMs) ? before.count + 1 : 1;
    this.callers.set(caller, { count, lastMs: uptimeMs });
  }

  private sweep(uptimeMs: number): void {
    // Nobody makes it go through everything again and again.
    if (uptimeMs - this.sweptMs < SWEEP_MS) return;
    this.sweptMs = uptimeMs;
    for (const [caller, failures] of this.callers) if (!isRecent(failures, uptimeMs)) this.callers.delete(caller);
  }
}

function isRecent({ lastMs }: Failures, uptimeMs: number): boolean {
  return uptimeMs - lastMs < FORGOTTEN_MS;
}

const SILENCE: ReadonlySet<ReasonKind> = new Set(["server_timeout", "server_down"]);
const FAILURES_TO_OPEN = 5;
const PROBE_MS = 2_000;
const FORGOTTEN_MS = 600_000;
const SWEEP_MS = 1_000;
const MAX_CALLERS = 10_000;
