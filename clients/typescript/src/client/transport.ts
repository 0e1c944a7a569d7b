/** HTTP to the broker: no redirects, bounded in time and size. */

import { joined } from "../call/bytes.js";
import { type JsonObject, parseObject } from "../call/json.js";
import { withDeadline } from "./deadline.js";
import { ProtocolError, UnreachableError } from "./errors.js";

/** `fetch`, or what stands for it. */
export type FetchLike = (url: string | URL, init?: RequestInit) => Promise<Response>;

/** An answer, received whole. A body that is no JSON object is an empty one. */
export interface Received {
  readonly status: number;
  readonly body: JsonObject;
  readonly dpopNonce: string | undefined;
  readonly retryAfterSeconds: number | undefined;
  /** In lower case, without parameters. */
  readonly mediaType?: string | undefined;
  /** The body as it came. */
  readonly bytes?: Uint8Array;
}

/** Sends requests to the broker. */
export class Transport {
  constructor(
    private readonly fetch: FetchLike,
    private readonly timeoutMs: number,
  ) {}

  /** Fetches a document. */
  get(url: string, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Received> {
    return this.send(url, { headers: { accept: "application/json", ...headers } }, 0, signal);
  }

  /** Posts a form. `waitSeconds` is how long the broker may hold the answer back (RFC 7240 `wait`). */
  post(
    url: string,
    form: URLSearchParams,
    { proof, waitSeconds = 0, signal }: { proof?: string; waitSeconds?: number; signal?: AbortSignal | undefined } = {},
  ): Promise<Received> {
    const headers: Record<string, string> = {
      accept: "application/json",
      "content-type": "application/x-www-form-urlencoded",
    };
    if (proof !== undefined) headers["dpop"] = proof;
    if (waitSeconds > 0) headers["prefer"] = `wait=${waitSeconds}`;
    return this.send(url, { method: "POST", headers, body: form.toString() }, waitSeconds, signal);
  }

  private async send(url: string, init: RequestInit, waitSeconds: number, signal?: AbortSignal): Promise<Received> {
    try {
      return await withDeadline(this.timeoutMs + waitSeconds * 1000, signal, async (ends) => {
        const response = await this.fetch(url, { ...init, redirect: "error", signal: ends });
        const text = await readBounded(response, MAX_ANSWER_BYTES);
        if (text === undefined) throw new ProtocolError("the broker's answer is too long");
        return {
          status: response.status,
          body: jsonOf(text),
          dpopNonce: header(response, "dpop-nonce", MAX_NONCE_LENGTH),
          retryAfterSeconds: retryAfter(header(response, "retry-after", 10)),
          mediaType: header(response, "content-type", MAX_NONCE_LENGTH)?.split(";", 1)[0]?.trim().toLowerCase(),
          bytes: text,
        };
      });
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof ProtocolError) throw error;
      // The URL is not in the text: who asked knows it, and a token may be in it.
      throw new UnreachableError("the broker", error);
    }
  }
}

/** The body of a message, or `undefined` where it is longer than `maxBytes`. Throws what `late` is aborted with. */
export async function readBounded(message: Request | Response, maxBytes: number, late?: AbortSignal): Promise<Uint8Array | undefined> {
  if (message.body === null) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = message.body.getReader();
  late?.addEventListener("abort", () => void reader.cancel().catch(() => undefined), { once: true });
  for (;;) {
    late?.throwIfAborted();
    const { done, value } = await reader.read();
    late?.throwIfAborted();
    if (done) break;
    length += value.length;
    if (length > maxBytes) {
      void reader.cancel().catch(() => undefined);
      return undefined;
    }
    chunks.push(value);
  }
  return joined(chunks);
}

function jsonOf(text: Uint8Array): JsonObject {
  try {
    return parseObject(text);
  } catch {
    return {};
  }
}

function header(response: Response, name: string, maxLength: number): string | undefined {
  const value = response.headers.get(name);
  return value !== null && value.length <= maxLength ? value : undefined;
}

function retryAfter(value: string | undefined): number | undefined {
  return value !== undefined && /^[0-9]{1,9}$/.test(value) ? Number(value) : undefined;
}

const MAX_ANSWER_BYTES = 256 * 1024;
const MAX_NONCE_LENGTH = 256;
