/** The server's live definitions, asked of it in the process: what is compared with what was approved. */

import { isObject, type JsonObject, objectAt } from "../call/json.js";
import { messagesOf } from "./listing.js";

/** Asks a handler for all its tools. It is asked as clients of both eras of the protocol ask. */
export async function discoverTools(handle: (request: Request) => Promise<Response>, url: string): Promise<JsonObject[]> {
  let problem: unknown;
  for (const version of ["2026-07-28", "2025-11-25"]) {
    try {
      return await listAll(handle, url, version);
    } catch (error) {
      problem = error;
    }
  }
  throw problem;
}

async function listAll(
  handle: (request: Request) => Promise<Response>,
  url: string,
  version: string,
): Promise<JsonObject[]> {
  const tools: JsonObject[] = [];
  let cursor: string | undefined;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const response = await handle(listRequest(url, version, cursor));
    const messages = response.ok ? await messagesOf(response) : [];
    const result = messages.map((message) => objectAt(message, "result")).find((each) => each !== undefined);
    const listed = result?.["tools"];
    if (result === undefined || !Array.isArray(listed)) {
      throw new Error(`the server does not answer tools/list (status ${response.status})`);
    }
    tools.push(...listed.filter(isObject));
    const next = result["nextCursor"];
    if (typeof next !== "string") return tools;
    cursor = next;
  }
  throw new Error("the server's tools/list does not end");
}

function listRequest(url: string, version: string, cursor: string | undefined): Request {
  const isStateless = version >= "2026";
  const meta = {
    "io.modelcontextprotocol/protocolVersion": version,
    "io.modelcontextprotocol/clientInfo": { name: "deputize-guard", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const params = { ...(cursor === undefined ? {} : { cursor }), ...(isStateless ? { _meta: meta } : {}) };
  return new Request(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": version,
      ...(isStateless ? { "mcp-method": "tools/list" } : {}),
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: "deputize", method: "tools/list", params }),
  });
}

const MAX_PAGES = 100;
