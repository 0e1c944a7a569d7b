/** What a handler gets with a verified request. */

import type { Verified, VerifiedCall } from "../guard/verified.js";

/**
 * Who calls, in the form that the MCP SDK hands on to tools (`AuthInfo`): as `ctx.http.authInfo` in version 2, as
 * `extra.authInfo` in version 1.
 */
export interface AuthInfo {
  /** The token: spent or bound. Bring it to the broker for the next hop. */
  readonly token: string;
  /** The OAuth client that made the exchange. */
  readonly clientId: string;
  readonly scopes: string[];
  /** Seconds since the epoch. */
  readonly expiresAt: number;
  readonly resource: URL;
  readonly extra: Record<string, unknown>;
}

/** The second argument of a handler. */
export interface HandlerContext {
  readonly authInfo: AuthInfo;
  /** The message, as it was verified; absent where the request has no body. */
  readonly parsedBody: unknown;
}

/** A web-standard MCP handler: what `createMcpHandler` of `@modelcontextprotocol/server` returns, or its `fetch`. */
export type McpHandler =
  | ((request: Request, context: HandlerContext) => Promise<Response> | Response)
  | { fetch(request: Request, context: HandlerContext): Promise<Response> | Response };

/** The context of a verified request. */
export function contextOf(verified: Verified): HandlerContext {
  const { claims } = verified;
  return {
    authInfo: {
      token: verified.token,
      clientId: claims.clientId,
      scopes: claims.scope.split(" "),
      expiresAt: claims.exp,
      resource: new URL(claims.aud),
      extra: { [KEY]: verified },
    },
    parsedBody: verified.kind === "stream" ? undefined : (JSON.parse(verified.rebuiltBody()) as unknown),
  };
}

/**
 * The verified call that a tool runs in. Takes the tool's context: `verifiedCall(ctx)`.
 *
 * @throws where there is none: the server does not stand behind a guard.
 */
export function verifiedCall(context: ToolContext): VerifiedCall {
  const authInfo = context.http?.authInfo ?? context.authInfo;
  const verified = authInfo?.extra?.[KEY] as Verified | undefined;
  if (verified?.kind !== "call") throw new Error("no verified call: put the server behind `protect`");
  return verified;
}

/** What of a tool's context is looked at: of version 2 of the SDK, or of version 1. */
export interface ToolContext {
  readonly http?: { readonly authInfo?: { readonly extra?: Record<string, unknown> } | undefined } | undefined;
  readonly authInfo?: { readonly extra?: Record<string, unknown> } | undefined;
}

const KEY = "deputize";
