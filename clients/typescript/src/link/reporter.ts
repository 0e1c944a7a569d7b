/** What a guard saw, told to the broker: queued, in batches, never in the way of a call. */

import type { Json, JsonObject } from "../call/json.js";
import type { Action } from "../call/offers.js";
import type { Clock } from "../clock.js";

/** What happened. */
export interface GuardEvent {
  readonly kind: "connected" | "discovered" | "list_changed" | "executed" | "failed" | "drifted";
  /** The transaction. */
  readonly txn?: string;
  /** The token. */
  readonly jti?: string;
  /** The tool, prompt or resource that it is about. */
  readonly tool?: string;
  /** What was done with it, where that is not `tools/call`. */
  readonly action?: Action;
  /** How long the result was. */
  readonly bytes?: number;
  /** At most 4 KiB of JSON. */
  readonly detail?: Json;
}

/** Queues events and sends them a little later. When the queue is full, the oldest are given up. */
export class Reporter {
  private readonly queue: JsonObject[] = [];
  private sending: Promise<void> | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    /** Sends a batch; rejects where it has to be tried again. */
    private readonly send: (events: readonly JsonObject[]) => Promise<void>,
    private readonly clock: Clock,
  ) {}

  /** Queues an event. */
  report(event: GuardEvent): void {
    if (this.queue.length >= MAX_QUEUED) this.queue.shift();
    this.queue.push({ id: this.clock.uniqueId(), at_ms: this.clock.nowMs(), ...event } as JsonObject);
    this.schedule(this.queue.length >= BATCH ? 0 : DELAY_MS);
  }

  /** Sends what is queued; what cannot be sent stays for the next time. */
  async flush(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.sending ??= this.drain().finally(() => (this.sending = undefined));
    await this.sending;
  }

  private async drain(): Promise<void> {
    while (this.queue.length > 0) {
      const batch = this.queue.slice(0, BATCH);
      try {
        await this.send(batch);
      } catch {
        // The ids stay the same: the broker records none twice.
        this.schedule(RETRY_MS);
        return;
      }
      const sent = new Set(batch);
      this.queue.splice(0, this.queue.length, ...this.queue.filter((event) => !sent.has(event)));
    }
  }

  private schedule(ms: number): void {
    if (this.timer !== undefined && ms > 0) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.flush(), ms);
    // Nothing waits for an event: in Node, a process may end over it.
    (this.timer as { unref?: () => void }).unref?.();
  }
}

const BATCH = 100;
const MAX_QUEUED = 1_000;
const DELAY_MS = 1_000;
const RETRY_MS = 5_000;
