/** An MCP server with sessions (2025-11-25) that says what a test wants, and an agent that speaks to it past a guard. */

import assert from "node:assert/strict";
import { parseObject } from "../../src/call/json.js";
import type { Signer } from "../../src/client/signer.js";
import type { GuardEvent, LinkedGuardLike, Protected } from "../../src/server.js";
import { protect, type ProtectSettings } from "../../src/server.js";
import { EventReader } from "../../src/serve/events.js";
import { DEFINITIONS, Fixture, l0, l0OfAll, type Loose, material, PROMPTS } from "../guard/fixture.js";

export const VERSION = "2025-11-25";

/** An answer in the making: events as they are said. */
export class Stream {
  private controller!: ReadableStreamDefaultController<Uint8Array>;
  /** Whether the client went away. */
  isGone = false;
  readonly body: ReadableStream<Uint8Array>;

  constructor(readonly message: Loose | undefined) {
    this.body = new ReadableStream({
      start: (controller) => void (this.controller = controller),
      cancel: () => void (this.isGone = true),
    });
  }

  say(message: unknown, cursor?: string): void {
    const text = typeof message === "string" ? message : JSON.stringify(message);
    this.controller.enqueue(Buffer.from(`${cursor === undefined ? "" : `id: ${cursor}\n`}data: ${text}\n\n`));
  }

  answer(result: unknown, cursor?: string): void {
    this.say({ jsonrpc: "2.0", id: this.message?.["id"], result }, cursor);
  }

  end(): void {
    this.controller.close();
  }
}

/** An answer that is read as it comes. */
export class Reading {
  private readonly reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  private readonly parser = new EventReader(1_000_000);
  private readonly events: unknown[] = [];

  constructor(readonly response: Response) {
    this.reader = response.body?.getReader();
  }

  get status(): number {
    return this.response.status;
  }

  /** The next message of a stream; nothing at its end. */
  async event(): Promise<Loose | undefined> {
    while (this.events.length === 0) {
      const { done, value } = (await this.reader?.read()) ?? { done: true, value: undefined };
      if (done || value === undefined) return undefined;
      for (const { data } of this.parser.push(value)) this.events.push(data === "" ? {} : JSON.parse(data));
    }
    return this.events.shift() as Loose;
  }

  /** The next piece of a stream, as it stands. */
  async piece(): Promise<string> {
    const { value } = (await this.reader?.read()) ?? {};
    return Buffer.from(value ?? []).toString();
  }

  /** A whole answer of one message. */
  async json(): Promise<Loose> {
    let text = "";
    for (;;) {
      const { done, value } = (await this.reader?.read()) ?? { done: true, value: undefined };
      if (done || value === undefined) return JSON.parse(text) as Loose;
      text += Buffer.from(value).toString();
    }
  }

  /** The client goes away. */
  leave(): Promise<void> {
    return this.reader?.cancel() ?? Promise.resolve();
  }
}

/** What a request says otherwise than an honest agent's. */
export interface Otherwise {
  readonly method?: string;
  readonly detail?: Loose;
  readonly claims?: Loose;
  readonly key?: Signer;
  readonly token?: string;
  readonly headers?: Record<string, string>;
  readonly without?: readonly string[];
  readonly certificate?: string;
  readonly path?: string;
}

/** The server behind its middleware, and requests to it. */
export class SessionWorld {
  live: Loose[] = [...DEFINITIONS];
  prompts: Loose[] = [...PROMPTS];
  /** What is granted where nothing else is said. */
  looking: Loose = l0();
  /** Every POST but the guard's own looks. */
  readonly received: { headers: Headers; message: Loose; url: string }[] = [];
  /** Every GET and DELETE. */
  readonly bare: Request[] = [];
  /** Open GET streams. */
  readonly streams: Stream[] = [];
  sessionIds = Array.from({ length: 200 }, (_, at) => `s${at + 1}`);
  /** Serves calls as a stream; without it they are answered in JSON. */
  serve: ((stream: Stream) => void | Promise<void>) | undefined;
  /** Serves lists as a stream. */
  serveLists: ((stream: Stream) => void | Promise<void>) | undefined;
  /** Results of methods that a test wants otherwise, or whole answers as text. */
  readonly answers = new Map<string, unknown>();
  /** Answers calls, whatever else is said. */
  whole: (() => Response) | undefined;
  /** Answers calls when it likes, if ever. */
  hangs: ((request: Request) => Promise<Response>) | undefined;
  /** The status of whole answers, and of streams to listen to. */
  status = 200;
  /** The status of what is no answer. */
  noted = 202;
  readonly errors: unknown[] = [];
  readonly events: GuardEvent[] = [];

  private constructor(
    readonly f: Fixture,
    private readonly answer: Protected,
  ) {}

  static async create(settings: ProtectSettings = {}): Promise<SessionWorld> {
    const f = await Fixture.create();
    let world: SessionWorld | undefined;
    const link: LinkedGuardLike = { guard: f.guard, report: (event) => void world?.events.push(event) };
    const handler = (request: Request, context: { readonly authInfo: unknown }) =>
      world?.handle(request, context.authInfo === undefined) ?? assert.fail();
    const onError = (error: unknown) => void world?.errors.push(error);
    world = new SessionWorld(f, protect(link, handler, { onError, ...settings }));
    return world;
  }

  /** From now on prompts and resources are approved as well. */
  async approveMaterial(): Promise<void> {
    this.f.guard.install(await this.f.snapshot({ version: 2, ...(await material()) }));
    await this.f.guard.observePrompts(this.prompts.map((each) => parseObject(JSON.stringify(each))));
    this.looking = await l0OfAll();
  }

  /** Sends as an honest agent does, but for what is said otherwise. */
  async send(body: unknown, otherwise: Otherwise = {}): Promise<Reading> {
    const { method = "POST", detail = this.looking, claims = {}, key, headers = {}, without = [], certificate, path = "/mcp" } = otherwise;
    const token = otherwise.token ?? (await this.f.sign({ ...this.f.claims(detail), ...claims }));
    const fields = new Headers({
      authorization: `DPoP ${token}`,
      dpop: await this.f.proof(token, { htm: method }, key),
      ...(method === "POST" ? { "content-type": "application/json" } : {}),
      ...headers,
    });
    for (const name of without) fields.delete(name);
    const text = typeof body === "string" ? body : JSON.stringify(body);
    const init = { method, headers: fields, ...(method === "POST" ? { body: text } : {}) };
    const request = new Request(`https://pay.example.com${path}`, init);
    return new Reading(await this.answer(request, { clientCertificate: certificate }));
  }

  /** A session of alice's. */
  async begin(otherwise: Otherwise = {}): Promise<string> {
    const params = { protocolVersion: VERSION, capabilities: { sampling: {}, roots: {} } };
    const begun = await this.send({ jsonrpc: "2.0", id: "i", method: "initialize", params }, otherwise);
    assert.equal(begun.status, 200);
    return begun.response.headers.get("mcp-session-id") ?? assert.fail("no session");
  }

  /** Sends, and nothing of it reaches the server. The body of the refusal. */
  async refused(status: number, body: unknown, otherwise: Otherwise = {}): Promise<Loose> {
    const before = [this.received.length, this.bare.length];
    const reading = await this.send(body, otherwise);
    const said = await reading.json();
    assert.equal(reading.status, status, JSON.stringify(said));
    assert.deepEqual([this.received.length, this.bare.length], before);
    return { ...said, headers: reading.response.headers };
  }

  private async handle(request: Request, isLook: boolean): Promise<Response> {
    if (request.method !== "POST") {
      if (!isLook) this.bare.push(request);
      if (request.method === "DELETE") return new Response(null, { status: 204 });
      const stream = new Stream(undefined);
      this.streams.push(stream);
      return new Response(stream.body, { status: this.status, headers: { "content-type": "text/event-stream" } });
    }
    const message = (await request.clone().json()) as Loose;
    const lists = message["method"] === "prompts/list" ? { prompts: this.prompts } : { tools: this.live };
    if (isLook) return Response.json({ jsonrpc: "2.0", id: message["id"], result: lists });
    this.received.push({ headers: request.headers, message, url: request.url });
    if (this.hangs !== undefined && message["method"] === "tools/call") {
      return this.hangs(request);
    }
    return this.post(message);
  }

  private post(message: Loose): Response {
    const method = message["method"] as string | undefined;
    if (method === undefined || method.startsWith("notifications/")) return new Response(null, { status: this.noted });
    const one = (result: unknown, headers: Record<string, string> = {}) =>
      Response.json({ jsonrpc: "2.0", id: message["id"], result }, { headers });
    const answer = this.answers.get(method);
    const { status } = this;
    if (typeof answer === "string") return new Response(answer, { status, headers: { "content-type": "application/json" } });
    if (method === "initialize") {
      const result = answer ?? { protocolVersion: VERSION, capabilities: { tools: {}, logging: {} } };
      const id = this.sessionIds.shift();
      return one(result, id === undefined ? {} : { "mcp-session-id": id });
    }
    if (answer !== undefined) return one(answer);
    if (method === "tools/call" && this.whole !== undefined) return this.whole();
    const serve = method === "tools/list" ? this.serveLists : this.serve;
    if (serve === undefined) return one(method === "tools/list" ? { tools: this.live } : { content: [] });
    const stream = new Stream(message);
    void (async () => serve(stream))();
    return new Response(stream.body, { headers: { "content-type": "text/event-stream" } });
  }
}

/** Waits for a condition, not for a time. */
export async function until(condition: () => boolean): Promise<void> {
  const end = performance.now() + 10_000;
  while (!condition()) {
    assert.ok(performance.now() < end, "it never came to that");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
