/** A `fetch` for MCP clients: each tool call carries a token for itself, everything else one that only looks. */

import { isObject, type Json, type JsonObject, objectAt, parseValue } from "../call/json.js";
import { withoutQuery } from "../call/dpop.js";
import type { DeputizeClient } from "./client.js";
import { type ApprovalPendingError, DeputizeError } from "./errors.js";
import { LiveTools } from "./live-tools.js";
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
 * is answered with one retry. What the server lists is digested, and a tool that is not what was approved is not called.
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
    let detail = this.detailOf(message);
    let token = await this.token(detail);
    const tried = new Set<string>();
    for (;;) {
      const response = await this.send(token, body);
      const problem = challengeOf(response);
      // RFC 9449 §9: once more, with the server's nonce. A challenge used nothing up.
      const wantsNonce = problem === "use_dpop_nonce" && response.headers.has("dpop-nonce");
      // A token that may serve again may have served its time: revoked, or counted anew after the server's restart.
      const isStale = problem === "invalid_token" && !token.bindsOneCall;
      const isLoose = problem === "insufficient_scope" && detail.level === "L1" && message !== undefined;
      const retried = problem !== undefined && tried.has(problem);
      if (retried || !(wantsNonce || isStale || isLoose)) {
        return message?.["method"] === "tools/list" && response.ok ? this.server.tools.watch(response) : response;
      }
      tried.add(problem ?? "");
      await response.body?.cancel();
      if (isStale) this.settings.client.forget(token);
      if (isLoose) detail = callDetail(message);
      if (isStale || isLoose) token = await this.token(detail);
    }
  }

  private detailOf(message: JsonObject | undefined): Detail {
    if (message?.["method"] !== "tools/call") return { level: "L0" };
    const detail = callDetail(message);
    return this.settings.level?.(detail.tool) === "L1" ? { level: "L1", tool: detail.tool } : detail;
  }

  private async token(detail: Detail): Promise<ToolToken> {
    const { client, subjectToken, subjectTokenType, onApproval, claimed } = this.settings;
    const { signal } = this.request;
    const request: ExchangeRequest = {
      resource: this.resource,
      subjectToken: typeof subjectToken === "string" ? subjectToken : await subjectToken(),
      subjectTokenType,
      detail,
      liveToolDigest: detail.level === "L0" ? undefined : this.server.tools.digestOf(detail.tool),
      ...(claimed === undefined ? {} : { claimed }),
    };
    if (onApproval === undefined) return client.exchange(request, signal);
    return client.exchangeAndWait(request, { onPending: onApproval, signal });
  }

  private async send(token: ToolToken, body: string | undefined): Promise<Response> {
    const { method, url, signal } = this.request;
    const { nonce } = this.server;
    const headers = new Headers(this.request.headers);
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
  const { name, inputResponses, requestState } = params;
  if (typeof name !== "string") throw new DeputizeError("tools/call without a name", "name the tool that is called");
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

const MAX_SERVERS = 1_000;
/** The message and its `params` stand around the arguments. */
const MAX_BODY_DEPTH = 34;
