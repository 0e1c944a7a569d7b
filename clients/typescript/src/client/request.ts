/** What a client asks for. */

import type { Constraint } from "../call/constraints.js";
import type { Json, JsonObject } from "../call/json.js";
import type { Action } from "../call/offers.js";
import { DETAIL_TYPE } from "../call/claims.js";

/** Kinds of token (RFC 8693 §3): any JWT, an access token (ours too, at the next hop), an OpenID Connect ID token. */
export type TokenType = "jwt" | "access_token" | "id_token";

/** What is asked of the server: it decides the binding level. */
export type Detail =
  /** L0: discovery and listing. */
  | { readonly level: "L0" }
  /** L1: one tool. */
  | { readonly level: "L1"; readonly tool: string }
  /** L2: one tool, every argument constrained, by JSON Pointer. */
  | { readonly level: "L2"; readonly tool: string; readonly constraints: Readonly<Record<string, Constraint>> }
  /** L3: one call, with exactly these arguments. */
  | {
      readonly level: "L3";
      readonly tool: string;
      readonly arguments: JsonObject;
      /** `inputResponses` of a multi-round-trip retry. */
      readonly inputResponses?: Json | undefined;
      /** `requestState` of a multi-round-trip retry. */
      readonly requestState?: Json | undefined;
    }
  /** L3 by digest alone, where policy needs no arguments. */
  | { readonly level: "L3"; readonly tool: string; readonly callDigest: string };

/** One exchange. */
export interface ExchangeRequest {
  /** The server's resource URI. */
  readonly resource: string;
  /** The token of the user in whose name it is asked; without one, the client asks for its own L0 token. */
  readonly subjectToken?: string | undefined;
  /** The kind of `subjectToken`; `jwt` unless said. */
  readonly subjectTokenType?: TokenType | undefined;
  /** The token of who acts, where that is not this client itself. */
  readonly actorToken?: string | undefined;
  readonly actorTokenType?: TokenType | undefined;
  /** What is asked of the server; L0 unless said. */
  readonly detail?: Detail | undefined;
  /** What is done with what `detail` names as `tool`: a tool is called unless this says prompt or resource (its URI). */
  readonly action?: Action | undefined;
  /** Narrows the scope. */
  readonly scope?: string | undefined;
  /** Comes back for a call that had to wait for a person. */
  readonly approvalId?: string | undefined;
  /** How long the broker may hold its answer back while a person decides, in seconds; at most 60. */
  readonly waitSeconds?: number | undefined;
  /** Goes on with a transaction that this client began. */
  readonly transactionId?: string | undefined;
  /** Recorded as claimed. */
  readonly claimed?: Readonly<
    Partial<Record<"host" | "model" | "workflow" | "traceparent" | "parent_request_id", string>>
  >;
  /**
   * Digest of the definition that the server gives of the tool now (`toolDigest(definition)`). Where it is given, a
   * token for another definition is refused with `ToolChangedError`.
   */
  readonly liveToolDigest?: string | undefined;
}

/** Whether an answer may serve again: never at L3, and never when it was waited for. */
export function mayBeCached(request: ExchangeRequest): boolean {
  return request.detail?.level !== "L3" && request.approvalId === undefined;
}

/** The parameters, without those that prove the client. Their order is fixed: they are the key of the cache too. */
export function formOf(request: ExchangeRequest): URLSearchParams {
  const form = new URLSearchParams();
  if (request.subjectToken === undefined) {
    form.append("grant_type", "client_credentials");
  } else {
    form.append("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    form.append("subject_token", request.subjectToken);
    form.append("subject_token_type", tokenTypeUri(request.subjectTokenType));
  }
  if (request.actorToken !== undefined) {
    form.append("actor_token", request.actorToken);
    form.append("actor_token_type", tokenTypeUri(request.actorTokenType));
  }
  form.append("resource", request.resource);
  const detail = authorizationDetail(request.resource, request.detail ?? { level: "L0" }, request.action);
  if (detail !== undefined) form.append("authorization_details", JSON.stringify([detail]));
  const optional = {
    scope: request.scope,
    approval_id: request.approvalId,
    transaction_id: request.transactionId,
    ...request.claimed,
  };
  for (const [name, value] of Object.entries(optional)) if (value !== undefined) form.append(name, value);
  return form;
}

function authorizationDetail(
  resource: string, detail: Detail, action: Action = "tools/call",
): Record<string, unknown> | undefined {
  if (detail.level === "L0") return undefined;
  const { tool } = detail;
  const members = { type: DETAIL_TYPE, locations: [resource], actions: [action], identifier: tool };
  if (detail.level === "L1") return members;
  if (detail.level === "L2") return { ...members, constraints: detail.constraints };
  if ("callDigest" in detail) return { ...members, call_digest: detail.callDigest };
  const { arguments: args, inputResponses, requestState } = detail;
  return { ...members, arguments: args, inputResponses, requestState };
}

function tokenTypeUri(type: TokenType = "jwt"): string {
  return `urn:ietf:params:oauth:token-type:${type}`;
}
