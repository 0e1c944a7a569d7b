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

/** The events of a stream, one after the other. Throws where a bound is passed; ends where the stream ends. */
export async function* readEvents(
  body: ReadableStream<Uint8Array>,
  { idleMs, maxEventBytes }: StreamBounds,
): AsyncGenerator<ServerSentEvent> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const ready: ServerSentEvent[] = [];
  const parser = createParser({ onEvent: ({ event = "message", data }) => void ready.push({ event, data }) });
  const reader = body.getReader();
  let sinceLast = 0;
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), idleMs);
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

async function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the stream is silent")), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
