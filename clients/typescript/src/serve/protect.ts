/** A guard around a web-standard MCP handler: what reaches the handler is verified, and nothing else does. */

import { levelOf, type ToolCallClaims } from "../call/claims.js";
import { isAtLeast } from "../call/level.js";
import type { JsonObject } from "../call/json.js";
import { wellKnown } from "../client/metadata.js";
import type { LinkedGuard } from "../link/link.js";
import type { Examined } from "../guard/guard.js";
import { Fields, type IncomingCall } from "../guard/headers.js";
import { toolOf } from "../guard/message.js";
import { Reason } from "../guard/reason.js";
import { Refusal } from "../guard/refusal.js";
import type { Verified } from "../guard/verified.js";
import { type End, FORGOTTEN, screened } from "./answer.js";
import { bodyOf } from "./body.js";
import { Breaker } from "./breaker.js";
import { type Carriage, carried, checkPassed, idToRefuse, ownMessage, sessionIdOf } from "./carried.js";
import { certificateOfHeader } from "./certificate.js";
import { contextOf, type HandlerContext, type McpHandler } from "./context.js";
import { type Asked, Screen } from "./screen.js";
import { countedAs, type Limits, Meter, resolveLimits, unlessLate } from "./limits.js";
import { type Session, Sessions } from "./sessions.js";
import { Watch } from "./watch.js";

/** Settings of {@link protect}. */
export interface ProtectSettings {
  /** Told why a request was refused, for logs. The reason holds no credential and no argument. */
  readonly onRefusal?: (refusal: Refusal) => void;
  /** Told what goes wrong inside. By default a line on the console. */
  readonly onError?: (error: unknown) => void;
  /**
   * The server's live definitions. By default the handler is asked itself (`tools/list`); give this where the handler
   * cannot be asked.
   */
  readonly tools?: () => Promise<readonly JsonObject[]>;
  /** As `tools`, for the server's prompts; they are looked at where any are approved. */
  readonly prompts?: () => Promise<readonly JsonObject[]>;
  /** The longest message of the server; in place of what is longer comes an error. 8 MiB. */
  readonly maxResultBytes?: number;
  /**
   * Header fields that reach the handler as they came, because a proxy in front sets them. By default neither cookies
   * nor forwarding headers do.
   */
  readonly passedHeaders?: readonly string[];
  /**
   * The header in which a proxy in front says the client's certificate (RFC 9440, or percent-encoded PEM), for tokens
   * that are bound to one. The proxy must be the only way here, and take out what clients send in it. Without it the
   * certificate is that of the TLS connection, where the mount has one.
   */
  readonly clientCertificateHeader?: string;
  /** Origins of web pages that may call, besides the endpoint's own. */
  readonly allowedOrigins?: readonly string[];
  /** How much each caller may, and how long the handler may take. */
  readonly limits?: Limits;
  /** How long the server's definitions are taken as they were; 30 s. */
  readonly discoveryMs?: number;
}

/** What is known of a request besides itself. */
export interface Arrival {
  /** Its header fields as they came, where the runtime knows them better than `Headers`. */
  readonly headers?: Iterable<readonly [string, string]>;
  /** SHA-256 thumbprint (`x5t#S256`) of the certificate that the client proved, where the connection has one. */
  readonly clientCertificate?: string | undefined;
}

/** A protected handler. */
export interface Protected {
  /** Answers a request. */
  (request: Request, arrival?: Arrival): Promise<Response>;
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
  const answer = (request: Request, arrival: Arrival = {}) =>
    new URL(request.url).pathname === metadataPath
      ? Promise.resolve(metadata(request, config.resource, config.issuer))
      : protection.answer(request, arrival);
  return Object.assign(answer, {
    maxBodyBytes: config.maxBodyBytes,
    publicUrl: config.publicUrl,
    path: new URL(config.publicUrl).pathname,
    metadataPath,
  });
}

/** What of a linked guard is used. */
export type LinkedGuardLike = Pick<LinkedGuard, "guard" | "report">;

/** What was heard of a request so far. */
interface Heard {
  readonly headers: readonly (readonly [string, string])[];
  readonly fields: Fields;
  body: Uint8Array | undefined;
}

/** One request, past every check. */
interface Passage {
  readonly request: Request;
  readonly fields: Fields;
  readonly verified: Verified;
  readonly asked: Asked | undefined;
  readonly requestId: string;
  /** The session of the request, or the one that it began. */
  session: Session | undefined;
  /** Aborted when nobody waits for an answer any more. */
  readonly signal: AbortSignal;
  /** Aborts that when the handler takes too long. A client that goes away aborts it too: the handler may heed it. */
  readonly late: AbortController;
  /** Told when it is done: it is counted for its caller until then. */
  readonly leave: () => void;
  /** The handler at work on it; settled when it has answered, whether or not anybody waited for that. */
  handling: Promise<unknown>;
}

/** Where a request goes, and as what. */
type Place = Pick<Passage, "verified" | "asked" | "session" | "leave">;

class Protection {
  private readonly sessions: Sessions;
  private readonly watch: Watch;
  private readonly alsoPassed: ReadonlySet<string>;
  private readonly origins: ReadonlySet<string>;
  private readonly limits: Required<Limits>;
  private readonly meter: Meter;
  private readonly breaker = new Breaker();

  constructor(
    private readonly link: LinkedGuardLike,
    private readonly handler: McpHandler,
    private readonly settings: ProtectSettings,
  ) {
    const { passedHeaders = [], allowedOrigins = [], limits = {} } = settings;
    this.limits = resolveLimits(limits);
    this.meter = new Meter(this.limits);
    this.sessions = new Sessions(() => link.guard.uptimeMs());
    this.alsoPassed = checkPassed(passedHeaders);
    this.origins = new Set([new URL(link.guard.config.publicUrl).origin, ...allowedOrigins]);
    this.watch = new Watch(link, (request) => this.probe(request), settings, (error) => this.failed(error));
  }

  async answer(request: Request, arrival: Arrival): Promise<Response> {
    const requestId = this.link.guard.uniqueId();
    const response = await this.served(request, arrival, requestId);
    response.headers.set("x-request-id", requestId);
    return response;
  }

  private async served(request: Request, arrival: Arrival, requestId: string): Promise<Response> {
    const headers = [...(arrival.headers ?? request.headers)];
    const heard: Heard = { headers, fields: new Fields(headers), body: undefined };
    try {
      return await this.pass(await this.admitted(request, arrival, requestId, heard));
    } catch (error) {
      const refusal = error instanceof Reason ? await this.link.guard.refusal(error) : error;
      if (refusal instanceof Refusal) {
        this.settings.onRefusal?.(refusal);
        return refusal.response(idToRefuse(heard.fields, heard.body));
      }
      this.failed(error);
      // What went wrong inside stays inside.
      return Response.json({ error: "server_error", error_description: "the call could not be answered" }, { status: 500 });
    }
  }

  private async admitted(request: Request, arrival: Arrival, requestId: string, heard: Heard): Promise<Passage> {
    const { guard } = this.link;
    const { headers, fields } = heard;
    // MCP, transports, security: a page of another origin may not call, whatever name it found this under.
    if (fields.all("origin").some((origin) => !this.origins.has(origin))) throw new Reason("origin");
    const body = (heard.body = await bodyOf(request, guard.config.maxBodyBytes, this.limits.bodySeconds));
    const { clientCertificateHeader: header } = this.settings;
    const clientCertificate =
      header === undefined ? arrival.clientCertificate : await certificateOfHeader(fields, header);
    const incoming = { method: request.method, headers, body, clientCertificate };
    const isBare = request.method === "GET" || request.method === "DELETE";
    const place = isBare ? await this.listen(incoming, fields) : await this.examine(incoming, fields);
    const late = new AbortController();
    const signal = AbortSignal.any([request.signal, late.signal]);
    return { request, fields, requestId, signal, late, handling: Promise.resolve(), ...place };
  }

  /** The tools as they are now, session, and last of all the token. */
  private async examine(incoming: IncomingCall, fields: Fields): Promise<Place> {
    const { guard } = this.link;
    const examined = await guard.examine(incoming);
    const session = this.sessionOf(examined, fields);
    // Before the token is spent, and before the server has any work with it: what is over a limit loses nothing.
    this.meter.count(examined.claims.sub, countedAs(examined.message), guard.uptimeMs());
    this.breaker.check(examined.claims, guard.uptimeMs());
    const leave = this.meter.enter(examined.claims);
    let asked: Asked | undefined;
    try {
      // INVARIANT: after the token was verified. Who has none cannot make the server work, nor hold up who has one.
      await this.watch.observe();
      asked = noted(examined, session);
      const verified = await guard.admit(examined);
      takeAsked(examined, session);
      return { verified, asked, session, leave };
    } catch (error) {
      if (asked !== undefined) session?.takeRequested(asked.id);
      leave();
      throw error;
    }
  }

  /** The caller's session, where the request is of one. */
  private sessionOf({ message, claims }: Examined, fields: Fields): Session | undefined {
    const sessionId = sessionIdOf(fields, message);
    if (message.method === "initialize") {
      this.sessions.checkRoom(claims);
      return undefined;
    }
    return sessionId === undefined ? undefined : this.sessions.find(sessionId, claims);
  }

  /** `GET` listens to the server's messages in a session, `DELETE` ends it (MCP up to 2025-11-25). */
  private async listen(incoming: IncomingCall, fields: Fields): Promise<Place> {
    const verified = await this.link.guard.verifyStream(incoming);
    const sessionId = sessionIdOf(fields, undefined);
    // Without a session there is nothing to listen to: none that is bound to its caller.
    if (sessionId === undefined) throw new Reason("no_stream");
    const session = this.sessions.find(sessionId, verified.claims);
    const cursor = fields.single("last-event-id");
    let leave = (): void => undefined;
    if (incoming.method === "DELETE") {
      this.sessions.forget(session);
    } else if (cursor !== undefined && !session.knowsCursor(cursor)) {
      // INVARIANT: a cursor resumes only a stream of its own session; any other is as one that never was.
      throw new Reason("session", "another's cursor");
    } else {
      this.meter.count(verified.claims.sub, incoming.method, this.link.guard.uptimeMs());
      leave = this.meter.enter(verified.claims);
    }
    return { verified, asked: undefined, session, leave };
  }

  private async pass(passage: Passage): Promise<Response> {
    const { request, verified, asked, signal, late } = passage;
    const { claims } = verified;
    const listens = verified.kind === "stream" && request.method === "GET";
    const ends = verified.kind === "stream" && !listens;
    const onEnd = this.begun(passage);
    const { answerSeconds, streamSeconds } = this.limits;
    const timer = setTimeout(() => late.abort(new Reason("server_timeout")), answerSeconds * 1000);
    try {
      const response = await this.handled(passage);
      if (response.status === 200 && asked?.method === "initialize") this.begin(passage, response);
      const screen = new Screen(this.link.guard, claims, asked, passage.session, () => this.watch.lookAgain());
      const { maxResultBytes: maxBytes = MAX_RESULT_BYTES } = this.settings;
      const tell = (error: string) => void this.tell(passage, error);
      const streamMs = streamSeconds * 1000;
      const answer = await screened(response, { screen, listens, ends, maxBytes, streamMs, late: late.signal, tell, onEnd });
      if (passage.session !== undefined) answer.headers.set("mcp-session-id", passage.session.id);
      this.breaker.answered(claims);
      // RFC 9449 §8.2.
      answer.headers.set("dpop-nonce", verified.nextNonce);
      return answer;
    } catch (error) {
      this.breaker.failed(claims, error, this.link.guard.uptimeMs());
      // Where the client went away, what was asked may run on.
      onEnd({ isAnswered: false, isLeft: signal.aborted, bytes: 0 });
      const { session } = passage;
      if (session !== undefined && error instanceof Reason && error.detail === FORGOTTEN) this.sessions.forget(session);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The handler's answer, as long as somebody waits for it. */
  private handled(passage: Passage): Promise<Response> {
    const { late, verified } = passage;
    const { signal } = late;
    const handling = handle(this.handler, carried(passage, this.alsoPassed), contextOf(verified));
    // What comes too late is for nobody.
    const drop = (response: Response) => (signal.aborted ? response.body?.cancel() : undefined);
    passage.handling = handling.then(drop).catch(() => undefined);
    return unlessLate(handling, signal);
  }

  /** The server began a session with its answer to `initialize`. */
  private begin(passage: Passage, response: Response): void {
    const id = response.headers.get("mcp-session-id");
    const { asked } = passage;
    if (id === null || asked === undefined) return;
    passage.session = this.sessions.begin(id, passage.verified.claims);
    passage.session.underWay += 1;
    passage.session.noteRequested(asked.id, asked.method, false);
  }

  /** Counts what is under way. What it gives back is to be told the end, of which it heeds the first word. */
  private begun(passage: Passage): (end: End) => void {
    const { verified, asked, leave } = passage;
    if (passage.session !== undefined) passage.session.underWay += 1;
    let isOver = false;
    return ({ isAnswered, isLeft, bytes }) => {
      if (isOver) return;
      isOver = true;
      // INVARIANT: what was given up and still runs is counted still. Else the work of one caller has no bound.
      void passage.handling.finally(leave);
      const { session } = passage;
      if (session !== undefined) session.underWay -= 1;
      // A call that nobody waits for may still run: its response comes on another stream.
      if (session !== undefined && asked !== undefined && !isAnswered && !isLeft) {
        session.takeRequested(asked.id);
        if (asked.method === "initialize") this.sessions.forget(session);
      }
      if (verified.kind !== "call") return;
      const { txn, jti } = verified.claims;
      const { action, name: tool } = verified;
      const about = action === "tools/call" ? { tool } : { tool, action };
      this.link.report({ kind: isAnswered ? "executed" : "failed", txn, jti, ...about, bytes });
    };
  }

  /** Tells the server that it does not get what it asked for. */
  private async tell(passage: Passage & Carriage, error: string): Promise<void> {
    if (passage.session === undefined) return;
    try {
      const context = { ...contextOf(passage.verified), parsedBody: JSON.parse(error) as unknown };
      const response = await handle(this.handler, ownMessage(passage, error), context);
      await response.body?.cancel();
    } catch (cause) {
      this.failed(cause);
    }
  }

  /** The handler, asked in nobody's name. */
  private async probe(request: Request): Promise<Response> {
    const parsedBody = request.method === "POST" ? ((await request.clone().json()) as unknown) : undefined;
    return handle(this.handler, request, { parsedBody } as HandlerContext);
  }

  private failed(error: unknown): void {
    const { onError } = this.settings;
    if (onError !== undefined) onError(error);
    else console.error("deputize: a request failed inside", { problem: error instanceof Error ? error.message : "?" });
  }
}

/** What is asked, noted in its session. */
function noted({ message, claims }: Examined, session: Session | undefined): Asked | undefined {
  const { id, method, call, isResponse } = message;
  if (id === undefined || isResponse) return undefined;
  session?.noteRequested(id, method, call !== undefined && isFixed(claims));
  return { id, method, tool: toolOf(call) };
}

/** A response goes only to what the server asked in this session, once: one that may go, not one refused before. */
function takeAsked({ message: { id, isResponse } }: Examined, session: Session | undefined): void {
  if (id === undefined || !isResponse) return;
  if (session === undefined) throw new Reason("no_session");
  session.takeAsked(id);
}

/** Whether a call's token fixes what it does. */
function isFixed({ detail }: ToolCallClaims): boolean {
  return isAtLeast(levelOf(detail), "L2");
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

const MAX_RESULT_BYTES = 8 * 1024 * 1024;
