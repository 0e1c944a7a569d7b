/** What a server lists now, as it passes by. */

import { createParser } from "eventsource-parser";
import { toolDigest } from "../call/digest.js";
import { isObject, type JsonObject, objectAt, parseValue } from "../call/json.js";
import { DeputizeError } from "./errors.js";
import { readBounded } from "./transport.js";

/** A page of `tools/list`. */
export interface ListedPage {
  readonly isFirst: boolean;
  /** When it was asked for, by uptime. */
  readonly uptimeMs: number;
  /** Cursor of the page that follows, once this one is read. */
  nextCursor: string | undefined;
}

/** Digests of the definitions that a server's `tools/list` gave last. */
export class LiveTools {
  private readonly digests = new Map<string, string>();
  private listedMs = -Infinity;

  /** The digest of a tool's live definition; `undefined` where the server was not seen to list it of late. */
  digestOf(tool: string, uptimeMs: number): string | undefined {
    return uptimeMs - this.listedMs < FRESH_MS ? this.digests.get(tool) : undefined;
  }

  /** Digests the definitions in an answer to `tools/list`, before whoever asked sees them. */
  async watch(response: Response, page: ListedPage): Promise<Response> {
    const { body, headers } = response;
    if (body === null) return response;
    const { status, statusText } = response;
    if (headers.get("content-type")?.startsWith("text/event-stream") === true) {
      return new Response(body.pipeThrough(this.tap(page)), { status, statusText, headers });
    }
    const text = await readBounded(response, MAX_LISTING_BYTES);
    if (text === undefined) throw unreadable();
    await this.read(text, page);
    return new Response(text.slice(), { status, statusText, headers });
  }

  private tap(page: ListedPage): TransformStream<Uint8Array, Uint8Array> {
    const decoder = new TextDecoder();
    const events: string[] = [];
    const parser = createParser({ onEvent: ({ data }) => void events.push(data) });
    let length = 0;
    return new TransformStream({
      transform: async (chunk, controller) => {
        length += chunk.length;
        if (length > MAX_LISTING_BYTES) throw unreadable();
        parser.feed(decoder.decode(chunk, { stream: true }));
        for (const event of events.splice(0)) if (event !== "") await this.read(event, page);
        controller.enqueue(chunk);
      },
    });
  }

  private async read(text: Uint8Array | string, page: ListedPage): Promise<void> {
    let message;
    try {
      message = parseValue(text, MAX_LISTING_DEPTH);
    } catch {
      // Whoever reads it differently could show the model another tool than the one that was digested.
      throw unreadable();
    }
    const result = isObject(message) ? objectAt(message, "result") : undefined;
    const { tools, nextCursor } = result ?? {};
    if (!Array.isArray(tools)) return;
    page.nextCursor = typeof nextCursor === "string" ? nextCursor : undefined;
    if (page.isFirst) {
      // What is no longer listed is gone.
      this.digests.clear();
      this.listedMs = page.uptimeMs;
    }
    const seen = new Set<string>();
    for (const definition of tools.filter(isObject)) {
      const { name } = definition;
      if (typeof name !== "string") continue;
      // A name that stands twice is no name: no token is for it.
      const digest = seen.has(name) ? AMBIGUOUS : await digestOrNone(definition);
      seen.add(name);
      if (this.digests.size >= MAX_TOOLS && !this.digests.has(name)) throw unreadable();
      this.digests.set(name, digest);
    }
  }
}

async function digestOrNone(definition: JsonObject): Promise<string> {
  return toolDigest(definition).catch(() => AMBIGUOUS);
}

function unreadable(): DeputizeError {
  return new DeputizeError(
    "the server's tools/list cannot be read strictly",
    "have the server list fewer tools, in strict JSON: unique members, exact numbers",
  );
}

/** Equal to no digest. */
const AMBIGUOUS = "";
const MAX_LISTING_BYTES = 16 * 1024 * 1024;
const MAX_LISTING_DEPTH = 40;
const MAX_TOOLS = 10_000;
/** After this a definition is looked at anew before its tool is called. */
const FRESH_MS = 300_000;
