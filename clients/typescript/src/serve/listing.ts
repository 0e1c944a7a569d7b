/** What a caller may see of `tools/list`: the tools that are exactly what was approved. */

import { createParser, type EventSourceMessage } from "eventsource-parser";
import { isObject, type JsonObject, objectAt, parseObject } from "../call/json.js";
import { readBounded } from "../client/transport.js";
import type { Guard } from "../guard/guard.js";

/** The answer with every other tool taken out. What cannot be read strictly is not passed on. */
export async function filterListing(response: Response, guard: Guard): Promise<Response> {
  const { status, headers } = response;
  if (!response.ok || response.body === null) return response;
  const text = await readBounded(response, MAX_LISTING_BYTES);
  if (text === undefined) return unreadable();
  try {
    const isStream = headers.get("content-type")?.startsWith("text/event-stream") === true;
    const filtered = isStream
      ? await filterEvents(new TextDecoder().decode(text), guard)
      : JSON.stringify(await filterMessage(parseObject(text), guard));
    const kept = new Headers(headers);
    kept.delete("content-length");
    return new Response(filtered, { status, headers: kept });
  } catch {
    return unreadable();
  }
}

/** The messages of an answer to `tools/list`, however it came. */
export async function messagesOf(response: Response): Promise<JsonObject[]> {
  const text = await readBounded(response, MAX_LISTING_BYTES);
  if (text === undefined) return [];
  if (headers(response).startsWith("text/event-stream")) {
    return eventsOf(new TextDecoder().decode(text)).filter(({ data }) => data !== "").map(({ data }) => parseObject(data));
  }
  return [parseObject(text)];
}

async function filterMessage(message: JsonObject, guard: Guard): Promise<JsonObject> {
  const result = objectAt(message, "result");
  const tools = result?.["tools"];
  if (result === undefined || !Array.isArray(tools)) return message;
  const approved: JsonObject[] = [];
  for (const tool of tools.filter(isObject)) if (await guard.isApproved(tool)) approved.push(tool);
  return { ...message, result: { ...result, tools: approved } };
}

async function filterEvents(text: string, guard: Guard): Promise<string> {
  let filtered = "";
  for (const { event, id, data } of eventsOf(text)) {
    const message = data === "" ? "" : JSON.stringify(await filterMessage(parseObject(data), guard));
    if (event !== undefined) filtered += `event: ${event}\n`;
    if (id !== undefined) filtered += `id: ${id}\n`;
    filtered += `data: ${message}\n\n`;
  }
  return filtered;
}

function eventsOf(text: string): EventSourceMessage[] {
  const events: EventSourceMessage[] = [];
  const parser = createParser({ onEvent: (event) => void events.push(event) });
  parser.feed(text);
  parser.reset({ consume: true });
  return events;
}

function headers(response: Response): string {
  return response.headers.get("content-type") ?? "";
}

function unreadable(): Response {
  return Response.json({ error: "server_error", error_description: "the server's tools cannot be listed" }, { status: 502 });
}

const MAX_LISTING_BYTES = 16 * 1024 * 1024;
