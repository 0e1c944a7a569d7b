/** The middleware itself: discovery, sessions, results, and what goes wrong inside. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, test } from "node:test";
import express from "express";
import { deputize } from "../../src/express.js";
import { type McpHandler, protect, verifiedCall } from "../../src/server.js";
import { Signer } from "../../src/client/signer.js";
import { call, DEFINITIONS, digestOf, Draft, Fixture, l0, l1, type Loose } from "../guard/fixture.js";
import { type Answer, World } from "./mounted.js";

const open: World[] = [];
afterEach(async () => {
  for (const world of open.splice(0)) await world.close();
});

async function newWorld(): Promise<World> {
  const world = await World.create();
  open.push(world);
  return world;
}

async function look(f: Fixture): Promise<Draft> {
  return (await f.request(await f.sign(f.claims(await l1("lookup"))), call("lookup", {}))).header(
    "Accept",
    "application/json, text/event-stream",
  );
}

/** A handler that lists what it should, and answers everything else with `answer`. */
function handlerOf(answer: (message: Loose, request: Request) => Response | Promise<Response>): McpHandler {
  return async (request) => {
    const message = (await request.json()) as Loose;
    if (message["method"] !== "tools/list") return answer(message, request);
    return Response.json({ jsonrpc: "2.0", id: message["id"], result: { tools: DEFINITIONS } });
  };
}

test("a definition that changes while the server runs is noticed, and reported", async () => {
  const world = await newWorld();
  const send = await world.mount("web-standard", undefined, { discoveryMs: 0 });
  assert.equal((await send(await look(world.fixture))).status, 200);
  const [first, ...others] = world.definitions;
  world.definitions = [{ ...first, description: "another" }, ...others];
  assert.equal((await send(await look(world.fixture))).status, 403);
  assert.equal((await send(await look(world.fixture))).status, 403);
  const drifts = world.events.filter((event) => event.kind === "drifted");
  assert.deepEqual(drifts.map(({ tool }) => tool), ["lookup"], "once");
  assert.equal((drifts[0]?.detail as Loose)["approved"], await digestOf("lookup"));
  world.definitions = [...DEFINITIONS];
  assert.equal((await send(await look(world.fixture))).status, 200);
});

test("a server that does not list its tools is not called, until it does", async () => {
  const world = await newWorld();
  world.fixture.guard = await world.fixture.emptyGuard();
  world.fixture.guard.install(await world.fixture.snapshot());
  let lists = false;
  const inner = handlerOf((message) => Response.json({ jsonrpc: "2.0", id: message["id"], result: {} }));
  const handler: McpHandler = async (request, context) => {
    const { method } = (await request.clone().json()) as Loose;
    if (method === "tools/list" && !lists) return new Response(null, { status: 500 });
    return (inner as (request: Request, context: unknown) => Promise<Response>)(request, context);
  };
  const send = await world.mount("web-standard", handler, { discoveryMs: 0, limits: { burst: 1e6 } });
  assert.equal((await send(await look(world.fixture))).status, 503);
  assert.equal(world.errors.length, 1);
  lists = true;
  world.fixture.guard.hearRevocations();
  let answer: Answer;
  const end = performance.now() + 5_000;
  do answer = await send(await look(world.fixture));
  while (answer.status === 503 && performance.now() < end);
  assert.equal(answer.status, 200);
});

test("nobody without a good token has the server looked at, and it is looked at where it is", async () => {
  const world = await newWorld();
  const f = world.fixture;
  const looks: string[] = [];
  const inner = world.handler() as { fetch(request: Request, context: unknown): Promise<Response> };
  const handler: McpHandler = async (request, context) => {
    const { method } = (await request.clone().json()) as Loose;
    if (method === "tools/list") looks.push(`${request.url} ${request.headers.get("host")}`);
    return inner.fetch(request, context);
  };
  const answer = protect(world.link, handler, { discoveryMs: 0 });
  const send = (draft: Draft) => {
    const headers = new Headers({ host: "evil.example.com" });
    for (const [name, value] of draft.headers) headers.append(name, value);
    return answer(new Request("https://evil.example.com/mcp/", { method: "POST", headers, body: draft.body.slice() }));
  };
  const body = call("lookup", {});
  const claims = f.claims(await l1("lookup"));
  const token = await f.sign(claims);
  const expired = await f.sign({ ...claims, iat: f.now - 90, nbf: f.now - 90, exp: f.now - 30 });
  const stranger = await Signer.generate();
  for (const draft of [
    new Draft(body),
    await f.request(expired, body),
    await f.request("forged", body),
    (await f.request(token, body)).replace("DPoP", await f.proof(token, {}, stranger)),
    await f.request(await stranger.sign("at+jwt", claims), body),
  ]) {
    assert.equal((await send(draft)).status, 401);
  }
  assert.deepEqual([looks, world.events], [[], []]);
  assert.equal((await send(await look(f))).status, 200);
  assert.deepEqual(looks, [`${f.guard.config.publicUrl} null`]);
});

test("what was seen counts while a look fails, and the next waits a second", async () => {
  const world = await newWorld();
  let looks = 0;
  const tools = () => {
    looks += 1;
    return Promise.reject(new Error("canary: no list"));
  };
  const send = await world.mount("web-standard", undefined, { tools, discoveryMs: 30_000, limits: { burst: 1e6 } });
  for (let times = 0; times < 3; times += 1) assert.equal((await send(await look(world.fixture))).status, 200);
  assert.deepEqual([looks, world.errors.length], [1, 1]);
  const end = performance.now() + 5_000;
  while (looks === 1 && performance.now() < end) assert.equal((await send(await look(world.fixture))).status, 200);
  assert.equal(looks, 2);
});

test("a session is its opener's alone", async () => {
  const world = await newWorld();
  const f = world.fixture;
  const handler = handlerOf((message) => {
    const headers: Record<string, string> = message["method"] === "initialize" ? { "mcp-session-id": "s-1" } : {};
    return Response.json({ jsonrpc: "2.0", id: message["id"], result: {} }, { headers });
  });
  const send = await world.mount("web-standard", handler);
  const initialize = { jsonrpc: "2.0", id: 1, method: "initialize", params: {} };
  const opened = await send(await f.request(await f.sign(f.claims(l0())), initialize));
  assert.equal(opened.headers.get("mcp-session-id"), "s-1");
  const within = async (session: string, changes: Loose = {}, key?: Signer) => {
    const claims = { ...f.claims(await l1("lookup")), ...changes };
    const token = await f.sign(claims);
    const draft = (await f.request(token, call("lookup", {}))).header("Mcp-Session-Id", session);
    return send(key === undefined ? draft : draft.replace("DPoP", await f.proof(token, {}, key)));
  };
  assert.equal((await within("s-1")).status, 200);
  assert.equal((await within("s-2")).status, 404);
  assert.equal((await within("s-1", { sub: "user:acme:x:bob" })).status, 404);
  assert.equal((await within("s-1", { act: { sub: "agent:other" } })).status, 404);
  const key = await Signer.generate();
  assert.equal((await within("s-1", { cnf: { jkt: key.thumbprint } }, key)).status, 404);
});

test("what goes wrong inside stays inside, and is reported", async () => {
  const world = await newWorld();
  const handler = handlerOf(() => {
    throw new Error("canary: the database is down");
  });
  const send = await world.mount("web-standard", handler);
  const answer = await send(await look(world.fixture));
  assert.equal(answer.status, 500);
  assert.doesNotMatch(answer.text, /canary/);
  assert.deepEqual(world.events.map((event) => event.kind), ["discovered", "failed"]);
  assert.equal(world.errors.length, 1);
});

for (const [type, says] of [["application/json", /server_error/], ["text/event-stream", /"code":-32603/]] as const) {
  test(`a result without end (${type}) is broken off`, async () => {
    const world = await newWorld();
    const endless = () => new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(100_000).fill(32)) });
    const handler = handlerOf(() => new Response(endless(), { headers: { "content-type": type } }));
    const answer = protect(world.link, handler, { maxResultBytes: 1_000_000 });
    const draft = await look(world.fixture);
    const request = new Request("https://pay.example.com/mcp", { method: "POST", headers: draft.headers, body: draft.body.slice() });
    assert.match(await (await answer(request)).text(), says);
    assert.equal(world.events.at(-1)?.kind, "failed");
  });
}

test("a list that cannot be read strictly is not passed on", async () => {
  const world = await newWorld();
  const handler: McpHandler = () => new Response('{"result":{"tools":[]},"result":{"tools":[{"name":"x"}]}}');
  const send = await world.mount("web-standard", handler, { tools: async () => [] });
  const list = { jsonrpc: "2.0", id: 1, method: "tools/list" };
  const draft = await world.fixture.request(await world.fixture.sign(world.fixture.claims(l0())), list);
  const answer = await send(draft);
  assert.equal(answer.status, 502);
  assert.doesNotMatch(answer.text, /tools":/);
});

test("a stream of events is passed on as it comes", async () => {
  const world = await newWorld();
  let emit: (text: string) => void = () => undefined;
  const handler = handlerOf(() => {
    const body = new ReadableStream({
      start: (controller) => {
        emit = (text) => controller.enqueue(Buffer.from(text));
      },
    });
    return new Response(body, { headers: { "content-type": "text/event-stream" } });
  });
  const port = await world.listen("Express", handler);
  const draft = await look(world.fixture);
  const response = await fetch(`http://127.0.0.1:${port}/mcp`, { method: "POST", headers: draft.headers, body: draft.body.slice() });
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const one = 'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n';
  emit(one.slice(0, 20));
  emit(one.slice(20));
  assert.equal((await reader?.read())?.value, one);
  const two = 'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n';
  emit(two);
  assert.equal((await reader?.read())?.value, two);
  assert.equal((await reader?.read())?.done, true);
});

test("behind a body parser it says so instead of verifying what others read", async () => {
  const world = await newWorld();
  const app = express();
  app.use(express.json());
  app.use(deputize(world.link, world.handler()));
  app.use(((error: Error, _request: unknown, response: { status(code: number): { send(text: string): void } }, _next: unknown) =>
    response.status(500).send(error.message)) as express.ErrorRequestHandler);
  const server = createServer(app).listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const draft = await look(world.fixture);
  const { port } = server.address() as AddressInfo;
  const response = await fetch(`http://127.0.0.1:${port}/mcp`, { method: "POST", headers: draft.headers, body: draft.body.slice() });
  assert.equal(response.status, 500);
  assert.match(await response.text(), /mount the guard before/);
  assert.equal(world.ran.length, 0);
  await new Promise((resolve) => server.close(resolve));
});

test("without a guard there is no verified call", () => {
  assert.throws(() => verifiedCall({}), /put the server behind/);
  assert.throws(() => verifiedCall({ http: { authInfo: { extra: {} } } }));
});
