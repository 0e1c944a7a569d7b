/** A guard around a web-standard MCP handler: what reaches the handler is verified, and nothing else does. */

import type { ToolCallClaims } from "../call/claims.js";
import type { JsonObject } from "../call/json.js";
import { wellKnown } from "../client/metadata.js";
import { readBounded } from "../client/transport.js";
import type { LinkedGuard } from "../link/link.js";
import type { DriftedTool } from "../guard/guard.js";
import { Reason } from "../guard/reason.js";
import { Refusal } from "../guard/refusal.js";
import type { Verified, VerifiedCall } from "../guard/verified.js";
import { contextOf, type HandlerContext, type McpHandler } from "./context.js";
import { discoverTools } from "./discovery.js";
import { filterListing } from "./listing.js";
import { meter } from "./meter.js";
import { Sessions } from "./sessions.js";

/** Settings of {@link protect}. */
export interface ProtectSettings {
  /** Told why a request was refused, for logs. The reason holds no credential and no argument. */
  readonly onRefusal?: (refusal: Refusal) => void;
  /** Told what goes wrong inside. By default a line on the console. */
  readonly onError?: (error: unknown) => void;
  /**
   * The server's live definitions. By default the handler is asked itself (`tools/list`); give this where the handler
   * answers only within a session.
   */
  readonly tools?: () => Promise<readonly JsonObject[]>;
  /** The longest result of a call; what is longer breaks off. 16 MiB. */
  readonly maxResultBytes?: number;
  /** How long the server's definitions are taken as they were; 30 s. */
  readonly discoveryMs?: number;
}

/** A protected handler. */
export interface Protected {
  /** Answers a request. `headers` are its fields as they came, where the runtime knows them better than `Headers`. */
  (request: Request, headers?: Iterable<readonly [string, string]>): Promise<Response>;
  /** The longest body that is read. */
  readonly maxBodyBytes: number;
  /** Where clients reach the MCP endpoint. */
  readonly publicUrl: string;
  /** Path of the MCP endpoint. */
  readonly path: string;
  /** Path of the protected resource metadata (RFC 9728 §3.1). */
  readonly metadataPath: string;
}

/**
 * Puts a guard around an MCP handler, for example that of `createMcpHandler`. The protected handler answers the MCP
 * endpoint and the protected resource metadata, wherever it is mounted.
 */
export function protect(link: LinkedGuardLike, handler: McpHandler, settings: ProtectSettings = {}): Protected {
  const protection = new Protection(link, handler, settings);
  const { config } = link.guard;
  const metadataPath = new URL(config.resourceMetadata).pathname;
  const answer = (request: Request, headers?: Iterable<readonly [string, string]>) =>
    new URL(request.url).pathname === metadataPath
      ? Promise.resolve(metadata(request, config.resource, config.issuer))
      : protection.answer(request, headers ?? request.headers);
  return Object.assign(answer, {
    maxBodyBytes: config.maxBodyBytes,
    publicUrl: config.publicUrl,
    path: new URL(config.publicUrl).pathname,
    metadataPath,
  });
}

/** What of a linked guard is used. */
export type LinkedGuardLike = Pick<LinkedGuard, "guard" | "report">;

class Protection {
  private readonly sessions = new Sessions();
  private observed: Promise<void> | undefined;
  private observedAtMs = -Infinity;
  private isDiscovered = false;
  /** The changes that were reported, by tool. As many as a snapshot has tools, at most. */
  private readonly drifts = new Map<string, string>();

  constructor(
    private readonly link: LinkedGuardLike,
    private readonly handler: McpHandler,
    private readonly settings: ProtectSettings,
  ) {}

  async answer(request: Request, headers: Iterable<readonly [string, string]>): Promise<Response> {
    try {
      await this.observe();
      return await this.verified(request, [...headers]);
    } catch (error) {
      if (error instanceof Refusal) {
        this.settings.onRefusal?.(error);
        return error.response();
      }
      this.failed(error);
      // What went wrong inside stays inside.
      return Response.json({ error: "server_error", error_description: "the call could not be answered" }, { status: 500 });
    }
  }

  private async verified(request: Request, headers: (readonly [string, string])[]): Promise<Response> {
    const { guard } = this.link;
    const body = request.method === "POST" ? await readBounded(request, guard.config.maxBodyBytes) : new Uint8Array();
    if (body === undefined) throw await guard.refusal(new Reason("too_large"));
    const session = request.headers.get("mcp-session-id");
    const isSessionOf =
      session === null ? undefined : (claims: ToolCallClaims) => this.sessions.isOf(session, claims);
    const verified = await guard.verify({ method: request.method, headers, body, isSessionOf });
    const response = await this.call(replayed(request, verified), verified);
    return this.finished(response, verified);
  }

  private async call(request: Request, verified: Verified): Promise<Response> {
    try {
      const response = await handle(this.handler, request, contextOf(verified));
      if (verified.kind === "listing") return response;
      const { maxResultBytes = 16 * 1024 * 1024 } = this.settings;
      return meter(response, maxResultBytes, (end) => this.reportCall(verified, response.ok && end.isWhole, end.bytes));
    } catch (error) {
      if (verified.kind === "call") this.reportCall(verified, false, 0);
      throw error;
    }
  }

  private async finished(response: Response, verified: Verified): Promise<Response> {
    const isList = verified.kind === "listing" && verified.method === "tools/list";
    const answer = isList ? await filterListing(response, this.link.guard) : response;
    const opened = answer.headers.get("mcp-session-id");
    if (opened !== null && verified.kind === "listing" && verified.method === "initialize") {
      this.sessions.open(opened, verified.claims);
    }
    const headers = new Headers(answer.headers);
    // RFC 9449 §8.2.
    headers.set("dpop-nonce", verified.nextNonce);
    const { status, statusText } = answer;
    return new Response(answer.body, { status, statusText, headers });
  }

  /** Asks the server for its definitions, where they were not asked for of late. One asks for all. */
  private async observe(): Promise<void> {
    const { discoveryMs = DISCOVERY_MS } = this.settings;
    if (performance.now() - this.observedAtMs < discoveryMs) return;
    this.observed ??= this.discover().finally(() => (this.observed = undefined));
    await this.observed;
  }

  private async discover(): Promise<void> {
    const { guard } = this.link;
    try {
      const tools = await soon(this.definitions());
      const { approved, drifted, unknown } = await guard.observeTools(tools);
      if (!this.isDiscovered) {
        const detail = { approved: approved.length, drifted: drifted.length, unknown: unknown.length };
        this.link.report({ kind: "discovered", detail });
      }
      this.isDiscovered = true;
      this.reportDrift(drifted);
      this.observedAtMs = performance.now();
    } catch (error) {
      // The guard goes on with what it saw; if it saw nothing, it stops calls.
      this.failed(error);
      const { discoveryMs = DISCOVERY_MS } = this.settings;
      this.observedAtMs = performance.now() - discoveryMs + DISCOVERY_RETRY_MS;
    }
  }

  /** The broker stops issuing for a tool that drifted. It is told once of each change. */
  private reportDrift(drifted: readonly DriftedTool[]): void {
    for (const { name: tool, approved, live } of drifted) {
      const change = `${approved} ${live}`;
      if (this.drifts.get(tool) === change) continue;
      this.drifts.set(tool, change);
      this.link.report({ kind: "drifted", tool, detail: { approved, ...(live === undefined ? {} : { live }) } });
    }
  }

  private async definitions(): Promise<readonly JsonObject[]> {
    const { tools } = this.settings;
    if (tools !== undefined) return tools();
    return discoverTools((request) => this.probe(request), this.link.guard.config.publicUrl);
  }

  /** The handler, asked in nobody's name. */
  private async probe(request: Request): Promise<Response> {
    const context = { parsedBody: await request.clone().json() } as Omit<HandlerContext, "authInfo">;
    return handle(this.handler, request, context as HandlerContext);
  }

  private reportCall(verified: VerifiedCall, ran: boolean, bytes: number): void {
    const { txn, jti } = verified.claims;
    this.link.report({ kind: ran ? "executed" : "failed", txn, jti, tool: verified.tool, bytes });
  }

  private failed(error: unknown): void {
    const { onError } = this.settings;
    if (onError !== undefined) onError(error);
    else console.error("deputize: a request failed inside", { problem: error instanceof Error ? error.message : "?" });
  }
}

/** The request as the handler may see it: the verified body, no credential, and nothing said in the guard's name. */
function replayed(request: Request, verified: Verified): Request {
  const headers = new Headers(request.headers);
  for (const name of [...headers.keys()]) if (name.startsWith("deputize-")) headers.delete(name);
  if (verified.kind === "call") headers.set("deputize-call", verified.token);
  for (const name of ["authorization", "dpop", "content-length", "content-encoding", "transfer-encoding"]) {
    headers.delete(name);
  }
  headers.set("content-type", "application/json");
  const { url, signal } = request;
  return new Request(url, { method: "POST", headers, body: verified.rebuiltBody(), signal });
}

async function handle(handler: McpHandler, request: Request, context: HandlerContext): Promise<Response> {
  return typeof handler === "function" ? handler(request, context) : handler.fetch(request, context);
}

/** RFC 9728 §3.2: where a client without a token learns whom to ask for one. */
function metadata(request: Request, resource: string, issuer: string): Response {
  if (request.method !== "GET" && request.method !== "HEAD") {
    return new Response(null, { status: 405, headers: { allow: "GET, HEAD" } });
  }
  return Response.json({
    resource,
    authorization_servers: [issuer],
    dpop_bound_access_tokens_required: true,
    dpop_signing_alg_values_supported: ["ES256", "EdDSA"],
    authorization_details_types_supported: ["mcp_tool_call"],
  });
}

/** URL of a resource's metadata document (RFC 9728 §3.1). */
export function metadataUrl(resource: string): string {
  return wellKnown(resource, "oauth-protected-resource");
}

/** A handler that does not answer holds nobody up for long. */
async function soon<T>(promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the server does not list its tools in time")), DISCOVERY_TIMEOUT_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const DISCOVERY_MS = 30_000;
const DISCOVERY_RETRY_MS = 1_000;
const DISCOVERY_TIMEOUT_MS = 5_000;
