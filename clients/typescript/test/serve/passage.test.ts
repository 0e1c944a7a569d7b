/** What of a request reaches the handler, and what of its answer reaches the client. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeBase64url, sha256 } from "../../src/call/bytes.js";
import { protect } from "../../src/server.js";
import { EventReader, writeEvent } from "../../src/serve/events.js";
import { call, DEFINITIONS, l1, l3, LIST, type Loose } from "../guard/fixture.js";
import { type Otherwise, SessionWorld } from "./session-server.js";

const LOOKUP = call("lookup", {});
const PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const looking = async () => ({ detail: await l1("lookup") });

test("headers that nobody verified do not reach the handler", async () => {
  const w = await SessionWorld.create();
  const forged = {
    cookie: "session=admin", forwarded: "for=10.0.0.1", "x-forwarded-for": "10.0.0.1", "x-forwarded-host": "evil.example.com",
    "x-real-ip": "10.0.0.1", "x-user": "admin", "proxy-authorization": "Basic x", "deputize-call": "forged",
    "deputize-person": "admin", "mcp-param-payment": "p", "mcp-other": "x", "last-event-id": "1", "x-request-id": "theirs",
    "client-cert": ":AAAA:", host: "pay.example.com", accept: "application/json", traceparent: PARENT,
  };
  const token = await w.f.sign(w.f.claims(await l1("lookup")));
  const path = "/mcp?admin=1";
  assert.equal((await w.send(call("lookup", { payment_id: "p" }), { token, headers: forged, path })).status, 200);
  const [seen] = w.received;
  const requestId = seen?.headers.get("x-request-id");
  assert.notEqual(requestId, "theirs");
  assert.deepEqual(Object.fromEntries(seen?.headers ?? []), {
    host: "pay.example.com", accept: "application/json", "content-type": "application/json", "mcp-method": "tools/call",
    "mcp-name": "lookup", "mcp-param-payment": "p", "deputize-call": token, traceparent: PARENT, "x-request-id": requestId,
  });
  assert.equal(seen?.url, "https://pay.example.com/mcp");
  await w.send(LOOKUP, { ...(await looking()), headers: { traceparent: PARENT.replaceAll(/[1-9a-f]/g, "0") } });
  assert.equal(w.received[1]?.headers.get("traceparent"), null);
});

test("headers of a trusted proxy pass where they are named", async () => {
  const w = await SessionWorld.create({ passedHeaders: ["X-Forwarded-For"] });
  const headers = { "x-forwarded-for": "10.0.0.1", "x-forwarded-host": "evil.example.com" };
  await w.send(LOOKUP, { ...(await looking()), headers });
  assert.deepEqual(Object.keys(headers).map((name) => w.received[0]?.headers.get(name)), ["10.0.0.1", null]);
  for (const name of ["Authorization", "DPoP", "Mcp-Name", "Deputize-Call", "Content-Length"]) {
    const link = { guard: w.f.guard, report: () => undefined };
    assert.throws(() => protect(link, () => new Response(), { passedHeaders: [name] }), /never passed on/);
  }
});

test("the arguments in headers are made anew", async () => {
  const w = await SessionWorld.create();
  await w.send(call("lookup", { payment_id: "é ", amount_cents: 42.5 }), await looking());
  const seen = w.received[0]?.headers;
  assert.deepEqual([seen?.get("mcp-param-payment"), seen?.get("mcp-param-amount")], ["=?base64?w6kg?=", "42.5"]);
});

for (const status of [201, 202, 203, 206, 226, 299]) {
  test(`${status} is no answer to what was asked`, async () => {
    const w = await SessionWorld.create();
    const headers = { "mcp-session-id": await w.begin() };
    const result = { content: [], tools: DEFINITIONS };
    for (const method of ["tools/call", "tools/list"]) w.answers.set(method, JSON.stringify({ jsonrpc: "2.0", id: 1, result }));
    w.status = status;
    const list = { ...LIST, id: 1 };
    for (const sent of [
      await w.send(LOOKUP, await looking()), await w.send(list), await w.send("", { method: "GET", headers }),
    ]) {
      assert.deepEqual([sent.status, (await sent.json())["error"]], [502, "server_error"]);
    }
    assert.ok(w.streams[0]?.isGone, "nobody listens");
    const noted = { jsonrpc: "2.0", method: "notifications/initialized" };
    assert.equal((await w.send(noted, { headers })).status, 202, "nothing was asked");
    w.status = 200;
    assert.equal((await w.send(LOOKUP, await looking())).status, 200);
    assert.equal(((await (await w.send(list)).json())["result"] as { tools: unknown[] }).tools.length, DEFINITIONS.length);
  });
}

for (const [answered, error, statuses] of [
  [502, "server_error", [300, 301, 302, 303, 304, 307, 308, 401, 403, 405, 406, 418, 421, 500]],
  [503, "server_unavailable", [502, 503, 504]],
] as const) {
  for (const status of statuses) {
    test(`${status} reaches nobody and sends nobody elsewhere`, async () => {
      const w = await SessionWorld.create();
      const location = "https://evil.example.com/mcp";
      const result = { tools: [{ name: "unapproved", inputSchema: { type: "object" } }] };
      // Each has few of them: whoever gets no answers is stopped after a while.
      for (const [sub, said] of [["bob", { result }], ["carol", { error: { code: -1, message: "unapproved" } }]] as const) {
        for (const media of ["application/json", "text/html", "text/event-stream"]) {
          const body = status === 304 ? null : JSON.stringify({ jsonrpc: "2.0", id: 1, ...said });
          w.whole = () => new Response(body, { status, headers: { "content-type": media, location } });
          const sent = await w.send(LOOKUP, { ...(await looking()), claims: { sub } });
          const { headers } = sent.response;
          const heard = await sent.json();
          assert.deepEqual([sent.status, heard["error"]], [answered, error]);
          assert.doesNotMatch(JSON.stringify(heard), /unapproved/);
          assert.deepEqual([headers.get("location"), headers.get("retry-after")], [null, answered === 503 ? "1" : null]);
        }
      }
      w.noted = status;
      const noted = await w.send({ jsonrpc: "2.0", method: "notifications/initialized" });
      assert.deepEqual([noted.status, (await noted.json())["error"]], [answered, error]);
      w.whole = undefined;
      assert.equal((await w.send(LOOKUP, await looking())).status, 200);
    });
  }
}

for (const status of [400, 404]) {
  test(`of an error of the protocol (${status}) only the error passes`, async () => {
    const w = await SessionWorld.create();
    w.status = status;
    const error = { code: -32601, message: "no such method", data: { a: 1 } };
    for (const answer of [
      { jsonrpc: "2.0", id: "a", error }, { jsonrpc: "2.0", id: null, error, result: { tools: DEFINITIONS } },
    ]) {
      w.answers.set("tools/list", JSON.stringify(answer));
      const sent = await w.send(LIST);
      assert.deepEqual([sent.status, await sent.json()], [status, { jsonrpc: "2.0", id: "a", error }]);
    }
    for (const none of ["", "not json", "{}", '{"error":"x"}', '{"jsonrpc":"2.0","id":"a","result":{"tools":[]}}']) {
      w.answers.set("tools/list", none);
      const sent = await w.send(LIST);
      assert.deepEqual([sent.status, (await sent.json())["error"]], [502, "server_error"]);
    }
  });
}

test("a session that the server forgot is none", async () => {
  const w = await SessionWorld.create();
  const within = { headers: { "mcp-session-id": await w.begin() } };
  w.status = 404;
  w.answers.set("tools/list", '{"jsonrpc":"2.0","id":"a","error":{}}');
  const gone = await w.send(LIST, within);
  assert.deepEqual([gone.status, (await gone.json())["error"]], [404, "unknown_session"]);
  w.status = 200;
  await w.refused(404, LIST, within);
});

test("a stream that the server does not give is none", async () => {
  for (const [status, answered] of [[400, 405], [405, 405], [404, 404], [302, 502], [503, 503]] as const) {
    const w = await SessionWorld.create();
    const headers = { "mcp-session-id": await w.begin() };
    w.status = status;
    const sent = await w.send("", { method: "GET", headers });
    assert.equal(sent.status, answered);
    assert.ok((await sent.json())["error_description"]);
  }
});

test("an answer without content is none", async () => {
  const w = await SessionWorld.create();
  w.whole = () => new Response(null, { status: 204 });
  const sent = await w.send(LOOKUP, await looking());
  assert.deepEqual([sent.status, (await sent.json())["error"]], [502, "server_error"]);
});

test("pages of other origins may not call", async () => {
  const w = await SessionWorld.create({ allowedOrigins: ["https://inspector.example.com"] });
  for (const origin of ["https://evil.example.com", "null", "http://pay.example.com"]) {
    const said = await w.refused(403, LOOKUP, { ...(await looking()), headers: { origin } });
    assert.equal(said["error"], "forbidden_origin");
    assert.equal((said["headers"] as unknown as Headers).get("www-authenticate"), null);
  }
  for (const origin of ["https://pay.example.com", "https://inspector.example.com"]) {
    assert.equal((await w.send(LOOKUP, { ...(await looking()), headers: { origin } })).status, 200);
  }
});

test("a request of the stateless version says everything twice", async () => {
  const w = await SessionWorld.create();
  const meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" };
  const body = { ...LOOKUP, params: { ...LOOKUP.params, _meta: meta } };
  const whole: Record<string, string> = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "lookup" };
  for (const [name, value] of [
    ["mcp-protocol-version", "2025-11-25"], ["mcp-protocol-version", undefined], ["mcp-protocol-version", "latest"],
    ["mcp-method", undefined], ["mcp-name", undefined],
  ] as const) {
    const { [name]: _, ...rest } = whole;
    await w.refused(400, body, { ...(await looking()), headers: value === undefined ? rest : { ...rest, [name]: value } });
  }
  assert.equal((await w.send(body, { ...(await looking()), headers: { ...whole, "mcp-session-id": "ignored" } })).status, 200);
  assert.equal(w.received[0]?.headers.get("mcp-session-id"), null);
  await w.refused(400, LOOKUP, { ...(await looking()), headers: whole });
});

test("the arguments in headers are due since the stateless version", async () => {
  const w = await SessionWorld.create();
  const meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" };
  const args = { payment_id: "é", amount_cents: 42 };
  const bare = call("lookup", args);
  const body = { ...bare, params: { ...bare.params, _meta: meta } };
  const due = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "lookup" };
  const payment = { "mcp-param-payment": "=?base64?w6k=?=" };
  for (const said of [
    {}, payment, { ...payment, "mcp-param-amount": "43" }, { "mcp-param-payment": "e", "mcp-param-amount": "42" },
    { "mcp-param-payment": "=?base64?w6k?=", "mcp-param-amount": "42" },
  ]) {
    const { headers, ...heard } = await w.refused(400, body, { detail: await l3("lookup", args), headers: { ...due, ...said } });
    const message = "Mcp-Param headers and the body say different things";
    assert.deepEqual(heard, { jsonrpc: "2.0", id: 1, error: { code: -32020, message } });
    const fields = headers as unknown as Headers;
    assert.deepEqual([fields.has("dpop-nonce"), fields.has("www-authenticate")], [true, false]);
  }
  assert.equal(w.f.outside.redeemed.size, 0);
  const whole = { ...due, ...payment, "mcp-param-amount": "42.0" };
  assert.equal((await w.send(body, { ...(await looking()), headers: whole })).status, 200);
  const nothing = { ...LOOKUP, params: { ...LOOKUP.params, _meta: meta } };
  assert.equal((await w.send(nothing, { ...(await looking()), headers: due })).status, 200, "what is absent is not mirrored");
  const earlier = { "mcp-protocol-version": "2025-11-25" };
  assert.equal((await w.send(bare, { ...(await looking()), headers: earlier })).status, 200, "earlier versions know no such headers");
  assert.equal((await w.send(bare, await looking())).status, 200);
});

test("the stateless version is refused in its own words", async () => {
  const w = await SessionWorld.create();
  const unknown = { ...LIST, method: "tasks/result" };
  const version = { "mcp-protocol-version": "2026-07-28" };
  const { headers: _, ...heard } = await w.refused(404, unknown, { headers: { ...version, "mcp-method": "tasks/result" } });
  assert.deepEqual(heard, { jsonrpc: "2.0", id: "a", error: { code: -32601, message: "Method not found" } });
  assert.equal((await w.refused(403, unknown))["error"], "insufficient_scope");
  const mismatch = await w.refused(400, LIST, { headers: { ...version, "mcp-method": "tools/call" } });
  assert.equal((mismatch["error"] as Loose)["code"], -32020);
  const undeclared = await w.refused(400, LIST, { headers: version });
  assert.match(String((undeclared["error"] as Loose)["message"]), /_meta/);
});

test("nothing is offered that is not let through, and tools as they were approved", async () => {
  const w = await SessionWorld.create();
  const capabilities = { tools: { listChanged: true }, prompts: {}, resources: {}, completions: {}, tasks: {} };
  for (const [method, sessionIds, expected] of [
    ["initialize", ["s1"], { tools: { listChanged: true } }], ["server/discover", [], { tools: { listChanged: true } }],
    // A server that begins no session has no stream on which news of lists could come.
    ["initialize", [], { tools: {} }],
  ] as const) {
    w.sessionIds = [...sessionIds];
    w.answers.set(method, { capabilities, protocolVersion: "2025-11-25" });
    const said = await (await w.send({ jsonrpc: "2.0", id: 1, method, params: {} })).json();
    assert.deepEqual((said["result"] as Loose)["capabilities"], expected);
  }
  const listed = async () => ((await (await w.send(LIST)).json())["result"] as { tools: Loose[] }).tools;
  const [lookup, transfer, refund] = w.live as [Loose, Loose, Loose];
  const unapproved = { name: "unapproved", inputSchema: { type: "object" } };
  w.live = [{ ...lookup, _meta: { ui: "https://evil.example.com" } }, { ...transfer, description: "another" }, refund, unapproved];
  assert.deepEqual(await listed(), [lookup, refund]);
  w.live = [lookup, lookup, refund];
  assert.deepEqual(await listed(), [refund], "a name that stands twice is none");
  w.f.guard.revoke({ kind: "tool", name: "refund" });
  assert.deepEqual(await listed(), [], "what is switched off is not shown");
});

const SAMPLING = { resultType: "input_required", inputRequests: { a: { method: "sampling/createMessage" } } };
for (const answer of [
  "", "not json", "[]", '{"jsonrpc":"1.0","id":1,"result":{}}', '{"jsonrpc":"2.0","id":2,"result":{}}',
  '{"jsonrpc":"2.0","id":"1","result":{}}', '{"jsonrpc":"2.0","id":true,"result":{}}',
  '{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', '{"jsonrpc":"2.0","id":1,"result":[]}', '{"jsonrpc":"2.0","id":1}',
  `{"jsonrpc":"2.0","id":1,"result":{"a":"${"x".repeat(3_000)}"}}`, JSON.stringify({ jsonrpc: "2.0", id: 1, result: SAMPLING }),
]) {
  test(`an answer that is none is not passed on: ${answer.slice(0, 60)}`, async () => {
    const w = await SessionWorld.create({ maxResultBytes: 2_000 });
    w.answers.set("tools/call", answer);
    const sent = await w.send(LOOKUP, await looking());
    assert.deepEqual([sent.status, (await sent.json())["error"]], [502, "server_error"]);
    assert.match(sent.response.headers.get("dpop-nonce") ?? "", /^[\w-]{59}$/);
    // In a stream, an event without data is none.
    if (answer === "") return;
    w.answers.clear();
    w.serve = (stream) => {
      stream.say(answer);
      stream.answer({ late: true });
    };
    const streamed = await w.send(LOOKUP, await looking());
    const said = await streamed.event();
    assert.deepEqual([said?.["id"], (said?.["error"] as Loose)["code"]], [1, -32603]);
    assert.equal(await streamed.event(), undefined);
  });
}

test("a stream without a response ends with an error, and errors of the server are its own", async () => {
  const w = await SessionWorld.create();
  w.serve = (stream) => {
    stream.say({ jsonrpc: "2.0", method: "notifications/message", params: {} }, "c1");
    stream.end();
  };
  const streamed = await w.send(LOOKUP, await looking());
  assert.equal((await streamed.event())?.["method"], "notifications/message");
  assert.equal(((await streamed.event())?.["error"] as Loose)["code"], -32603);
  const error = { jsonrpc: "2.0", id: 1, error: { code: -32602, message: "no" } };
  w.answers.set("tools/call", JSON.stringify(error));
  assert.deepEqual(await (await w.send(LOOKUP, await looking())).json(), error);
  w.answers.set("tools/call", '{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2},"result":{"a":3}}');
  assert.deepEqual(await (await w.send(LOOKUP, await looking())).json(), { jsonrpc: "2.0", id: 1, result: { a: 3 } });
});

test("what would steer a terminal or turn text round is put in plain sight", async () => {
  const w = await SessionWorld.create({ limits: { burst: 100 } });
  for (const [text, shown] of [
    ["plain\ttext\r\n", "plain\ttext\r\n"], ["\u001b[2J\u001b]0;title\u0007", "\ufffd[2J\ufffd]0;title\ufffd"],
    ["\u009b31m\u007f\u0000", "\ufffd31m\ufffd\ufffd"], ["pay_\u202e18\u202c", "pay_\ufffd18\ufffd"],
    ["\u2066a\u2069", "\ufffda\ufffd"], ["a\u{e0001}\u{e0068}\u{e007f}", "a\ufffd\ufffd\ufffd"],
    ["a\u2060b\u2063", "a\ufffdb\ufffd"],
    ["\u845b\u{e0100}\u{f0000}\ufeff\u200c", "\u845b\u{e0100}\u{f0000}\ufeff\u200c"],
    ["\u05e9\u05dc\u200f! é €", "\u05e9\u05dc\u200f! é €"],
  ] as const) {
    const inside = (state: string) => ({ requestState: state, a: [{ requestState: { b: state } }] });
    const result = { content: [{ type: "text", text }], [text]: true, requestState: text, is: inside(text) };
    w.answers.set("tools/call", JSON.stringify({ jsonrpc: "2.0", id: 1, result }));
    const heard = (await (await w.send(LOOKUP, await looking())).json())["result"];
    assert.deepEqual(heard, { content: [{ type: "text", text: shown }], [shown]: true, requestState: shown, is: inside(shown) });
    w.answers.set("tools/call", JSON.stringify({ jsonrpc: "2.0", id: 1, error: { code: -1, message: text } }));
    for (const status of [200, 400]) {
      w.status = status;
      const { error } = await (await w.send(LOOKUP, await looking())).json();
      assert.equal((error as Loose)["message"], shown);
    }
    w.status = 200;
    w.answers.clear();
    w.serve = (stream) => {
      stream.say({ jsonrpc: "2.0", method: "notifications/message", params: { data: text } });
      stream.say({ jsonrpc: "2.0", method: "notifications/message", params: [{ data: text }] });
      stream.answer({ text });
    };
    const streamed = await w.send(LOOKUP, await looking());
    assert.deepEqual((await streamed.event())?.["params"], { data: shown });
    assert.deepEqual((await streamed.event())?.["params"], [{ data: shown }]);
    assert.deepEqual((await streamed.event())?.["result"], { text: shown });
    w.serve = undefined;
  }
});

const [HIDDEN, SEEN] = ["\u001b[2J\u202e", "\ufffd[2J\ufffd"];

test("of a list of tools only the approved definitions are as they came", async () => {
  const w = await SessionWorld.create();
  const result = { tools: w.live, _meta: { note: HIDDEN }, nextCursor: HIDDEN, requestState: HIDDEN };
  w.answers.set("tools/list", JSON.stringify({ jsonrpc: "2.0", id: LIST.id, result }));
  const { tools, ...heard } = (await (await w.send(LIST)).json())["result"] as Loose;
  assert.deepEqual(tools, DEFINITIONS);
  assert.deepEqual(heard, { _meta: { note: SEEN }, nextCursor: SEEN, requestState: SEEN });
});

test("what goes back to the server is as it came where it is asked for", async () => {
  const w = await SessionWorld.create();
  for (const [state, heard] of [
    [HIDDEN, HIDDEN], [{ requestState: HIDDEN }, { requestState: SEEN }], [[HIDDEN], [SEEN]],
  ]) {
    const asked = (text: string) => ({ a: { method: "elicitation/create", params: { message: text, requestState: text } } });
    w.answers.set("tools/call", { resultType: "input_required", requestState: state, inputRequests: asked(HIDDEN) });
    const { result } = await (await w.send(LOOKUP, await looking())).json();
    assert.deepEqual(result, { resultType: "input_required", requestState: heard, inputRequests: asked(SEEN) });
  }
});

const CERTIFICATE = Buffer.from("a certificate of the client's").toString("base64");
const PEM = `-----BEGIN CERTIFICATE-----\n${CERTIFICATE}\n-----END CERTIFICATE-----\n`;
const thumbprint = async (der: string) => encodeBase64url(await sha256(der));

async function bound(w: SessionWorld): Promise<Otherwise & { token: string }> {
  const cnf = { "x5t#S256": await thumbprint("a certificate of the client's") };
  const token = await w.f.sign({ ...w.f.claims(await l3("refund", {})), cnf });
  return { token, headers: { authorization: `Bearer ${token}` }, without: ["dpop"] };
}

test("a token bound to a certificate needs the connection that proved it", async () => {
  const w = await SessionWorld.create();
  const refund = call("refund", {});
  const certificate = await thumbprint("a certificate of the client's");
  for (const otherwise of [{}, { certificate: await thumbprint("another") }]) {
    assert.equal((await w.refused(401, refund, { ...(await bound(w)), ...otherwise }))["error"], "invalid_token");
  }
  const { token } = await bound(w);
  await w.refused(401, refund, { token, certificate });
  await w.refused(401, refund, { token, headers: { authorization: `Bearer ${token}`, "client-cert": `:${CERTIFICATE}:` } });
  assert.equal(w.f.outside.redeemed.size, 0);
  assert.equal((await w.send(refund, { ...(await bound(w)), certificate })).status, 200);
});

test("a proxy may say the certificate where it is trusted to", async () => {
  const w = await SessionWorld.create({ clientCertificateHeader: "Client-Cert" });
  const refund = call("refund", {});
  const said = async (value: string): Promise<Otherwise> => {
    const { token, headers } = await bound(w);
    return { token, headers: { ...headers, "client-cert": value }, without: ["dpop"] };
  };
  for (const value of [`:${CERTIFICATE}:`, encodeURIComponent(PEM)]) {
    assert.equal((await w.send(refund, await said(value))).status, 200);
    assert.equal(w.received.at(-1)?.headers.get("client-cert"), null);
  }
  await w.refused(401, refund, { ...(await bound(w)), certificate: await thumbprint("a certificate of the client's") });
  await w.refused(401, refund, await said(":YW5vdGhlcg==:"));
  for (const broken of [":*:", "nonsense", "%FF", ":", "::"]) await w.refused(400, refund, await said(broken));
});

test("events are read however they are cut and ended, within bounds, and written anew", () => {
  const text = 'event: message\n: comment\nid: 1\ndata:\n\ndata: {"a":\ndata:1}\nid: 2\n\nretry: 500\n\nid: a b\n\ndata: cut';
  const expected = [
    { data: "", id: "1", retryMs: undefined }, { data: '{"a":\n1}', id: "2", retryMs: undefined },
    { data: "", id: undefined, retryMs: 500 },
  ];
  for (const end of ["\n", "\r\n", "\r"]) {
    const bytes = Buffer.from(text.replaceAll("\n", end));
    for (const size of [1, 2, 7, 1_000]) {
      const reader = new EventReader(1_000);
      const read = [];
      for (let at = 0; at < bytes.length; at += size) read.push(...reader.push(bytes.subarray(at, at + size)));
      assert.deepEqual(read, expected);
    }
  }
  const reader = new EventReader(10);
  for (let events = 0; events < 100; events += 1) reader.push(Buffer.from("data: 1\n\n"));
  for (const broken of [Buffer.from("data: 12345678"), Buffer.from([...Buffer.from("data: "), 0xff, 10])]) {
    assert.throws(() => new EventReader(10).push(broken));
  }
  for (const data of ["", "{}", '{"text":"é"}', "a\nb"]) {
    const event = { data, id: "7", retryMs: 3 };
    assert.deepEqual(new EventReader(100).push(Buffer.from(writeEvent(event))), [event]);
  }
});
