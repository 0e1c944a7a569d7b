/** What is not exactly one request is refused before anything is asked of the token (H-31). */

import assert from "node:assert/strict";
import { test } from "node:test";
import { call, type Draft, Fixture, l0, l1, LIST, type Loose, passes, refusalOf } from "./fixture.js";

async function granted(f: Fixture, change: (draft: Draft) => void): Promise<number> {
  const draft = await f.request(await f.sign(f.claims(await l1("lookup"))), call("lookup", { payment_id: "p" }));
  change(draft);
  return f.send(draft).then(() => 200, (refusal: { status: number }) => refusal.status);
}

async function bodyRefused(f: Fixture, body: string): Promise<void> {
  const draft = await f.request(await f.sign(f.claims(await l1("lookup"))), body);
  const refusal = await f.refused(draft);
  assert.deepEqual([refusal.status, refusal.error], [400, "invalid_request"], body);
}

test("one request is one call", async () => {
  const f = await Fixture.create();
  assert.equal(await granted(f, () => undefined), 200);
  const one = JSON.stringify(call("lookup", {}));
  for (const body of [
    `[${one},${one}]`, `[${one}]`, "[]", `${one}${one}`, `${one} x`, `${one}\n${one}`, one.slice(0, -1), "", "null",
    '"tools/call"', `\ufeff${one}`,
  ]) {
    await bodyRefused(f, body);
  }
  const withByte = (byte: number) => (draft: Draft) => (draft.body = Buffer.concat([draft.body, Buffer.from([byte])]));
  assert.equal(await granted(f, withByte(0xff)), 400);
  assert.equal(await granted(f, withByte(0)), 400);
  // White space around one value is still one value.
  assert.equal(await granted(f, withByte(0x0a)), 200);
});

test("nothing stands twice or beside", async () => {
  const f = await Fixture.create();
  const head = '{"jsonrpc":"2.0","id":1,"method":"tools/call"';
  for (const body of [
    `${head},"method":"ping","params":{"name":"lookup"}}`,
    `${head},"params":{"name":"refund","name":"lookup"}}`,
    `${head},"params":{"name":"lookup","arguments":{"note":"a","note":"b"}}}`,
    `${head},"params":{"name":"lookup","arguments":{"note":"a","\\u006eote":"b"}}}`,
    `${head},"Method":"ping","params":{"name":"lookup"}}`,
    `${head},"params":{"name":"lookup","task":{}}}`,
    `${head},"params":{"name":"lookup"},"result":{}}`,
    `${head},"params":{"name":"lookup","arguments":{"amount_cents":1e300}}}`,
    `${head},"params":{"name":"lookup","arguments":{"amount_cents":9007199254740993.0}}}`,
    `${head},"params":{"name":"lookup","arguments":{"note":"\\ud800"}}}`,
    `${head},"params":{"name":"lookup","__proto__":{}}}`,
  ]) {
    await bodyRefused(f, body);
  }
});

test("every member has its type", async () => {
  const f = await Fixture.create();
  const ids = [{}, [], null, true, 1.5];
  for (const id of ids) await bodyRefused(f, JSON.stringify({ ...call("lookup", {}), id }));
  await bodyRefused(f, JSON.stringify(call("lookup", {})).replace('"id":1', '"id":1.0'));
  for (const jsonrpc of ["1.0", 2, null]) await bodyRefused(f, JSON.stringify({ ...call("lookup", {}), jsonrpc }));
  for (const method of [1, null, ["tools/call"]]) {
    await bodyRefused(f, JSON.stringify({ ...call("lookup", {}), method }));
  }
  for (const params of [[], "lookup", null]) await bodyRefused(f, JSON.stringify({ ...call("lookup", {}), params }));
  for (const params of [
    { name: 1 }, { name: null }, { name: ["lookup"] }, {}, { name: "lookup", arguments: [] },
    { name: "lookup", arguments: "x" }, { name: "lookup", arguments: null }, { name: "lookup", _meta: [] },
  ] as Loose[]) {
    await bodyRefused(f, JSON.stringify({ ...call("lookup", {}), params }));
  }
});

test("a notification smuggles no call", async () => {
  const f = await Fixture.create();
  const { id: _id, ...smuggled } = call("lookup", {});
  await bodyRefused(f, JSON.stringify(smuggled));
  const asking = { jsonrpc: "2.0", id: 1, method: "notifications/cancelled" };
  assert.equal((await refusalOf(f.withGrant(l0(), asking))).status, 400);
  const notification = { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 1 } };
  assert.equal((await f.withGrant(l0(), notification)).kind, "listing");
  assert.equal((await refusalOf(f.withGrant(await l1("lookup"), notification))).error, "insufficient_scope");
});

test("a server is not told that it could borrow the client's model", async () => {
  const f = await Fixture.create();
  const capabilities = { sampling: {}, elicitation: {} };
  const _meta = { "io.modelcontextprotocol/clientCapabilities": capabilities };
  const initialize = { jsonrpc: "2.0", id: 1, method: "initialize", params: { capabilities } };
  for (const verified of [
    await f.withGrant(l0(), initialize),
    await f.withGrant(await l1("lookup"), { ...call("lookup", {}), params: { name: "lookup", _meta } }),
  ]) {
    assert.match(verified.rebuiltBody(), /elicitation/);
    assert.doesNotMatch(verified.rebuiltBody(), /sampling/);
  }
});

test("unknown methods have no token", async () => {
  const f = await Fixture.create();
  for (const method of [
    "resources/subscribe", "completion/complete", "sampling/createMessage", "tools/Call", "", "tools/call ",
  ]) {
    const body = { jsonrpc: "2.0", id: 1, method, params: { name: "lookup" } };
    for (const grant of [l0(), await l1("lookup")]) {
      assert.equal((await refusalOf(f.withGrant(grant, body))).status, 403, method);
    }
  }
});

test("sizes, methods and media types are bounded", async () => {
  const f = await Fixture.create({ maxBodyBytes: 1000 });
  const long = JSON.stringify(call("lookup", { note: "x".repeat(1000) }));
  assert.equal(await granted(f, (draft) => (draft.body = Buffer.from(long))), 413);
  for (const method of ["GET", "PUT", "DELETE", "post"]) {
    assert.equal(await granted(f, (draft) => (draft.method = method)), 405);
  }
  for (const media of ["text/plain", "application/json; charset=utf-16", "application/json-patch+json", ""]) {
    assert.equal(await granted(f, (draft) => void draft.replace("Content-Type", media)), 415);
  }
  for (const media of ["Application/JSON", "application/json; charset=UTF-8"]) {
    assert.equal(await granted(f, (draft) => void draft.replace("Content-Type", media)), 200, media);
  }
  for (const encoding of ["gzip", "br", "identity, gzip"]) {
    assert.equal(await granted(f, (draft) => void draft.header("Content-Encoding", encoding)), 415);
  }
  const deep = Array.from({ length: 40 }).reduce<unknown>((inner) => [inner], 1);
  assert.equal((await refusalOf(f.withGrant(await l1("lookup"), call("lookup", { note: deep })))).status, 400);
});

test("headers say what the body says", async () => {
  const f = await Fixture.create();
  const send = (headers: [string, string][]) =>
    granted(f, (draft) => headers.forEach(([name, value]) => draft.header(name, value)));
  assert.equal(await send([["Mcp-Method", "tools/call"], ["mcp-name", "lookup"], ["Mcp-Param-Payment", "p"]]), 200);
  assert.equal(await send([["Mcp-Name", `=?base64?${btoa("lookup")}?=`], ["Mcp-Param-Payment", "=?base64?cA==?="]]), 200);
  for (const wrong of [
    [["Mcp-Method", "tools/list"]],
    [["Mcp-Method", "Tools/Call"]],
    [["Mcp-Name", "refund"]],
    [["Mcp-Name", ""]],
    [["Mcp-Name", `=?base64?${btoa("refund")}?=`]],
    [["Mcp-Name", "=?base64?/w==?="]],
    [["Mcp-Name", "=?base64?bG9va3Vw"], ["Mcp-Name", "?="]],
    [["Mcp-Name", "=?base64?bG9va3Vx?="]],
    [["Mcp-Name", "=?base64?bG9va3Vw=?="]],
    [["Mcp-Name", "lookup"], ["mcp-name", "lookup"]],
    [["Mcp-Param-Payment", "q"]],
    [["Mcp-Param-Payment", "p"], ["mcp-param-payment", "p"]],
    [["Mcp-Param-Other", "p"]],
  ] as [string, string][][]) {
    assert.equal(await send(wrong), 400, JSON.stringify(wrong));
  }
  const amount = async (value: string) => {
    const token = await f.sign(f.claims(await l1("lookup")));
    const draft = await f.request(token, JSON.stringify(call("lookup", { amount_cents: 0 })).replace(":0", ":42.0"));
    return passes(f.send(draft.header("Mcp-Param-Amount", value)));
  };
  for (const [value, equal] of [["42", true], ["42.0", true], ["4.2e1", true], ["42.1", false], ["", false], ["0x2a", false], [" 42", false]] as const) {
    assert.equal(await amount(value), equal, value);
  }
  const named = (await f.request(await f.sign(f.claims(l0())), LIST)).header("Mcp-Name", "lookup");
  assert.ok(!(await passes(f.send(named))));
});
