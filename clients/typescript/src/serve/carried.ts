/** A request on its way to the handler: what was verified, and of its header fields what decides nothing. */

import { isObject, parseValue } from "../call/json.js";
import { encodeValue, type Fields, STATELESS } from "../guard/headers.js";
import { idOf, type Message, type MessageId } from "../guard/message.js";
import { Reason } from "../guard/reason.js";
import type { Verified } from "../guard/verified.js";
import type { Session } from "./sessions.js";

/** A request to carry. */
export interface Carriage {
  /** The request as it came. */
  readonly request: Request;
  readonly fields: Fields;
  readonly verified: Verified;
  readonly session: Session | undefined;
  readonly requestId: string;
  /** Aborted when nobody waits for an answer any more. */
  readonly signal: AbortSignal;
}

/** The request as the handler may see it: no credential, no cookie, nothing said in somebody else's name, no query. */
export function carried(carriage: Carriage, alsoPassed: ReadonlySet<string>): Request {
  const { request, verified, signal } = carriage;
  const url = new URL(request.url);
  url.search = "";
  const { method } = request;
  const body = verified.kind === "stream" ? {} : { body: verified.rebuiltBody() };
  return new Request(url, { method, headers: headersOf(carriage, alsoPassed), signal, ...body });
}

/** What the guard says to the handler for itself, in the session of a request: that it refuses what was asked. */
export function ownMessage({ request, fields, session }: Carriage, body: string): Request {
  const headers = new Headers({ "content-type": "application/json", accept: "application/json, text/event-stream" });
  for (const name of ["host", "mcp-protocol-version"]) {
    const value = fields.single(name);
    if (value !== undefined) headers.set(name, value);
  }
  if (session !== undefined) headers.set("mcp-session-id", session.id);
  const url = new URL(request.url);
  url.search = "";
  return new Request(url, { method: "POST", headers, body });
}

/** The names of header fields that a trusted proxy sets, in lower case; throws for one that is never passed on. */
export function checkPassed(names: readonly string[]): ReadonlySet<string> {
  const lower = names.map((name) => name.toLowerCase());
  const never = lower.find((name) => NEVER.has(name) || /^(mcp|deputize|content)-/.test(name));
  if (never !== undefined) throw new Error(`${never} is never passed on: it is the guard's to say`);
  return new Set(lower);
}

/** The session that a request names; none in a version of MCP without sessions. */
export function sessionIdOf(fields: Fields, message: Message | undefined): string | undefined {
  const version = fields.single("mcp-protocol-version");
  if (version !== undefined && !/^\d{4}-\d{2}-\d{2}$/.test(version)) {
    throw new Reason("header_mismatch", "MCP-Protocol-Version");
  }
  const declared = declaredVersion(message);
  if (declared === undefined && (version === undefined || version < STATELESS)) return fields.single("mcp-session-id");
  if (message !== undefined) checkStateless(fields, message, version === declared);
  // A session id beside it means nothing in this version.
  return undefined;
}

/** The id under which a request of the stateless version is refused: null where it is not known. */
export function idToRefuse(fields: Fields, body: Uint8Array | undefined): MessageId | null | undefined {
  const [version, ...others] = fields.all("mcp-protocol-version");
  if (version !== STATELESS || others.length > 0) return undefined;
  try {
    const message = parseValue(body ?? new Uint8Array(), LEVELS);
    return (isObject(message) ? idOf(message) : undefined) ?? null;
  } catch {
    return null;
  }
}

/** MCP 2026-07-28, server validation: the headers stand there and say what the body says. */
function checkStateless(fields: Fields, message: Message, agrees: boolean): void {
  if (!agrees) throw new Reason("header_mismatch", "MCP-Protocol-Version and _meta must name the same version");
  if (message.isResponse) throw new Reason("message", "clients send no responses in this version");
  // For notifications the version defines no headers.
  if (message.id !== undefined && fields.single("mcp-method") === undefined) {
    throw new Reason("header_mismatch", "Mcp-Method is required");
  }
  if (message.call !== undefined && fields.single("mcp-name") === undefined) {
    throw new Reason("header_mismatch", "Mcp-Name is required");
  }
}

function declaredVersion(message: Message | undefined): string | undefined {
  const params = message?.whole["params"] as { _meta?: Record<string, unknown> } | undefined;
  const version = params?._meta?.["io.modelcontextprotocol/protocolVersion"];
  return typeof version === "string" ? version : undefined;
}

function headersOf({ fields, verified, session, requestId }: Carriage, alsoPassed: ReadonlySet<string>): Headers {
  const headers = new Headers();
  for (const name of [...PASSED, ...alsoPassed]) for (const value of fields.all(name)) headers.append(name, value);
  const set = (name: string, value: string | undefined) => {
    if (value !== undefined) headers.set(name, value);
  };
  if (verified.kind !== "stream") set("content-type", "application/json");
  if (verified.kind === "listing") set("mcp-method", verified.method);
  if (verified.kind === "call") {
    set("mcp-method", verified.action);
    set("mcp-name", encodeValue(verified.name));
    for (const [name, value] of verified.mirrored) set(name, value);
    set("deputize-call", verified.token);
  }
  set("mcp-session-id", session?.id);
  set("mcp-protocol-version", fields.single("mcp-protocol-version"));
  if (verified.kind === "stream") set("last-event-id", fields.single("last-event-id"));
  const traceparent = fields.single("traceparent");
  if (traceparent !== undefined && isTraceparent(traceparent)) set("traceparent", traceparent);
  set("x-request-id", requestId);
  return headers;
}

/** W3C Trace Context §3.2. */
function isTraceparent(value: string): boolean {
  const [, trace = "0", parent = "0"] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$/.exec(value) ?? [];
  return !/^0+$/.test(trace) && !/^0+$/.test(parent);
}

const LEVELS = 40;
/** What goes on as it came. Cookies, forwarding headers, credentials and all else stay behind. */
const PASSED = ["accept", "accept-language", "host", "origin", "user-agent"];
const NEVER = new Set(["authorization", "dpop", "transfer-encoding", "last-event-id", "traceparent", "connection"]);
