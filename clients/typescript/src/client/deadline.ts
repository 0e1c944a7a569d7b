/** An end to waiting. */

/**
 * Runs `act` with a signal that aborts after `ms`, or when `outer` does. (`AbortSignal.any` would do, but Node 20 may
 * collect what it returns while a request still waits on it.)
 */
export async function withDeadline<T>(
  ms: number,
  outer: AbortSignal | undefined,
  act: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const end = () => controller.abort(outer?.reason);
  const timer = setTimeout(() => controller.abort(new DOMException("it took too long", "TimeoutError")), ms);
  outer?.addEventListener("abort", end, { once: true });
  if (outer?.aborted === true) end();
  try {
    return await act(controller.signal);
  } finally {
    clearTimeout(timer);
    outer?.removeEventListener("abort", end);
  }
}
