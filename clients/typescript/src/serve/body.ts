/** The body of a request: whole, as long as it may be, and in time. */

import { readBounded } from "../client/transport.js";
import { Reason } from "../guard/reason.js";

/** Reads it; refuses what is longer than `maxBytes`, and what has not come after `seconds`. */
export async function bodyOf(request: Request, maxBytes: number, seconds: number): Promise<Uint8Array> {
  if (request.method !== "POST") return new Uint8Array();
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new Reason("too_slow")), seconds * 1000);
  try {
    const body = await readBounded(request, maxBytes, late.signal);
    if (body === undefined) throw new Reason("too_large");
    return body;
  } finally {
    clearTimeout(timer);
  }
}
