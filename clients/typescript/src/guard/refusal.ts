/** How a refusal is said: the only place with HTTP statuses and OAuth error codes. */

import { DETAIL_TYPE } from "../call/claims.js";
import type { Json, JsonObject } from "../call/json.js";
import type { Level } from "../call/level.js";
import type { GuardConfig } from "./config.js";
import type { Call, MessageId } from "./message.js";
import type { Reason, ReasonKind } from "./reason.js";

/** What would have to be granted for the request at hand. */
export interface Needed {
  readonly scope: string;
  readonly details: readonly Json[];
}

/** The answer to a refused request. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  /** HTTP status. */
  readonly status: number;
  /** `error` (RFC 6750 §3.1, RFC 9449 §7.1); empty where the request had no token at all. */
  readonly error: string;
  /** What is wrong and what to do. */
  readonly description: string;
  /** Values of `WWW-Authenticate`. */
  readonly challenges: readonly string[];
  /** The `authorization_details` that would be needed (403 `insufficient_scope`). */
  readonly authorizationDetails: readonly Json[] | undefined;
  /** Value of `Retry-After`. */
  readonly retryAfterSeconds: number | undefined;

  constructor(
    /** Why, in our words. */
    readonly reason: Reason,
    config: GuardConfig,
    /** Value of `DPoP-Nonce`. */
    readonly dpopNonce: string | undefined,
    needed: Needed | undefined,
  ) {
    super(reason.message);
    const [status, error, description] = ANSWERS[reason.kind];
    this.status = status;
    this.error = error;
    this.description = describe(reason, description);
    const wanted = status === 403 ? needed : undefined;
    const isAboutTokens = (status === 401 || status === 403) && reason.kind !== "origin";
    this.challenges = isAboutTokens ? [challenge(error, config, wanted)] : [];
    this.authorizationDetails = wanted?.details;
    this.retryAfterSeconds = reason.retryAfterSeconds ?? (status === 503 ? RETRY_AFTER_SECONDS : undefined);
  }

  /** The JSON body of the answer. */
  body(): JsonObject {
    const { error, description, authorizationDetails } = this;
    const details = authorizationDetails === undefined ? {} : { authorization_details: authorizationDetails };
    return { error, error_description: description, ...details };
  }

  /**
   * The answer. `id`: that of a request of MCP 2026-07-28, which is refused in the protocol's own words, where it has any.
   */
  response(id?: MessageId | null): Response {
    const headers = new Headers({ "content-type": "application/json", "cache-control": "no-store" });
    const error = id === undefined ? undefined : inProtocol(this.reason);
    if (error !== undefined) {
      if (this.dpopNonce !== undefined) headers.set("dpop-nonce", this.dpopNonce);
      const { status, code, message } = error;
      return new Response(JSON.stringify({ jsonrpc: "2.0", id, error: { code, message } }), { status, headers });
    }
    for (const challenge of this.challenges) headers.append("www-authenticate", challenge);
    if (this.dpopNonce !== undefined) headers.set("dpop-nonce", this.dpopNonce);
    if (this.retryAfterSeconds !== undefined) headers.set("retry-after", String(this.retryAfterSeconds));
    if (this.status === 405) headers.set("allow", this.reason.kind === "no_stream" ? "POST" : "GET, POST, DELETE");
    return new Response(JSON.stringify(this.body()), { status: this.status, headers });
  }
}

/** What a call would need. */
export function neededForCall(resource: string, call: Call, level: Level): Needed {
  const { action, name } = call;
  const detail = { type: DETAIL_TYPE, locations: [resource], actions: [action], identifier: name };
  // No name of a tool has a colon: a verifier that goes by the scope alone takes no prompt for a tool.
  const kind = { "tools/call": "", "prompts/get": "mcp:prompt:", "resources/read": "mcp:resource:" }[action];
  return { scope: `${kind}${name}`, details: [level === "L3" ? { ...detail, arguments: call.arguments } : detail] };
}

/** Listing needs a token without `authorization_details`. */
export const NEEDED_FOR_LISTING: Needed = { scope: "mcp:list", details: [] };

/** MCP 2026-07-28, error codes. */
function inProtocol({ kind, detail = "Mcp" }: Reason): { status: number; code: number; message: string } | undefined {
  if (kind === "unknown_method") return { status: 404, code: METHOD_NOT_FOUND, message: "Method not found" };
  if (kind !== "header_mismatch") return undefined;
  const message = detail.includes(" ") ? detail : `${detail} headers and the body say different things`;
  return { status: 400, code: HEADER_MISMATCH, message };
}

function describe({ kind, detail }: Reason, description: string): string {
  if (detail === undefined) return description;
  if (kind === "message") return detail;
  return kind === "arguments" || kind === "constraints" ? `${description} (${detail})` : description;
}

/**
 * RFC 9449 §7.1, RFC 6750 §3, RFC 9728 §5.1. Nothing in it comes from the request but the scope, whose characters are
 * checked.
 */
function challenge(error: string, config: GuardConfig, needed: Needed | undefined): string {
  const parts = [`DPoP resource_metadata="${quotable(config.resourceMetadata)}"`, 'algs="ES256 EdDSA"'];
  if (error !== "") parts.push(`error="${error}"`);
  if (needed !== undefined) parts.push(`scope="${quotable(needed.scope)}"`);
  return parts.join(", ");
}

function quotable(text: string): string {
  return text.replace(/[^!#-[\]-~]/g, "").slice(0, MAX_QUOTED_CHARACTERS);
}

/** Status, code, and a sentence that gives nothing of the inside away. */
const ANSWERS: Record<ReasonKind, readonly [status: number, error: string, description: string]> = {
  too_slow: [408, "invalid_request", "the body did not come: send it at once"],
  too_large: [413, "invalid_request", "the body is too large: send less"],
  http_method: [405, "invalid_request", "use POST, or GET and DELETE in a session"],
  media_type: [415, "invalid_request", "send uncompressed application/json in UTF-8"],
  repeated_header: [400, "invalid_request", "a header that may stand once was sent twice"],
  json: [400, "invalid_request", "the body is not strict JSON: unique members, exact numbers, one value"],
  message: [400, "invalid_request", "the body is not one request"],
  unknown_method: [403, "insufficient_scope", "no token admits this method"],
  header_mismatch: [400, "invalid_request", "an Mcp- header differs from the body"],
  session: [404, "unknown_session", "no such session or stream: initialize anew"],
  no_session: [400, "invalid_request", "send the Mcp-Session-Id that initialize gave"],
  not_asked: [400, "invalid_request", "the server asked nothing with this id in this session"],
  id_in_use: [400, "invalid_request", "a request with this id is under way in this session"],
  no_stream: [405, "invalid_request", "this server offers no stream here"],
  no_room: [503, "temporarily_unavailable", "no room for another session: come back later"],
  origin: [403, "forbidden_origin", "web pages of other origins may not call"],
  no_token: [401, "", "send a token for this resource"],
  token: [401, "invalid_token", "the token is not good here: exchange anew for this resource"],
  proof: [401, "invalid_dpop_proof", "send one fresh proof of the token's key for this URL, method and token"],
  nonce: [401, "use_dpop_nonce", "repeat with the nonce of the DPoP-Nonce header in the proof"],
  scope: [403, "insufficient_scope", "the token is for something else: exchange for exactly this call"],
  call_differs: [403, "insufficient_scope", "the token is for something else: exchange for exactly this call"],
  tool: [403, "insufficient_scope", "this tool is not approved as it is now"],
  arguments: [403, "insufficient_scope", "the arguments do not satisfy the approved schema"],
  constraints: [403, "insufficient_scope", "the arguments are outside of the token's constraints"],
  revoked: [401, "invalid_token", "the token was revoked"],
  used_up: [401, "invalid_token", "the token was used as often as it may be: exchange anew"],
  limited: [429, "temporarily_unavailable", "too many calls: come back later"],
  unavailable: [503, "temporarily_unavailable", "the call cannot be decided now: come back later"],
  server_error: [502, "server_error", "the MCP server gave no valid answer"],
  server_refuses: [502, "server_error", "the MCP server does not accept its guard: tell its operator"],
  server_down: [503, "server_unavailable", "the MCP server is down: come back later"],
  server_timeout: [504, "server_timeout", "the MCP server did not answer in time"],
  server_samples: [502, "server_error", "the MCP server asked for the client's model: its guard refuses that"],
  server_too_long: [502, "server_error", "the MCP server's answer is larger than its guard lets through"],
};
/** JSON-RPC 2.0 §5.1. */
const METHOD_NOT_FOUND = -32601;
const HEADER_MISMATCH = -32020;
const RETRY_AFTER_SECONDS = 1;
const MAX_QUOTED_CHARACTERS = 256;
