/** Streams of changes (MCP 2026-07-28): what is subscribed to, what is heard, and when it ends. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { call, l1, l3, type Loose } from "../guard/fixture.js";
import { SessionWorld, type Stream, until } from "./session-server.js";

const VERSION = "2026-07-28";
const META = { "io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {} };
const ASKED = { toolsListChanged: true, resourceSubscriptions: ["file:///etc/passwd"], other: 1 };
const LISTEN = { jsonrpc: "2.0", id: 7, method: "subscriptions/listen", params: { _meta: META, notifications: ASKED } };
const HEADERS = { "mcp-protocol-version": VERSION, "mcp-method": "subscriptions/listen" };
const FAREWELL = {
  jsonrpc: "2.0", id: 7,
  result: { resultType: "complete", _meta: { "io.modelcontextprotocol/subscriptionId": 7 } },
};
const LOOKUP = call("lookup", {});
const looking = async () => ({ detail: await l1("lookup") });
const note = (method: string) => ({
  jsonrpc: "2.0", method: `notifications/${method}`, params: { _meta: { "io.modelcontextprotocol/subscriptionId": 7 } },
});

/** Sockets would keep the process running; here nothing else does. */
async function alive<T>(work: () => Promise<T>): Promise<T> {
  const timer = setInterval(() => undefined, 1_000);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

test("only that lists changed is asked for and heard", async () => {
  const w = await SessionWorld.create({ discoveryMs: 1e9 });
  const end = { jsonrpc: "2.0", id: 7, result: { resultType: "complete" } };
  w.serve = (stream) => {
    for (const method of ["subscriptions/acknowledged", "message", "tools/list_changed", "resources/updated"]) {
      stream.say(note(method), "c1");
    }
    stream.say({ jsonrpc: "2.0", id: "s", method: "elicitation/create", params: {} });
    stream.say(end);
    stream.say(note("tools/list_changed"));
  };
  const listening = await w.send(LISTEN, { headers: HEADERS });
  const heard = [await listening.event(), await listening.event(), await listening.event(), await listening.event()];
  assert.deepEqual(heard, [note("subscriptions/acknowledged"), note("tools/list_changed"), end, undefined]);
  const asked = w.received.at(-1)?.message["params"] as Loose;
  assert.deepEqual(asked["notifications"], { toolsListChanged: true });
});

test("a subscription needs a token that looks and says what to hear", async () => {
  const w = await SessionWorld.create();
  for (const detail of [await l1("lookup"), await l3("lookup", {})]) {
    assert.equal((await w.refused(403, LISTEN, { detail, headers: HEADERS }))["error"], "insufficient_scope");
  }
  for (const notifications of [null, [], "all", undefined]) {
    await w.refused(400, { ...LISTEN, params: { _meta: META, notifications } }, { headers: HEADERS });
  }
});

for (const person of ["alice", "bob"]) {
  test(`a subscription ends with what its token stood for: ${person} is revoked`, async () => {
    const w = await SessionWorld.create();
    let open: Stream | undefined;
    w.serve = (stream) => {
      open = stream;
      stream.say(note("subscriptions/acknowledged"));
    };
    const listening = await w.send(LISTEN, { headers: HEADERS });
    await listening.event();
    w.f.guard.revoke({ kind: "person", sub: `user:acme:x:${person}` });
    open?.say(note("tools/list_changed"));
    if (person === "bob") {
      assert.equal((await listening.event())?.["method"], "notifications/tools/list_changed");
      open?.end();
    }
    // The server keeps the stream of who is revoked open for as long as it likes.
    assert.deepEqual(await alive(() => listening.event()), FAREWELL);
    assert.equal(await listening.event(), undefined);
  });
}

test("a silent subscription is kept alive, and ends when it is revoked or has lasted", async () => {
  for (const isRevoked of [true, false]) {
    const w = await SessionWorld.create();
    let open: Stream | undefined;
    w.serve = (stream) => {
      open = stream;
      stream.say(note("subscriptions/acknowledged"));
    };
    const listening = await w.send(LISTEN, { headers: HEADERS });
    await listening.event();
    w.f.pass(11);
    assert.equal(await alive(() => listening.piece()), ": alive\n\n");
    if (isRevoked) w.f.guard.revoke({ kind: "everything" });
    else {
      w.f.pass(3600);
      w.f.guard.hearRevocations();
    }
    assert.deepEqual(await alive(() => listening.event()), FAREWELL);
    assert.ok(open?.isGone);
  }
});

for (const [revocation, goesOn] of [
  [{ kind: "person", sub: "user:acme:x:alice" }, false], [{ kind: "tool", name: "lookup" }, false],
  [{ kind: "everything" }, false], [{ kind: "person", sub: "user:acme:x:bob" }, true],
  [{ kind: "tool", name: "refund" }, true],
] as const) {
  for (const speaks of [true, false]) {
    const how = `${JSON.stringify(revocation)} ${goesOn ? "goes on" : "ends"}${speaks ? "" : ", though the server is silent"}`;
    test(`a call that is answered as a stream: ${how}`, async () => {
      const w = await SessionWorld.create();
      let open: Stream | undefined;
      w.serve = (stream) => {
        open = stream;
        stream.say(note("message"));
      };
      const calling = await w.send(LOOKUP, await looking());
      assert.equal((await calling.event())?.["method"], "notifications/message");
      w.f.guard.revoke(revocation);
      if (speaks || goesOn) {
        open?.say(note("message"));
        open?.answer({ content: [] });
      }
      const said = await alive(() => calling.event());
      if (goesOn) {
        assert.equal(said?.["method"], "notifications/message");
        assert.deepEqual((await calling.event())?.["result"], { content: [] });
      } else {
        assert.deepEqual(said, { jsonrpc: "2.0", id: 1, error: { code: -32603, message: "the token was revoked" } });
      }
      assert.equal(await calling.event(), undefined);
      assert.ok(open?.isGone);
      assert.deepEqual(w.events.at(-1)?.kind, goesOn ? "executed" : "failed");
    });
  }
}

test("a client that leaves ends it at the server, and opens only so many", async () => {
  const w = await SessionWorld.create();
  const streams: Stream[] = [];
  w.serve = (stream) => {
    streams.push(stream);
    stream.say(note("subscriptions/acknowledged"));
  };
  const listening = await w.send(LISTEN, { headers: HEADERS });
  await listening.event();
  await listening.leave();
  await until(() => streams[0]?.isGone === true);
  const open = await Promise.all(Array.from({ length: 16 }, (_, id) => w.send({ ...LISTEN, id }, { headers: HEADERS })));
  const limited = await w.refused(429, LISTEN, { headers: HEADERS });
  assert.equal((limited["headers"] as unknown as Headers).get("retry-after"), "1");
  for (const stream of open) await stream.leave();
});

test("how much of a log is heard is for who looks", async () => {
  const w = await SessionWorld.create();
  const headers = { "mcp-session-id": await w.begin() };
  const level = { jsonrpc: "2.0", id: 3, method: "logging/setLevel", params: { level: "debug" } };
  w.answers.set("logging/setLevel", {});
  await w.refused(403, level, { ...(await looking()), headers });
  assert.deepEqual(await (await w.send(level, { headers })).json(), { jsonrpc: "2.0", id: 3, result: {} });
  const seen = w.received.at(-1);
  assert.deepEqual(seen?.message, level);
  assert.deepEqual([seen?.headers.get("mcp-method"), seen?.headers.get("mcp-session-id")], [level.method, headers["mcp-session-id"]]);
});

test("whose call it is only the guard says", async () => {
  const w = await SessionWorld.create();
  const forged = { "deputize/call": "forged", "deputize/aws": { uri: "http://127.0.0.1:1/", authorization: "forged" } };
  const params = { ...LOOKUP.params, _meta: { ...forged, a: 1 } };
  assert.equal((await w.send({ ...LOOKUP, params }, await looking())).status, 200);
  assert.deepEqual((w.received.at(-1)?.message["params"] as Loose)["_meta"], { a: 1 });
});
