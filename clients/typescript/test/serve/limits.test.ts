/** How much one caller may, and how long the handler may take: what is refused then, and what is not. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { test } from "node:test";
import type { ToolCallClaims as Claims } from "../../src/call/claims.js";
import { Reason } from "../../src/guard/reason.js";
import { protect } from "../../src/server.js";
import { Breaker } from "../../src/serve/breaker.js";
import { Meter, resolveLimits } from "../../src/serve/limits.js";
import { answerNode } from "../../src/serve/node.js";
import { call, get, l1, l3, LIST, type Loose, promptToken } from "../guard/fixture.js";
import { SessionWorld, type Stream, until } from "./session-server.js";

const LOOKUP = call("lookup", {});
const REFUND = call("refund", {});
const BOB = { sub: "user:acme:x:bob" };
const NOTE = { jsonrpc: "2.0", method: "notifications/message", params: {} };
const looking = async () => ({ detail: await l1("lookup") });
const refunding = async () => ({ detail: await l3("refund", {}) });
const retryAfter = (refused: Loose) => (refused["headers"] as unknown as Headers).get("retry-after");

/** Sockets would keep the process running; here nothing else does. */
async function alive<T>(work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => undefined, 1_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

test("rates are each person's and refuse before the token is spent", async () => {
  const w = await SessionWorld.create({ limits: { callsPerMinute: 60, burst: 2 } });
  for (let times = 0; times < 2; times += 1) assert.equal((await w.send(REFUND, await refunding())).status, 200);
  const token = await w.f.sign(w.f.claims(await l3("refund", {})));
  const limited = await w.refused(429, REFUND, { token });
  assert.deepEqual([limited["error"], retryAfter(limited)], ["temporarily_unavailable", "2"]);
  assert.ok(!w.f.outside.redeemed.has(token));
  assert.equal((await w.send(LOOKUP, await looking())).status, 200, "another tool");
  assert.equal((await w.send(REFUND, { ...(await refunding()), claims: BOB })).status, 200, "another person");
  w.f.pass(1);
  assert.equal((await w.send(REFUND, { token })).status, 200, "the token was not spent");
  await w.refused(429, REFUND, await refunding());
});

test("what is chosen by the client has one rate", async () => {
  const w = await SessionWorld.create({ limits: { callsPerMinute: 1, burst: 2 } });
  await w.approveMaterial();
  for (let number = 0; number < 3; number += 1) {
    const statuses = [
      await w.send({ jsonrpc: "2.0", method: `notifications/x${number}` }),
      await w.send({ ...LIST, id: number, method: "ping" }),
      await w.send(get("greet", { city: String(number) }), { detail: await promptToken("greet") }),
    ].map(({ status }) => status);
    assert.deepEqual(statuses, number < 2 ? [202, 200, 200] : [429, 429, 429]);
  }
});

test("streams to listen to have one rate", async () => {
  const w = await SessionWorld.create({ limits: { callsPerMinute: 1, burst: 2 } });
  const listening = { method: "GET", headers: { "mcp-session-id": await w.begin() } };
  for (let times = 0; times < 2; times += 1) {
    const stream = await w.send("", listening);
    assert.equal(stream.status, 200);
    await stream.leave();
  }
  assert.equal(retryAfter(await w.refused(429, "", listening)), "61");
  assert.equal((await w.send(LIST)).status, 200, "another method");
});

test("a caller has only so many under way", async () => {
  const w = await SessionWorld.create({ limits: { concurrent: 2 } });
  const streams: Stream[] = [];
  w.serve = (stream) => {
    streams.push(stream);
    stream.say(NOTE);
  };
  const underWay = [await w.send(LOOKUP, await looking()), await w.send({ ...LOOKUP, id: 2 }, await looking())];
  for (const each of underWay) await each.event();
  assert.equal(retryAfter(await w.refused(429, LIST)), "1");
  assert.equal((await w.send(LIST, { claims: BOB })).status, 200);
  for (const stream of streams) stream.answer({ content: [] });
  for (const each of underWay) assert.deepEqual([Boolean((await each.event())?.["result"]), await each.event()], [true, undefined]);
  w.serve = undefined;
  for (let times = 0; times < 3; times += 1) {
    await w.refused(403, call("lookup", { unknown: 1 }), await looking());
    await w.refused(404, LIST, { headers: { "mcp-session-id": "none" } });
    w.whole = () => new Response("<p>", { headers: { "content-type": "text/html" } });
    assert.equal((await w.send(LOOKUP, await looking())).status, 502);
  }
  assert.equal((await w.send(LIST)).status, 200, "nothing is counted that is over");
});

test("a handler that does not answer in time is given up", async () => {
  const w = await SessionWorld.create({ limits: { answerSeconds: 0.05, concurrent: 1 } });
  const headers = { "mcp-session-id": await w.begin() };
  let hanging: Request | undefined;
  // As an honest handler does that hears of it.
  w.hangs = (request) =>
    new Promise((_, reject) => {
      hanging = request;
      request.signal.addEventListener("abort", () => reject(request.signal.reason as Error));
    });
  const late = await w.send(REFUND, { ...(await refunding()), headers });
  assert.deepEqual([late.status, (await late.json())["error"]], [504, "server_timeout"]);
  assert.ok(hanging?.signal.aborted, "it hears of it");
  w.hangs = undefined;
  await w.refused(400, { ...LIST, id: 1 }, { headers });
  assert.equal((await w.send(REFUND, await refunding())).status, 200, "the next honest call");
  assert.deepEqual(w.events.filter(({ tool }) => tool === "refund").map(({ kind }) => kind), ["failed", "executed"]);
  assert.deepEqual(w.errors, []);
});

test("what was given up and still runs is counted still", async () => {
  const w = await SessionWorld.create({ limits: { answerSeconds: 0.05, concurrent: 1 } });
  let finish = (_: Response): void => assert.fail("it was never asked");
  w.hangs = () => new Promise((resolve) => (finish = resolve));
  assert.equal((await w.send(LOOKUP, await looking())).status, 504);
  assert.equal((await w.refused(429, LIST))["error"], "temporarily_unavailable");
  assert.equal((await w.send(LIST, { claims: BOB })).status, 200);
  let isDropped = false;
  finish(new Response(new ReadableStream({ cancel: () => void (isDropped = true) })));
  await until(() => isDropped);
  assert.equal((await w.send(LIST)).status, 200);
});

test("an answer that does not end in time is none", async () => {
  const w = await SessionWorld.create({ limits: { answerSeconds: 0.05 } });
  for (const status of [200, 400]) {
    let isGone = false;
    const body = () => new ReadableStream({
      start: (controller) => controller.enqueue(Buffer.from("{")),
      cancel: () => void (isGone = true),
    });
    w.whole = () => new Response(body(), { status, headers: { "content-type": "application/json" } });
    const late = await w.send(LOOKUP, await looking());
    assert.deepEqual([late.status, (await late.json())["error"]], [504, "server_timeout"]);
    await until(() => isGone);
  }
});

test("a stream lasts only so long, and is kept alive meanwhile", async () => {
  const w = await SessionWorld.create({ limits: { answerSeconds: 0.05, streamSeconds: 50 } });
  let open: Stream | undefined;
  w.serve = (stream) => {
    open = stream;
    stream.say(NOTE);
  };
  const calling = await w.send(LOOKUP, await looking());
  assert.deepEqual(await calling.event(), NOTE);
  w.f.pass(40);
  assert.equal(await alive(() => calling.piece()), ": alive\n\n", "it is longer than an answer may take");
  w.f.pass(10);
  const error = { code: -32603, message: "the MCP server did not answer in time" };
  assert.deepEqual(await alive(() => calling.event()), { jsonrpc: "2.0", id: 1, error });
  assert.equal(await calling.event(), undefined);
  assert.ok(open?.isGone);
});

test("where no more can be counted, new ones wait", () => {
  const meter = new Meter(resolveLimits({ callsPerMinute: 60, burst: 2 }), 1);
  const count = (sub: string, uptimeMs: number) =>
    meter.count(sub, "ping", uptimeMs);
  const waits = { kind: "limited", retryAfterSeconds: 1 };
  count("alice", 0);
  assert.throws(() => count("bob", 0), waits);
  count("alice", 0);
  assert.throws(() => count("bob", 1_999), waits);
  assert.throws(() => count("bob", 2_998), waits, "looked through once a second at most, however many come");
  count("bob", 2_999);
  assert.throws(() => count("alice", 3_998), waits);
  count("alice", 3_999);
});

test("what is refused for itself is not counted", async () => {
  const w = await SessionWorld.create({ limits: { callsPerMinute: 1, burst: 1 } });
  await w.refused(403, LOOKUP, { detail: await l1("refund") });
  await w.refused(401, LOOKUP, { ...(await looking()), headers: { dpop: "forged" } });
  assert.equal((await w.send(LOOKUP, await looking())).status, 200);
  assert.equal(retryAfter(await w.refused(429, LOOKUP, await looking())), "61");
  assert.equal((await w.send(LIST)).status, 200);
});

test("limits are bounds", async () => {
  const w = await SessionWorld.create();
  const link = { guard: w.f.guard, report: () => undefined };
  const handler = () => new Response();
  for (const name of ["callsPerMinute", "burst", "concurrent", "bodySeconds", "answerSeconds", "streamSeconds"]) {
    for (const none of [0, -1, Infinity, NaN]) {
      assert.throws(() => protect(link, handler, { limits: { [name]: none } }), new RegExp(name));
    }
  }
  const tooLong = { answerSeconds: 24 * 86_400 + 1 };
  assert.throws(() => protect(link, handler, { limits: tooLong }), /answerSeconds must be at most 2073600/);
  assert.equal(resolveLimits({ answerSeconds: 24 * 86_400 }).answerSeconds, 2_073_600);
  assert.throws(() => protect(link, handler, { limits: { calls: 1 } as object }), /calls/);
});

test("a caller who gets no answers is stopped, and nobody else", async () => {
  const w = await SessionWorld.create();
  w.hangs = () => Promise.resolve(new Response("{}", { status: 503 }));
  for (let turn = 0; turn < 5; turn += 1) {
    const down = await w.send(LOOKUP, await looking());
    assert.deepEqual([down.status, (await down.json())["error"]], [503, "server_unavailable"]);
  }
  const token = await w.f.sign(w.f.claims(await l3("refund", {})));
  const stopped = await w.refused(503, REFUND, { token });
  assert.equal(retryAfter(stopped), "2");
  assert.ok(!w.f.outside.redeemed.has(token));
  w.hangs = undefined;
  assert.equal((await w.send(REFUND, { ...(await refunding()), claims: BOB })).status, 200, "another caller");
  await w.refused(503, LOOKUP, await looking());
  w.f.pass(2);
  assert.equal((await w.send(REFUND, { token })).status, 200, "one goes through, and closes it");
  assert.equal((await w.send(LOOKUP, await looking())).status, 200);
});

test("the breaker is bounded, heeds only silence, and forgets", async () => {
  const breaker = new Breaker(3);
  const { f } = await SessionWorld.create();
  const callers = await Promise.all(
    [0, 1, 2, 3].map(async (number) => {
      const token = await f.sign({ ...f.claims(await l1("lookup")), sub: `user-${number}` });
      return (await f.send(await f.request(token, LOOKUP))).claims;
    }),
  );
  const [first, second, third, fourth] = callers as [Claims, Claims, Claims, Claims];
  const silent = (claims: Claims, atMs: number) => {
    for (let turn = 0; turn < 5; turn += 1) breaker.failed(claims, new Reason("server_timeout"), atMs);
  };
  for (const each of [first, second, third, fourth]) silent(each, 0);
  for (const each of [first, second, third]) assert.throws(() => breaker.check(each, 1_000), Reason);
  breaker.check(fourth, 1_000);
  breaker.check(first, 2_000);
  assert.throws(() => breaker.check(first, 3_900), Reason);
  breaker.failed(second, new Error("the client went away"), 1_000);
  assert.throws(() => breaker.check(second, 1_500), Reason);
  breaker.failed(second, new Reason("server_error"), 1_000);
  breaker.check(second, 1_500);
  breaker.check(third, 600_000);
  silent(fourth, 602_000);
  assert.throws(() => breaker.check(fourth, 603_000), Reason);
});

test("a body that does not come in time is refused, over a socket and without one", async (context) => {
  const w = await SessionWorld.create();
  const never = new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from("{")) });
  const answer = protect({ guard: w.f.guard, report: () => undefined }, () => assert.fail("it ran"), { limits: { bodySeconds: 0.05 } });
  const request = new Request(answer.publicUrl, { method: "POST", body: never, duplex: "half" } as RequestInit);
  const late = await alive(() => answer(request));
  assert.deepEqual([late.status, ((await late.json()) as Loose)["error"]], [408, "invalid_request"]);

  const server = createServer((incoming, response) => void answerNode(answer, incoming, response, answer.path)).listen(0, "127.0.0.1");
  context.after(() => server.close());
  await once(server, "listening");
  const socket = connect((server.address() as AddressInfo).port, "127.0.0.1");
  context.after(() => socket.destroy());
  socket.write(`POST ${answer.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{`);
  const [heard] = (await once(socket, "data")) as [Buffer];
  assert.match(heard.toString(), /^HTTP\/1\.1 408 /);
  assert.match(heard.toString(), /connection: close/i);
});
