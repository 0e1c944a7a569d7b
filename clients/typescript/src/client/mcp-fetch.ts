/** A `fetch` for MCP clients: each tool call carries a token for itself, everything else one that only looks. */

import { isObject, type Json, type JsonObject, objectAt, parseValue } from "../call/json.js";
import { withoutQuery } from "../call/dpop.js";
import { type Action, ACTIONS } from "../call/offers.js";
import type { DeputizeClient } from "./client.js";
import { type ApprovalPendingError, DeputizeError, ToolChangedError } from "./errors.js";
import { type ListedPage, LiveTools } from "./live-tools.js";
import { checkUrl } from "./metadata.js";
import type { Detail, ExchangeRequest, TokenType } from "./request.js";
import type { ToolToken } from "./token.js";
import type { FetchLike } from "./transport.js";

/** Settings of {@link createMcpFetch}. */
export interface McpFetchSettings {
  /** Exchanges the tokens. */
  readonly client: DeputizeClient;
  /** The token of the user in whose name calls are made; a function where it is refreshed now and then. */
  readonly subjectToken: string | (() => string | Promise<string>);
  /** The kind of `subjectToken`; `jwt` unless said. */
  readonly subjectTokenType?: TokenType;
  /** The server's resource URI; the URL that is asked, unless said. */
  readonly resource?: string;
  /**
   * How tightly a tool's calls are bound: `L3`, one token for each call, unless said. Tokens of `L1` are cached; where
   * the server wants a tighter one, the call is repeated with a token for itself.
   */
  readonly level?: (tool: string) => "L1" | "L3";
  /**
   * Told when a person has to decide about a call; the call then waits. Without it, a call that needs a person is
   * refused with `ApprovalPendingError`.
   */
  readonly onApproval?: (pending: ApprovalPendingError) => void | Promise<void>;
  /** Recorded by the broker as claimed. */
  readonly claimed?: ExchangeRequest["claimed"];
  /** What requests to the server go through. */
  readonly fetch?: FetchLike;
}

/**
 * A `fetch` for the streamable HTTP transport of the MCP SDK (`new StreamableHTTPClientTransport(url, { fetch })`), of
 * either major version. Each `tools/call` gets a token of its own out of its body, every request a proof, and a nonce
 * is answered with one retry. What the server lists is digested, and a tool that is not what was approved is not called;
 * where it was not listed of late, the server is asked before the call.
 *
 * A call that the broker refuses rejects with its `ExchangeError`.
 */
export function createMcpFetch(settings: McpFetchSettings): FetchLike {
  if (settings.resource !== undefined) checkUrl(settings.resource, "the resource");
  const servers = new Map<string, ServerState>();
  return async (input, init = {}) => {
    const request = new Request(input, init);
    const resource = settings.resource ?? withoutQuery(request.url);
    // A token goes to no other place than the server that it is for.
    if (new URL(resource).origin !== new URL(request.url).origin) return (settings.fetch ?? fetch)(input, init);
    checkUrl(resource, "the server's URL");
    let server = servers.get(resource);
    if (server === undefined) {
      if (servers.size >= MAX_SERVERS) throw new DeputizeError("too many servers", "use one fetch for each server");
      servers.set(resource, (server = { nonce: undefined, tools: new LiveTools() }));
    }
    return new Exchange(settings, resource, server, request, init.redirect).run();
  };
}

/** What is known of a server. */
interface ServerState {
  /** The nonce that it gave last. */
  nonce: string | undefined;
  /** What it lists. */
  readonly tools: LiveTools;
}

/** What a token is asked for. */
interface AskedFor {
  readonly detail: Detail;
  /** What is done with what the detail names, where that is not `tools/call`. */
  readonly action?: Action | undefined;
}

/** A request to the server, but for its token and proof. */
interface Sent {
  readonly method: string;
  readonly headers: Headers;
  readonly body: string | undefined;
}

/** One request of the MCP client, and what it takes to have it answered. */
class Exchange {
  constructor(
    private readonly settings: McpFetchSettings,
    private readonly resource: string,
    private readonly server: ServerState,
    private readonly request: Request,
    private readonly redirect: RequestRedirect | undefined,
  ) {}

  async run(): Promise<Response> {
    const body = this.request.body === null ? undefined : await this.request.text();
    const message = body === undefined ? undefined : readMessage(body);
    if (message?.["method"] === "tools/call") await this.look(message);
    const { method, headers } = this.request;
    const response = await this.answered(this.askedFor(message), { method, headers, body }, message);
    if (message?.["method"] !== "tools/list" || !response.ok) return response;
    return this.server.tools.watch(response, this.page(message));
  }

  /**
   * Asks the server for its tools, in the same session and protocol as the call that needs to know: a tool is called as
   * it was seen, or not at all.
   */
  private async look(call: JsonObject): Promise<void> {
    const { tool } = callDetail(call);
    if (this.liveDigest(tool) !== undefined) return;
    const headers = new Headers();
    for (const name of CARRIED) {
      const value = this.request.headers.get(name);
      if (value !== null) headers.set(name, value);
    }
    if (this.request.headers.has("mcp-method")) headers.set("mcp-method", "tools/list");
    const { progressToken: _, ...meta } = objectAt(objectAt(call, "params") ?? {}, "_meta") ?? {};
    let cursor: string | undefined;
    for (let page = 0; page < MAX_PAGES; page += 1) {
      const params = { ...(cursor === undefined ? {} : { cursor }), ...(Object.keys(meta).length === 0 ? {} : { _meta: meta }) };
      const list = { jsonrpc: "2.0", id: `deputize-list-${crypto.randomUUID()}`, method: "tools/list", params };
      const response = await this.answered({ detail: { level: "L0" } }, { method: "POST", headers, body: JSON.stringify(list) });
      if (!response.ok) {
        await response.body?.cancel();
        throw new DeputizeError(
          `the server does not list its tools (status ${response.status})`,
          "check that this user and client may look at the server",
        );
      }
      const following = this.page(list);
      await (await this.server.tools.watch(response, following)).text();
      cursor = following.nextCursor;
      if (cursor === undefined) break;
    }
    if (this.liveDigest(tool) === undefined) throw new ToolChangedError(tool, undefined, undefined, undefined);
  }

  private page(list: JsonObject): ListedPage {
    const isFirst = objectAt(list, "params")?.["cursor"] === undefined;
    return { isFirst, uptimeMs: performance.now(), nextCursor: undefined };
  }

  private liveDigest(tool: string): string | undefined {
    return this.server.tools.digestOf(tool, performance.now());
  }

  /** Sends with a token; once more where the server wants its nonce, or no longer takes a token that was cached. */
  private async answered(first: AskedFor, sent: Sent, call?: JsonObject): Promise<Response> {
    let asked = first;
    let token = await this.token(asked);
    const tried = new Set<string>();
    for (;;) {
      const response = await this.send(token, sent);
      const problem = challengeOf(response);
      // RFC 9449 §9: once more, with the server's nonce. A challenge used nothing up.
      const wantsNonce = problem === "use_dpop_nonce" && response.headers.has("dpop-nonce");
      // A token that may serve again may have served its time: revoked, or counted anew after the server's restart.
      const isStale = problem === "invalid_token" && !token.bindsOneCall;
      const isLoose = problem === "insufficient_scope" && asked.detail.level === "L1" && call !== undefined;
      const retried = problem !== undefined && tried.has(problem);
      if (retried || !(wantsNonce || isStale || isLoose)) return response;
      tried.add(problem ?? "");
      await response.body?.cancel();
      if (isStale) this.settings.client.forget(token);
      if (isLoose) asked = { detail: callDetail(call) };
      if (isStale || isLoose) token = await this.token(asked);
    }
  }

  private askedFor(message: JsonObject | undefined): AskedFor {
    const action = ACTIONS.find((each) => each === message?.["method"]);
    if (message === undefined || action === undefined) return { detail: { level: "L0" } };
    const detail = callDetail(message);
    // The guard holds a prompt against its approved definition; a resource has none.
    if (action !== "tools/call") return { detail, action };
    return { detail: this.settings.level?.(detail.tool) === "L1" ? { level: "L1", tool: detail.tool } : detail };
  }

  private async token({ detail, action }: AskedFor): Promise<ToolToken> {
    const { client, subjectToken, subjectTokenType, onApproval, claimed } = this.settings;
    const { signal } = this.request;
    const request: ExchangeRequest = {
      resource: this.resource,
      subjectToken: typeof subjectToken === "string" ? subjectToken : await subjectToken(),
      subjectTokenType,
      detail,
      action,
      // Equal to no digest where it is not known: a tool that was not seen is not called.
      liveToolDigest: detail.level === "L0" || action !== undefined ? undefined : (this.liveDigest(detail.tool) ?? ""),
      ...(claimed === undefined ? {} : { claimed }),
    };
    if (onApproval === undefined) return client.exchange(request, signal);
    return client.exchangeAndWait(request, { onPending: onApproval, signal });
  }

  private async send(token: ToolToken, { method, headers: given, body }: Sent): Promise<Response> {
    const { url, signal } = this.request;
    const { nonce } = this.server;
    const headers = new Headers(given);
    headers.set("authorization", token.authorization);
    headers.set("dpop", await this.settings.client.proofFor(method, url, token.accessToken, nonce));
    const response = await (this.settings.fetch ?? fetch)(url, {
      method,
      headers,
      signal,
      // A proof is for one URL: it is not carried elsewhere.
      redirect: this.redirect === "manual" ? "manual" : "error",
      ...(body === undefined ? {} : { body }),
    });
    // RFC 9449 §8.2: any answer may bring the nonce for the next request.
    this.server.nonce = response.headers.get("dpop-nonce") ?? nonce;
    return response;
  }
}

/** What an L3 token is asked for: this call, and what steers it. */
function callDetail(message: JsonObject): Detail & { level: "L3" } {
  const params = objectAt(message, "params") ?? {};
  const { inputResponses, requestState } = params;
  const name = params[message["method"] === "resources/read" ? "uri" : "name"];
  if (typeof name !== "string") throw new DeputizeError("a call without a name", "name the tool, prompt or resource");
  return { level: "L3", tool: name, arguments: objectAt(params, "arguments") ?? {}, inputResponses, requestState };
}

/** Reads a body as strictly as the server will. */
function readMessage(body: string): JsonObject {
  let message: Json;
  try {
    message = parseValue(body, MAX_BODY_DEPTH);
  } catch (cause) {
    throw new DeputizeError(
      "the request is not strict JSON",
      "leave out numbers beyond ±(2^53-1), lone surrogates and nesting over 32 levels",
      { cause },
    );
  }
  // One token is for one call, so several in a batch have no token.
  if (!isObject(message)) throw new DeputizeError("the request is a batch", "send one message in each request");
  return message;
}

/** `error` of the challenge (RFC 6750 §3, RFC 9449 §7.1). */
function challengeOf(response: Response): string | undefined {
  if (response.status !== 401 && response.status !== 403) return undefined;
  return /\berror="([a-z_]+)"/.exec(response.headers.get("www-authenticate") ?? "")?.[1];
}

const CARRIED = ["accept", "content-type", "user-agent", "mcp-session-id", "mcp-protocol-version"];
const MAX_SERVERS = 1_000;
const MAX_PAGES = 20;
/** The message and its `params` stand around the arguments. */
const MAX_BODY_DEPTH = 34;
