/** How much one caller may, and how long the handler may take: a rate for each person and tool, and so many at once. */

import { type Message, toolOf } from "../guard/message.js";
import { Reason } from "../guard/reason.js";
import { callerOf } from "./sessions.js";
import type { ToolCallClaims } from "../call/claims.js";

/** Bounds on what goes to the handler. Beyond a rate the answer is 429 with `Retry-After`, beyond a time 504. */
export interface Limits {
  /** Calls of one tool by one person; prompts together, and resources, streams to listen to, and each other method. 120. */
  readonly callsPerMinute?: number;
  /** How many of them at once; 30. */
  readonly burst?: number;
  /**
   * Requests and streams under way of one caller: a person through these agents and this client. One that was given up
   * counts until the handler is done with it. 16.
   */
  readonly concurrent?: number;
  /** How long a body may take to come; 30. */
  readonly bodySeconds?: number;
  /** How long an answer may take that is no stream, and a stream to begin; 60, and 24 days at most. */
  readonly answerSeconds?: number;
  /** How long a stream may last; 3600. */
  readonly streamSeconds?: number;
}

/** Fills in what was not said; throws for what bounds nothing. */
export function resolveLimits(limits: Limits): Required<Limits> {
  const resolved = { callsPerMinute: 120, burst: 30, concurrent: 16, bodySeconds: 30, answerSeconds: 60, streamSeconds: 3600 };
  for (const [name, value] of Object.entries(limits)) {
    if (!(name in resolved)) throw new Error(`limits: there is no ${name}`);
    if (value === undefined) continue;
    if (!Number.isFinite(value) || value <= 0) throw new Error(`limits: ${name} must be above 0 and finite`);
    if ((name === "answerSeconds" || name === "bodySeconds") && value > MAX_TIMER_SECONDS) {
      throw new Error(`limits: ${name} must be at most ${MAX_TIMER_SECONDS}`);
    }
    Object.assign(resolved, { [name]: value as number });
  }
  return resolved;
}

/** Counts what callers do. Bounded: where there are more keys than can be counted, new ones wait. */
export class Meter {
  /** What may come at once, and when that was reckoned. */
  private readonly buckets = new Map<string, { readonly tokens: number; readonly atMs: number }>();
  private readonly underWay = new Map<string, number>();
  /** When it was last looked who can be forgotten. */
  private sweptMs = -Infinity;

  constructor(
    private readonly limits: Required<Limits>,
    private readonly capacity = MAX_BUCKETS,
  ) {}

  /** Counts one request of a person for something. Refuses over the rate, with the seconds after which to come back. */
  count(person: string, what: string, uptimeMs: number): void {
    const key = JSON.stringify([person, what]);
    const { callsPerMinute } = this.limits;
    if (this.buckets.size >= this.capacity && !this.buckets.has(key)) this.sweep(uptimeMs);
    if (this.buckets.size >= this.capacity && !this.buckets.has(key)) throw new Reason("limited", "too many are counted", 1);
    const tokens = this.tokens(key, uptimeMs);
    if (tokens < 1) {
      const waitSeconds = Math.min(((1 - tokens) * 60) / callsPerMinute, LONGEST_WAIT_SECONDS);
      throw new Reason("limited", "over the rate", Math.floor(waitSeconds) + 1);
    }
    this.buckets.set(key, { tokens: tokens - 1, atMs: uptimeMs });
  }

  /** One more request of this caller, until what is given back is called. Refuses where there are too many. */
  enter(claims: ToolCallClaims): () => void {
    const caller = callerOf(claims);
    const count = this.underWay.get(caller) ?? 0;
    if (count >= this.limits.concurrent) throw new Reason("limited", "too many at once", 1);
    this.underWay.set(caller, count + 1);
    let isLeft = false;
    return () => {
      if (isLeft) return;
      isLeft = true;
      const left = (this.underWay.get(caller) ?? 0) - 1;
      if (left > 0) this.underWay.set(caller, left);
      else this.underWay.delete(caller);
    };
  }

  private sweep(uptimeMs: number): void {
    // Nobody makes it go through everything again and again: who is new is told to wait as long anyway.
    if (uptimeMs - this.sweptMs < SWEEP_MS) return;
    this.sweptMs = uptimeMs;
    // Whose bucket is full again is as good as never seen.
    for (const each of this.buckets.keys()) {
      if (this.tokens(each, uptimeMs) >= this.limits.burst) this.buckets.delete(each);
    }
  }

  private tokens(key: string, uptimeMs: number): number {
    const { burst, callsPerMinute } = this.limits;
    const { tokens, atMs } = this.buckets.get(key) ?? { tokens: burst, atMs: uptimeMs };
    return Math.min(burst, tokens + (Math.max(0, uptimeMs - atMs) * callsPerMinute) / 60_000);
  }
}

/**
 * What a message is a request for: a tool, or a method. All notifications together: what they are called is the client's
 * to choose. And all resources: below a prefix there is no end of URIs.
 */
export function countedAs({ call, method }: Message): string {
  return toolOf(call) ?? (method.startsWith("notifications/") ? "notifications" : method);
}

/** What comes before the signal; what it was aborted with otherwise. */
export function unlessLate<T>(work: Promise<T>, late: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const end = () => reject(late.reason as Error);
    if (late.aborted) end();
    late.addEventListener("abort", end, { once: true });
    work.then(resolve, reject);
  });
}

const MAX_BUCKETS = 100_000;
const SWEEP_MS = 1_000;
/** A timer of JavaScript that should take longer fires at once: its milliseconds are 31 bits. */
const MAX_TIMER_SECONDS = 24 * 86_400;
const LONGEST_WAIT_SECONDS = 3_600;
