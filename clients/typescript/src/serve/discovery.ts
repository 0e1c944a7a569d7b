/** The server's live definitions, asked of it in the process: what is compared with what was approved. */

import { isObject, type JsonObject, objectAt, parseValue } from "../call/json.js";
import { readBounded } from "../client/transport.js";
import { EventReader } from "./events.js";

/** Answers a request as a client would be answered. */
export type Ask = (request: Request) => Promise<Response>;

/** What is listed. */
export type Kind = "tools" | "prompts";

/** Asks a handler for all of a kind: as clients of MCP 2026-07-28 do, and where that fails in a session of its own. */
export async function discover(ask: Ask, url: string, kind: Kind): Promise<JsonObject[]> {
  try {
    return await listAll(ask, url, { "mcp-protocol-version": STATELESS, "mcp-method": `${kind}/list` }, kind);
  } catch {
    return await listInSession(ask, url, kind);
  }
}

async function listInSession(ask: Ask, url: string, kind: Kind): Promise<JsonObject[]> {
  const clientInfo = { name: "deputize-guard", version: "1" };
  const params = { protocolVersion: WITH_SESSIONS, capabilities: {}, clientInfo };
  const begun = await post(ask, url, {}, "initialize", params);
  const session = begun.headers.get("mcp-session-id");
  const { protocolVersion } = await resultOf(begun);
  const headers = {
    "mcp-protocol-version": typeof protocolVersion === "string" ? protocolVersion : WITH_SESSIONS,
    ...(session === null ? {} : { "mcp-session-id": session }),
  };
  try {
    const noted = await post(ask, url, headers, "notifications/initialized");
    await noted.body?.cancel();
    return await listAll(ask, url, headers, kind);
  } finally {
    if (session !== null) await ask(new Request(url, { method: "DELETE", headers })).then((ended) => ended.body?.cancel());
  }
}

async function listAll(ask: Ask, url: string, headers: Record<string, string>, kind: Kind): Promise<JsonObject[]> {
  const definitions: JsonObject[] = [];
  let cursor: string | undefined;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const meta = "mcp-method" in headers ? { _meta: ENVELOPE } : {};
    const params = { ...(cursor === undefined ? {} : { cursor }), ...meta };
    const { [kind]: listed, nextCursor } = await resultOf(await post(ask, url, headers, `${kind}/list`, params));
    if (!Array.isArray(listed)) throw new Error(`the server's answer to ${kind}/list is no list`);
    definitions.push(...listed.filter(isObject));
    if (typeof nextCursor !== "string") return definitions;
    cursor = nextCursor;
  }
  throw new Error(`the server's ${kind}/list does not end`);
}

async function post(
  ask: Ask,
  url: string,
  headers: Record<string, string>,
  method: string,
  params?: Record<string, unknown>,
): Promise<Response> {
  // Without params it is a notification, which has no id.
  const message = { jsonrpc: "2.0", method, ...(params === undefined ? {} : { id: "deputize", params }) };
  const accept = "application/json, text/event-stream";
  const response = await ask(
    new Request(url, {
      method: "POST",
      headers: { "content-type": "application/json", accept, ...headers },
      body: JSON.stringify(message),
    }),
  );
  if (!response.ok) throw new Error(`the server does not answer ${method} (status ${response.status})`);
  return response;
}

async function resultOf(response: Response): Promise<JsonObject> {
  const text = await readBounded(response, MAX_LISTING_BYTES);
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") === true;
  if (text === undefined) throw new Error("the server's answer is too long");
  const messages = isStream
    ? new EventReader(MAX_LISTING_BYTES).push(text).filter(({ data }) => data !== "").map(({ data }) => parseValue(data, LEVELS))
    : [parseValue(text, LEVELS)];
  const results = messages.map((message) => (isObject(message) ? objectAt(message, "result") : undefined));
  const result = results.find((each) => each !== undefined);
  if (result === undefined) throw new Error("the server gives no result");
  return result;
}

const STATELESS = "2026-07-28";
const WITH_SESSIONS = "2025-11-25";
const ENVELOPE = {
  "io.modelcontextprotocol/protocolVersion": STATELESS,
  "io.modelcontextprotocol/clientInfo": { name: "deputize-guard", version: "1" },
  "io.modelcontextprotocol/clientCapabilities": {},
};
const MAX_PAGES = 100;
/** A definition is nested at most as deep as arguments; the answer stands around it. */
const LEVELS = 40;
const MAX_LISTING_BYTES = 16 * 1024 * 1024;
