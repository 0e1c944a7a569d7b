/** What the server says, and what of it reaches the client. */

import type { ToolCallClaims } from "../call/claims.js";
import { isObject, type Json, type JsonObject, objectAt } from "../call/json.js";
import type { Guard } from "../guard/guard.js";
import { LISTS } from "../guard/known.js";
import { idOf, LISTEN, type MessageId } from "../guard/message.js";
import { Reason } from "../guard/reason.js";
import { legible, legibleMembers } from "./legible.js";
import type { Session } from "./sessions.js";

/** A request of the client. */
export interface Asked {
  readonly id: MessageId;
  readonly method: string;
  /** The tool that it calls. */
  readonly tool?: string | undefined;
}

/**
 * What becomes of a message. `on`: it goes on to the client. `last`: it goes on, and is the response that was waited for.
 * `held`: it does not reach the client. `refused`: neither, and the server gets this error instead.
 */
export interface Judged {
  readonly verdict: "on" | "last" | "held" | "refused";
  readonly text: string;
}

/** Stands where the server's messages for one request, or on one stream, come out. */
export class Screen {
  constructor(
    readonly guard: Guard,
    readonly claims: ToolCallClaims,
    /** The request that is answered here; none on a stream that the client listens to. */
    readonly asked: Asked | undefined,
    /** The session, in versions of MCP that have them. */
    public session: Session | undefined,
    /** Called where the server's tools are not what they were. */
    private readonly lookAgain: () => void,
  ) {}

  /** Whether what is asked is to hear of changes: a stream that owes no response. */
  get subscribes(): boolean {
    return this.asked?.method === LISTEN;
  }

  /** Why nothing more may be heard, where what the token stood for was revoked, or nothing can be said of that. */
  revoked(): Reason | undefined {
    return this.guard.revoked(this.claims, this.asked?.tool);
  }

  /** What ends a subscription (MCP 2026-07-28, subscriptions, graceful closure). */
  farewell(): string {
    const id = this.asked?.id;
    return JSON.stringify({ jsonrpc: "2.0", id, result: { resultType: "complete", _meta: { [SUBSCRIPTION_ID]: id } } });
  }

  /** Judges one message of the server. Throws a {@link Reason} where it cannot go on, and nothing can in its place. */
  async judge(text: string): Promise<Judged> {
    const said = read(text);
    const { params } = said;
    const message = params === undefined ? said : { ...said, params: legible(params) };
    const { method } = message;
    const id = idOf(message);
    if (typeof method === "string" && id !== undefined) return this.request(message, method, id);
    if (typeof method === "string" && message["id"] === undefined) return this.notification(message, method);
    if (method === undefined && id !== undefined) return this.response(message, id);
    throw new Reason("server_error", "what is no message");
  }

  /** The server's error, under the id of the request; nothing where it is none. */
  errorOf(text: string): string | undefined {
    try {
      const error = objectAt(read(text), "error");
      return this.asked === undefined || error === undefined
        ? undefined
        : JSON.stringify({ jsonrpc: "2.0", id: this.asked.id, error: legible(error) });
    } catch {
      return undefined;
    }
  }

  /** The server asks the client for something. Never for its model: that is refused on every stream. */
  private request(message: JsonObject, method: string, id: MessageId): Judged {
    if (method === SAMPLING) return refused(id, REFUSED_BY_GUARD, "sampling is refused by the guard");
    // Since 2026-07-28 servers send no requests at all.
    if (this.session === undefined || !PASSED_REQUESTS.includes(method)) {
      return refused(id, METHOD_NOT_FOUND, "method not found");
    }
    if (!this.session.noteAsked(id)) {
      const why = "the guard lets nothing be asked while a call runs whose token fixes it";
      return refused(id, REFUSED_BY_GUARD, why);
    }
    return { verdict: "on", text: JSON.stringify(message) };
  }

  private notification(message: JsonObject, method: string): Judged {
    if (LISTS_CHANGED.includes(method)) this.lookAgain();
    // Nobody subscribes to resources through a guard: what is said of them was not asked for.
    const isSaid = method.startsWith("notifications/") && method !== RESOURCE_UPDATED;
    const isHeard = this.subscribes ? HEARD.includes(method) : isSaid;
    return { verdict: isHeard ? "on" : "held", text: JSON.stringify(message) };
  }

  private async response(message: JsonObject, id: MessageId): Promise<Judged> {
    const inSession = this.session?.takeRequested(id);
    const { asked } = this;
    // A resumed stream brings the response to an earlier request of the session; any other only its own.
    const method = asked === undefined ? inSession : asked.id === id ? asked.method : undefined;
    if (method === undefined) throw new Reason("server_error", "the response to another request, or to none");
    const { result, error } = message;
    if ((result === undefined) === (error === undefined) || (result !== undefined && !isObject(result))) {
      throw new Reason("server_error", "neither a result nor an error");
    }
    const reduced = isObject(result)
      ? { ...message, result: await this.plain(method, result) }
      : { ...message, error: legible(error ?? null) };
    return { verdict: "last", text: JSON.stringify(reduced) };
  }

  /** A result as the caller may read it. */
  private async plain(method: string, result: JsonObject): Promise<JsonObject> {
    const reduced = await this.reduced(method, result);
    const { tools, requestState, resultType } = reduced;
    return {
      ...legibleMembers(reduced),
      // Definitions are what was approved, to the letter.
      ...(method === "tools/list" && tools !== undefined ? { tools } : {}),
      // MCP 2026-07-28: opaque, and echoed in a retry.
      ...(resultType === "input_required" && typeof requestState === "string" ? { requestState } : {}),
    };
  }

  /** A result with nothing in it but what the caller may have. */
  private async reduced(method: string, result: JsonObject): Promise<JsonObject> {
    if (result["resultType"] === "input_required" && samples(result["inputRequests"])) {
      throw new Reason("server_samples");
    }
    if (method === "initialize") return this.trimmed(result, this.session !== undefined);
    if (method === "server/discover") return this.trimmed(result, true);
    const member = LISTS.get(method);
    if (member === undefined) return result;
    const listed = result[member];
    if (!Array.isArray(listed)) throw new Reason("server_error", "a list without its list");
    const { definitions, drifted } = await this.guard.visible(method, this.claims, listed as Json[]);
    if (drifted) this.lookAgain();
    return { ...result, [member]: definitions };
  }

  /**
   * What is not let through is not offered: prompts and resources where none are approved, subscriptions to resources,
   * completion, tasks; and no news where nobody could hear them.
   */
  private trimmed(result: JsonObject, hasStreams: boolean): JsonObject {
    const capabilities = objectAt(result, "capabilities");
    if (capabilities === undefined) return result;
    const { installed } = this.guard;
    const offered = ["tools", "logging"];
    if ((installed?.prompts.size ?? 0) > 0) offered.push("prompts");
    if ([...(installed?.resources.values() ?? [])].some(({ enabled }) => enabled)) offered.push("resources");
    const kept: Record<string, Json> = {};
    for (const name of offered) {
      const capability = capabilities[name];
      if (capability === undefined) continue;
      const isWithheld = (member: string) =>
        (name === "resources" && member === "subscribe") || (member === "listChanged" && !hasStreams);
      const isLeft = ([member]: [string, Json]) => !isWithheld(member);
      kept[name] = isObject(capability) ? Object.fromEntries(Object.entries(capability).filter(isLeft)) : capability;
    }
    return { ...result, capabilities: kept };
  }
}

/** A JSON-RPC error (JSON-RPC 2.0 §5.1). */
export function rpcError(id: MessageId, code: number, message: string): string {
  return JSON.stringify({ jsonrpc: "2.0", id, error: { code, message } });
}

function refused(id: MessageId, code: number, message: string): Judged {
  return { verdict: "refused", text: rpcError(id, code, message) };
}

function samples(inputs: Json | undefined): boolean {
  return typeof inputs === "object" && inputs !== null
    && Object.values(inputs).some((input: Json) => isObject(input) && input["method"] === SAMPLING);
}

/** What is let through is what is read here: a member that stands twice is gone, whichever the server meant. */
function read(text: string): JsonObject {
  let message: Json;
  try {
    message = JSON.parse(text) as Json;
  } catch {
    throw new Reason("server_error", "what is no JSON");
  }
  if (!isObject(message) || message["jsonrpc"] !== "2.0") throw new Reason("server_error", "what is no JSON-RPC 2.0");
  return message;
}

/** JSON-RPC 2.0 §5.1. */
export const INTERNAL_ERROR = -32603;
const METHOD_NOT_FOUND = -32601;
/** Outside of what JSON-RPC reserves: the guard refused something that the server wanted. */
export const REFUSED_BY_GUARD = 1;
/** The request that would borrow the client's model. */
const SAMPLING = "sampling/createMessage";
/** What a server may ask of a client, in a session. */
const PASSED_REQUESTS: readonly string[] = ["ping", "elicitation/create", "roots/list"];
const LISTS_CHANGED: readonly string[] = ["notifications/tools/list_changed", "notifications/prompts/list_changed"];
const RESOURCE_UPDATED = "notifications/resources/updated";
/** What is heard on a stream of changes. */
const HEARD: readonly string[] = [
  "notifications/subscriptions/acknowledged", ...LISTS_CHANGED, "notifications/resources/list_changed",
];
const SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId";
