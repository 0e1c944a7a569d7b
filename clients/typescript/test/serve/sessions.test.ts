/** Sessions of MCP up to 2025-11-25 behind the middleware: whose they are, and what goes on in them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Signer } from "../../src/client/signer.js";
import { call, DEFINITIONS, l0, l1, l2, l3, LIST, type Loose } from "../guard/fixture.js";
import { type Otherwise, SessionWorld, type Stream, until, VERSION } from "./session-server.js";

const ELICIT = { jsonrpc: "2.0", id: "e1", method: "elicitation/create", params: { message: "which?" } };
const SAMPLE = { jsonrpc: "2.0", id: "m1", method: "sampling/createMessage", params: {} };
const NOTE = { jsonrpc: "2.0", method: "notifications/message", params: { data: "x" } };
const LOOKUP = call("lookup", {});
const REFUND = call("refund", {});
const BOB = { sub: "user:acme:x:bob" };
const response = (id: unknown, result: unknown = {}) => ({ jsonrpc: "2.0", id, result });
const within = (session: string, otherwise: Otherwise = {}): Otherwise =>
  ({ ...otherwise, headers: { "mcp-session-id": session, ...otherwise.headers } });
const looking = async () => ({ detail: await l1("lookup") });
const refunding = async () => ({ detail: await l3("refund", {}) });

test("a session is its caller's alone", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  assert.equal((await w.send(LOOKUP, within(session, await looking()))).status, 200);
  const key = await Signer.generate();
  const strangers: Otherwise[] = [
    { claims: BOB }, { claims: { act: { sub: "agent:other" } } }, { claims: { act: undefined } },
    { claims: { client_id: "another" } }, { claims: { cnf: { jkt: key.thumbprint } }, key },
  ];
  for (const stranger of strangers) {
    for (const [body, granted] of [
      [REFUND, await refunding()], [LIST, {}], [{ jsonrpc: "2.0", method: "notifications/x" }, {}], [response("e1"), {}],
    ] as const) {
      const said = await w.refused(404, body, within(session, { ...granted, ...stranger }));
      assert.equal(said["error"], "unknown_session");
    }
    for (const method of ["GET", "DELETE"]) await w.refused(404, "", within(session, { method, ...stranger }));
  }
  await w.refused(404, LIST, within("made-up"));
  assert.equal(w.f.outside.redeemed.size, 0, "nothing was spent");
  assert.equal((await w.send(REFUND, within(session, await refunding()))).status, 200);
});

test("the server hears of a session what the guard says", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin(within("brought-along"));
  assert.equal(w.received[0]?.headers.get("mcp-session-id"), null, "what begins is in no session");
  assert.deepEqual((w.received[0]?.message["params"] as Loose)["capabilities"], { roots: {} });
  const listed = await w.send(LIST, within(session, { headers: { "mcp-protocol-version": VERSION } }));
  assert.equal(listed.response.headers.get("mcp-session-id"), session);
  assert.deepEqual(
    ["mcp-session-id", "mcp-protocol-version"].map((name) => w.received[1]?.headers.get(name)), [session, VERSION],
  );
  assert.equal((await w.send(LIST)).response.headers.get("mcp-session-id"), null);
});

test("a server that gives one id twice begins no second session", async () => {
  const w = await SessionWorld.create();
  w.sessionIds = ["s1", "s1", "no name", "s2"];
  const session = await w.begin();
  const begin = { jsonrpc: "2.0", id: 1, method: "initialize", params: {} };
  for (const _ of [1, 2]) {
    const taken = await w.send(begin, { claims: BOB });
    assert.deepEqual([taken.status, (await taken.json())["error"]], [502, "server_error"]);
  }
  await w.refused(404, LIST, within(session, { claims: BOB }));
  assert.equal((await w.send(LIST, within(session))).status, 200);
});

test("an id serves one request at a time", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  let open: Stream | undefined;
  w.serve = (stream) => {
    open = stream;
    stream.say(NOTE);
  };
  const first = await w.send(REFUND, within(session, await refunding()));
  assert.equal((await first.event())?.["method"], NOTE.method);
  await w.refused(400, REFUND, within(session, await refunding()));
  await w.refused(400, { ...LIST, id: 1 }, within(session));
  assert.equal(w.f.outside.redeemed.size, 1, "the second was not spent");
  const other = await w.begin();
  assert.equal((await w.send({ ...LIST, id: 1 }, within(other))).status, 200);
  assert.equal((await w.send({ ...LIST, id: "1" }, within(session))).status, 200, "a text is no number");
  open?.answer({ content: [] });
  assert.ok((await first.event())?.["result"]);
  assert.equal(await first.event(), undefined);
  assert.equal((await w.send({ ...LIST, id: 1 }, within(session))).status, 200);
});

test("what the server asks is answered once by who was asked", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  let open: Stream | undefined;
  w.serve = (stream) => {
    open = stream;
    stream.say(ELICIT);
  };
  const calling = await w.send(LOOKUP, within(session, await looking()));
  assert.deepEqual(await calling.event(), ELICIT);
  await w.refused(400, response("e2"), within(session));
  await w.refused(400, response("e1"));
  await w.refused(403, response("e1"), within(session, await looking()));
  await w.refused(404, response("e1"), within(session, { claims: BOB }));
  for (const broken of [
    { ...response("e1"), error: { code: 1, message: "" } }, { jsonrpc: "2.0", id: "e1" }, response("e1", 1),
    { jsonrpc: "2.0", result: {} }, { ...response("e1"), params: {} }, [response("e1")],
    { jsonrpc: "2.0", id: "e1", error: { code: "1", message: "" } },
  ]) {
    await w.refused(400, broken, within(session));
  }
  const good = response("e1", { action: "accept", content: {} });
  w.f.outside.admission = "unavailable";
  await w.refused(503, good, within(session));
  w.f.outside.admission = "ready";
  assert.equal((await w.send(good, within(session))).status, 202, "what was refused before did not cost the server its answer");
  const received = w.received.at(-1);
  assert.deepEqual(received?.message, good);
  for (const name of ["mcp-method", "mcp-name", "deputize-call", "authorization"]) assert.ok(!received?.headers.has(name));
  await w.refused(400, good, within(session));
  open?.answer({ content: [] });
  assert.ok((await calling.event())?.["result"]);
});

test("nothing is asked while a call runs whose token fixes it", async () => {
  const fixed = [
    [await l3("refund", {}), REFUND],
    [await l2("transfer", { "/note": { enum: ["x"] } }, 1), call("transfer", { note: "x" })],
  ] as const;
  for (const [detail, body] of fixed) {
    const w = await SessionWorld.create();
    const session = await w.begin();
    w.serve = async (stream) => {
      stream.say(ELICIT);
      await until(() => w.received.at(-1)?.message["error"] !== undefined);
      stream.answer({ content: [] });
    };
    const calling = await w.send(body, within(session, { detail }));
    assert.ok((await calling.event())?.["result"], "the client hears nothing of the question");
    const told = w.received.at(-1);
    assert.deepEqual([told?.message["id"], (told?.message["error"] as Loose)["code"]], ["e1", 1]);
    assert.equal(told?.headers.get("mcp-session-id"), session);
    await w.refused(400, response("e1"), within(session));
  }
});

test("a call that nobody waits for is still under way", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  let open: Stream | undefined;
  w.serve = (stream) => {
    open = stream;
    stream.say(NOTE);
  };
  const calling = await w.send(REFUND, within(session, await refunding()));
  await calling.event();
  await calling.leave();
  await until(() => open?.isGone === true);
  await w.refused(400, { ...LIST, id: 1 }, within(session));
  const listening = await w.send("", within(session, { method: "GET" }));
  const [stream] = w.streams;
  stream?.say(ELICIT);
  stream?.say(response(1, { content: [] }));
  assert.equal((await listening.event())?.["id"], 1, "the question did not reach the client");
  await until(() => w.received.at(-1)?.message["error"] !== undefined);
  stream?.say({ ...ELICIT, id: "e2" });
  assert.equal((await listening.event())?.["id"], "e2");
  assert.equal((await w.send({ ...LIST, id: 1 }, within(session))).status, 200);
});

test("sampling is refused wherever the server asks (H-33)", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  w.serve = async (stream) => {
    stream.say(SAMPLE);
    await until(() => w.received.at(-1)?.message["error"] !== undefined);
    stream.answer({ content: [] });
  };
  const calling = await w.send(LOOKUP, within(session, await looking()));
  assert.ok((await calling.event())?.["result"]);
  assert.equal((w.received.at(-1)?.message["error"] as Loose)["message"], "sampling is refused by the guard");
  const listening = await w.send("", within(session, { method: "GET" }));
  w.streams[0]?.say({ ...SAMPLE, id: "m2" });
  w.streams[0]?.say(NOTE);
  assert.deepEqual(await listening.event(), NOTE, "the client hears nothing of it");
  await until(() => w.received.at(-1)?.message["id"] === "m2");
  // Without a session there is nobody to tell; the client hears nothing all the same.
  w.serve = (stream) => {
    stream.say(SAMPLE);
    stream.say(ELICIT);
    stream.answer({ content: [] });
  };
  assert.ok((await (await w.send(LOOKUP, await looking())).event())?.["result"]);
  assert.deepEqual(w.errors, []);
});

test("what the server says is heard by the session's owner, until what the token stood for is revoked", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  const get = (otherwise: Otherwise = {}) => within(session, { method: "GET", ...otherwise });
  await w.refused(401, "", get({ without: ["authorization", "dpop"] }));
  await w.refused(403, "", get(await looking()));
  const none = await w.refused(405, "", { method: "GET" });
  assert.equal((none["headers"] as unknown as Headers).get("allow"), "POST");
  await w.refused(405, "", get({ headers: { "mcp-protocol-version": "2026-07-28" } }));
  const token = await w.f.sign(w.f.claims(l0()));
  await w.refused(401, "", get({ token, headers: { dpop: await w.f.proof(token) } }));
  const listening = await w.send("", get({ headers: { cookie: "a=b" } }));
  assert.equal(listening.status, 200);
  const [heard] = w.bare;
  assert.equal(heard?.headers.get("mcp-session-id"), session);
  for (const name of ["authorization", "dpop", "cookie", "last-event-id"]) assert.ok(!heard?.headers.has(name), name);
  w.streams[0]?.say(NOTE);
  assert.deepEqual(await listening.event(), NOTE);
  w.f.pass(200);
  w.f.guard.hearRevocations();
  w.streams[0]?.say(NOTE);
  assert.deepEqual(await listening.event(), NOTE, "a stream outlives its token");
  w.f.guard.revoke({ kind: "person", sub: "user:acme:x:alice" });
  // A socket would keep the process running.
  const alive = setInterval(() => undefined, 1_000);
  assert.equal(await listening.event(), undefined);
  clearInterval(alive);
  assert.ok(w.streams[0]?.isGone);
});

test("a stream is resumed from a cursor of its session", async () => {
  const w = await SessionWorld.create();
  const [session, other] = [await w.begin(), await w.begin()];
  w.serve = (stream) => {
    stream.say("", "c1");
    stream.say(NOTE, "c2");
    stream.end();
  };
  const broken = await w.send({ ...LOOKUP, id: 5 }, within(session, await looking()));
  assert.deepEqual([await broken.event(), await broken.event()], [{}, NOTE]);
  assert.equal(await broken.event(), undefined, "what can be resumed ends without a word");
  const from = (cursor: string): Otherwise => ({ method: "GET", headers: { "last-event-id": cursor } });
  await w.refused(404, "", within(session, from("c3")));
  await w.refused(404, "", within(other, from("c2")));
  const resumed = await w.send("", within(session, from("c2")));
  assert.equal(w.bare.at(-1)?.headers.get("last-event-id"), "c2");
  w.streams[0]?.say(response(5, { content: [] }), "c4");
  assert.equal((await resumed.event())?.["id"], 5);
  w.streams[0]?.say(response(6, { content: [] }));
  assert.equal(await resumed.event(), undefined, "a response to nothing");
});

test("a list that comes on another stream is filtered too", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  w.serveLists = (stream) => {
    stream.say("", "c1");
    stream.end();
  };
  assert.deepEqual(await (await w.send({ ...LIST, id: 9 }, within(session))).event(), {});
  const listening = await w.send("", within(session, { method: "GET", headers: { "last-event-id": "c1" } }));
  const unapproved = { name: "unapproved", inputSchema: { type: "object" } };
  w.streams[0]?.say(response(9, { tools: [...DEFINITIONS, unapproved] }));
  const { tools } = (await listening.event())?.["result"] as { tools: { name: string }[] };
  assert.deepEqual(tools.map(({ name }) => name), ["lookup", "transfer", "refund"]);
});

test("a session ends with DELETE", async () => {
  const w = await SessionWorld.create();
  const session = await w.begin();
  await w.refused(403, "", within(session, { method: "DELETE", ...(await looking()) }));
  assert.equal((await w.send("", within(session, { method: "DELETE" }))).status, 204);
  assert.deepEqual(w.bare.map(({ method, headers }) => [method, headers.get("mcp-session-id")]), [["DELETE", session]]);
  await w.refused(404, LIST, within(session));
  await w.refused(404, "", within(session, { method: "DELETE" }));
});

test("a change of the tools is looked at when the server says so", async () => {
  const w = await SessionWorld.create({ discoveryMs: 1e9 });
  const session = await w.begin();
  assert.equal((await w.send(LOOKUP, await looking())).status, 200);
  const listening = await w.send("", within(session, { method: "GET" }));
  const [first, ...others] = w.live;
  w.live = [{ ...first, description: "another" }, ...others];
  assert.equal((await w.send(LOOKUP, await looking())).status, 200, "not looked at yet");
  w.streams[0]?.say({ jsonrpc: "2.0", method: "notifications/tools/list_changed" });
  assert.equal((await listening.event())?.["method"], "notifications/tools/list_changed");
  await w.refused(403, LOOKUP, await looking());
});

test("one caller opens so many streams and sessions, and the others have room", async () => {
  const w = await SessionWorld.create({ limits: { burst: 100 } });
  const session = await w.begin();
  const open = await Promise.all(Array.from({ length: 16 }, () => w.send("", within(session, { method: "GET" }))));
  const limited = await w.refused(429, "", within(session, { method: "GET" }));
  assert.equal((limited["headers"] as unknown as Headers).get("retry-after"), "1");
  await w.refused(429, LIST);
  await open[0]?.leave();
  open.push(await w.send("", within(session, { method: "GET" })));
  assert.equal(open.at(-1)?.status, 200);
  for (const stream of open.slice(1)) await stream.leave();
  for (let more = 0; more < 63; more += 1) await w.begin();
  const begin = { jsonrpc: "2.0", id: 1, method: "initialize", params: {} };
  await w.refused(503, begin);
  assert.equal((await w.send(begin, { claims: BOB })).status, 200);
});

test("news that comes during a look is not lost", async () => {
  const looks: ((tools: Loose[]) => void)[] = [];
  let isFirst = true;
  const tools = async () => {
    if (!isFirst) return new Promise<Loose[]>((resolve) => looks.push(resolve));
    isFirst = false;
    return w.live;
  };
  const w = await SessionWorld.create({ discoveryMs: 1e9, tools: tools as () => Promise<never[]> });
  const listening = await w.send("", { method: "GET", headers: { "mcp-session-id": await w.begin() } });
  const change = async () => {
    w.streams[0]?.say({ jsonrpc: "2.0", method: "notifications/tools/list_changed" });
    assert.equal((await listening.event())?.["method"], "notifications/tools/list_changed");
  };
  await change();
  const [before, later] = [w.send(LOOKUP, await looking()), looking()];
  await until(() => looks.length === 1);
  await change();
  const after = w.send({ ...LOOKUP, id: 2 }, await later);
  const [lookup, ...others] = w.live as [Loose, ...Loose[]];
  looks[0]?.(w.live);
  assert.equal((await before).status, 200, "it came before the news");
  await until(() => looks.length === 2);
  looks[1]?.([{ ...lookup, description: "another" }, ...others]);
  assert.equal((await after).status, 403);
  assert.equal((await w.send({ ...LOOKUP, id: 3 }, await looking())).status, 403);
  assert.equal(looks.length, 2);
});
