/** The body of a request: exactly one JSON-RPC message that asks for exactly one thing. */

import { callDigest } from "../call/digest.js";
import {
  checkValue, isObject, type Json, JsonError, type JsonObject, MAX_DEPTH, objectAt, parseValue, wholeNumberAt,
} from "../call/json.js";
import { type Action, ACTIONS } from "../call/offers.js";
import { Reason } from "./reason.js";

/** Opens a stream of changes (MCP 2026-07-28, subscriptions). */
export const LISTEN = "subscriptions/listen";
/**
 * What an L0 token admits, besides notifications: discovery, listing, hearing that lists changed, and how much of a
 * session's log is heard.
 */
export const LISTING_METHODS: readonly string[] = [
  "initialize", "ping", "logging/setLevel", "server/discover", "tools/list", "prompts/list", "resources/list",
  "resources/templates/list", LISTEN,
];

/** MCP: ids are strings or integers, never null. */
export type MessageId = string | number;

/** A message as it was strictly read. */
export interface Message {
  /** The method; empty for a response. */
  readonly method: string;
  /** The id of a request or response; notifications have none. */
  readonly id: MessageId | undefined;
  /** Whether it is the client's answer to a request of the server (MCP up to 2025-11-25). */
  readonly isResponse: boolean;
  /** What a request that acts calls; absent for everything else. */
  readonly call: Call | undefined;
  /** The whole message, to be serialized anew: nothing else of the body is ever passed on. */
  readonly whole: JsonObject;
}

/** The parts of a request that acts. */
export interface Call {
  readonly action: Action;
  /** Name of the tool or prompt; URI of the resource, verbatim. */
  readonly name: string;
  readonly arguments: JsonObject;
  /** They steer a retry of a multi-round-trip call. */
  readonly inputResponses: Json | undefined;
  readonly requestState: Json | undefined;
}

/**
 * Reads a body (JSON-RPC 2.0 §4, §5). Batches, unknown members, and requests in the guise of notifications or of
 * responses are refused; so is every method that is neither a call of a tool nor on the list of an L0 token.
 */
export function readMessage(body: Uint8Array): Message {
  const whole = strictly(() => parseValue(body, MAX_DEPTH + ENVELOPE_LEVELS));
  if (Array.isArray(whole)) throw new Reason("message", "batches are not accepted");
  if (!isObject(whole)) throw new Reason("message", "the body is not a JSON-RPC message");
  if (whole["jsonrpc"] !== "2.0") throw new Reason("message", 'jsonrpc must be "2.0"');
  const id = idOf(whole);
  if (id === undefined && whole["id"] !== undefined) {
    throw new Reason("message", "id must be a string of at most 256 bytes, or an integer");
  }
  return whole["method"] === undefined ? readResponse(whole, id) : readRequest(whole, id);
}

/** The id of a message. They are remembered, so they are bounded. */
export function idOf(message: JsonObject): MessageId | undefined {
  const { id } = message;
  if (typeof id !== "string") return wholeNumberAt(message, "id");
  return new TextEncoder().encode(id).length <= MAX_ID_BYTES ? id : undefined;
}

/** JSON-RPC 2.0 §5: either `result` or `error`, never both, and the id of what was asked. */
function readResponse(whole: JsonObject, id: MessageId | undefined): Message {
  const error = objectAt(whole, "error");
  const isError = error !== undefined && Number.isInteger(error["code"]) && typeof error["message"] === "string";
  // MCP: results are objects.
  const isResponse = whole["error"] === undefined
    ? isObject(whole["result"]) && hasOnly(whole, ["jsonrpc", "id", "result"])
    : isError && hasOnly(whole, ["jsonrpc", "id", "error"]);
  if (!isResponse || id === undefined) {
    throw new Reason("message", "neither a request (method) nor a response (id and result or error)");
  }
  dropGuardsMeta(objectAt(whole, "result"));
  return { method: "", id, isResponse: true, call: undefined, whole };
}

function readRequest(whole: JsonObject, id: MessageId | undefined): Message {
  if (!hasOnly(whole, ["jsonrpc", "id", "method", "params"])) {
    throw new Reason("message", "a request has only jsonrpc, id, method and params");
  }
  const { method, params = {} } = whole;
  if (typeof method !== "string") throw new Reason("message", "method must be a string");
  if (!isObject(params)) throw new Reason("message", "params must be an object");
  const isNotification = id === undefined;
  if (isNotification !== method.startsWith("notifications/")) {
    throw new Reason("message", "notifications, and they alone, have no id");
  }
  // It goes on in a header, and is logged.
  if (isNotification && !NOTIFICATION.test(method)) {
    throw new Reason("message", "method has a name that no notification has");
  }
  const action = ACTIONS.find((each) => each === method);
  const call = action === undefined ? undefined : readCall(action, params);
  if (call === undefined && !isNotification && !LISTING_METHODS.includes(method)) throw new Reason("unknown_method");
  dropGuardsMeta(params);
  if (method === LISTEN) narrowSubscription(params);
  return { method, id, isResponse: false, call, whole: withdrawSampling(whole) };
}

/**
 * A guard lets no server borrow the client's model, so the server is not told that it could: `sampling` is taken out of
 * the capabilities, which stand in `params` of `initialize` or, since 2026-07-28, in `_meta` of every request.
 */
function withdrawSampling(whole: JsonObject): JsonObject {
  const params = objectAt(whole, "params");
  const stated = params === undefined ? undefined : objectAt(params, "capabilities");
  const meta = params === undefined ? undefined : objectAt(params, "_meta");
  const inMeta = meta === undefined ? undefined : objectAt(meta, CLIENT_CAPABILITIES);
  for (const capabilities of [stated, inMeta]) {
    // It was read here, and nobody else has it yet.
    if (capabilities !== undefined) delete (capabilities as Record<string, Json>)["sampling"];
  }
  return whole;
}

/** Whose call it is, and where its AWS credentials are, only a guard says. */
function dropGuardsMeta(around: JsonObject | undefined): void {
  const meta = around === undefined ? undefined : objectAt(around, "_meta");
  if (meta === undefined) return;
  for (const name of GUARDS_META) delete (meta as Record<string, Json>)[name];
}

/** Of a subscription only that says that lists changed goes on: an L0 token is for no resource. */
function narrowSubscription(params: JsonObject): void {
  const asked = objectAt(params, "notifications");
  if (asked === undefined) throw new Reason("message", "params.notifications must be an object");
  for (const name of Object.keys(asked)) if (!LIST_CHANGES.includes(name)) delete (asked as Record<string, Json>)[name];
}

/** The tool that is called, if it is one. */
export function toolOf(call: Call | undefined): string | undefined {
  return call?.action === "tools/call" ? call.name : undefined;
}

/** Digest of a call. */
export function digestOf(call: Call): Promise<string> {
  return callDigest({ ...call, method: call.action }).catch((error: unknown) => {
    throw error instanceof JsonError ? new Reason("json", error.problem) : error;
  });
}

/** Whether this is a retry that its responses steer. */
export function isSteered(call: Call): boolean {
  return call.inputResponses !== undefined || call.requestState !== undefined;
}

function readCall(action: Action, params: JsonObject): Call {
  const members = action === "resources/read" ? ["uri"] : ["name", "arguments"];
  // INVARIANT: of these, only `_meta` is outside of the call's digest.
  if (!hasOnly(params, [...members, "_meta", "inputResponses", "requestState"])) {
    throw new Reason("message", "params has a member that this method does not take");
  }
  const { arguments: args = {}, _meta: meta = {}, inputResponses, requestState } = params;
  const name = params[action === "resources/read" ? "uri" : "name"];
  if (typeof name !== "string") throw new Reason("message", "params.name (params.uri of a resource) must be a string");
  if (!isObject(args)) throw new Reason("message", "params.arguments must be an object");
  if (!isObject(meta)) throw new Reason("message", "params._meta must be an object");
  strictly(() => checkValue(args, MAX_DEPTH));
  return { action, name, arguments: args, inputResponses, requestState };
}

function hasOnly(object: JsonObject, names: readonly string[]): boolean {
  return Object.keys(object).every((name) => names.includes(name));
}

function strictly<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof JsonError ? new Reason("json", error.problem) : error;
  }
}

/**
 * The members of `_meta` in which a guard hands the verified token, and the address of the call's AWS credentials, to a
 * server that is spoken to without headers.
 */
const GUARDS_META = ["deputize/call", "deputize/aws"];
const LIST_CHANGES = ["toolsListChanged", "promptsListChanged", "resourcesListChanged"];
/** Where a client says in each request what it can do (MCP 2026-07-28). */
const CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";
const NOTIFICATION = /^[A-Za-z0-9_./-]{1,128}$/;
const MAX_ID_BYTES = 256;
/** The message and its `params` stand around the arguments. */
const ENVELOPE_LEVELS = 2;
