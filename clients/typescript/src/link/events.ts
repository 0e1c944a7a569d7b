/** Server-sent events, read within bounds. */

import { createParser } from "eventsource-parser";

/** One event. */
export interface ServerSentEvent {
  readonly event: string;
  readonly data: string;
}

/** Bounds of a stream. */
export interface StreamBounds {
  /** How long it may be silent. */
  readonly idleMs: number;
  /** How long one event may be. */
  readonly maxEventBytes: number;
}

/**
 * The events of a stream, one after the other. Throws where a bound is passed, or `signal` says so; ends where the
 * stream ends.
 */
export async function* readEvents(
  body: ReadableStream<Uint8Array>,
  { idleMs, maxEventBytes }: StreamBounds,
  signal: AbortSignal,
): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const ready: ServerSentEvent[] = [];
  const parser = createParser({ onEvent: ({ event = "message", data }) => void ready.push({ event, data }) });
  const reader = body.getReader();
  let sinceLast = 0;
  try {
    for (;;) {
      // Not left to `fetch` alone: in Node 20 its own hold on the signal may be gone by now.
      const { done, value } = await within(reader.read(), idleMs, signal);
      if (done) return;
      sinceLast += value.length;
      parser.feed(decoder.decode(value, { stream: true }));
      if (ready.length > 0) sinceLast = 0;
      if (sinceLast > maxEventBytes) throw new Error("an event is too long");
      yield* ready.splice(0);
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}

async function within<T>(promise: Promise<T>, ms: number, signal: AbortSignal): Promise<T> {
  let stop = () => {};
  const ended = new Promise<never>((_, reject) => {
    const timer = setTimeout(() => reject(new Error("the stream is silent")), ms);
    const aborted = () => reject(new Error("the stream was given up"));
    signal.addEventListener("abort", aborted);
    if (signal.aborted) aborted();
    stop = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    };
  });
  try {
    return await Promise.race([promise, ended]);
  } finally {
    stop();
  }
}
