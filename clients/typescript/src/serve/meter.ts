/** Counts the bytes of an answer, and breaks off what is too long. */

/** How an answer ended. */
export interface End {
  readonly bytes: number;
  /** Whether it came to its own end. */
  readonly isWhole: boolean;
}

/** The same answer; `onEnd` is told once, when it has ended. */
export function meter(response: Response, maxBytes: number, onEnd: (end: End) => void): Response {
  const { body, status, statusText, headers } = response;
  if (body === null) {
    onEnd({ bytes: 0, isWhole: true });
    return response;
  }
  const reader = body.getReader();
  let bytes = 0;
  const metered = new ReadableStream<Uint8Array>({
    pull: async (controller) => {
      try {
        const { done, value } = await reader.read();
        bytes += value?.length ?? 0;
        if (bytes > maxBytes) throw new Error("the result is too long");
        if (!done) return controller.enqueue(value);
        onEnd({ bytes, isWhole: true });
        controller.close();
      } catch (error) {
        onEnd({ bytes, isWhole: false });
        controller.error(error);
        void reader.cancel().catch(() => undefined);
      }
    },
    cancel: async (reason) => {
      onEnd({ bytes, isWhole: false });
      await reader.cancel(reason);
    },
  });
  return new Response(metered, { status, statusText, headers });
}
