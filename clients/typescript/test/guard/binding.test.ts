/** A grant is good for what it names (H-30), at every level. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import type { Refusal } from "../../src/guard/refusal.js";
import { LISTING_METHODS } from "../../src/guard/message.js";
import type { Verified } from "../../src/guard/verified.js";
import {
  call, Draft, Fixture, l0, l1, l2, l3, type Loose, passes, refusalOf, RESOURCE, verifiedCall,
} from "./fixture.js";

async function outOfScope(verified: Promise<Verified>): Promise<Refusal> {
  const refusal = await refusalOf(verified);
  assert.deepEqual([refusal.status, refusal.error], [403, "insufficient_scope"], refusal.message);
  return refusal;
}

const REFUND = { payment_id: "pay_81", amount_cents: 4200, lines: [{ sku: "a", n: 1 }] };

test("L3 admits the one call and nothing beside it", async () => {
  const f = await Fixture.create();
  const once = await verifiedCall(f.withGrant(await l3("refund", REFUND), call("refund", REFUND)));
  assert.deepEqual([once.tool, once.level], ["refund", "L3"]);
  assert.equal(JSON.stringify(once.arguments), JSON.stringify(REFUND));
  for (const other of [
    { ...REFUND, payment_id: "pay_82" },
    { ...REFUND, amount_cents: 4201 },
    { payment_id: "pay_81", amount_cents: 4200 },
    { ...REFUND, note: "" },
    { ...REFUND, lines: [] },
    { ...REFUND, lines: [{ sku: "a", n: 1 }, { sku: "b" }] },
    {},
  ]) {
    const refusal = await outOfScope(f.withGrant(await l3("refund", REFUND), call("refund", other)));
    // It says what would be needed, and that is exactly what was sent.
    const needed = [
      { type: "mcp_tool_call", locations: [RESOURCE], actions: ["tools/call"], identifier: "refund", arguments: other },
    ];
    assert.equal(JSON.stringify(refusal.body()["authorization_details"]), JSON.stringify(needed));
    assert.match(refusal.challenges[0] ?? "", /scope="refund"/);
  }
  await outOfScope(f.withGrant(await l3("refund", REFUND), call("transfer", REFUND)));
});

test("the order of members is nothing", async () => {
  const f = await Fixture.create();
  const reordered = { lines: [{ n: 1, sku: "a" }], amount_cents: 4200, payment_id: "pay_81" };
  assert.ok(await passes(f.withGrant(await l3("refund", REFUND), call("refund", reordered))));
});

test("numbers are equal as the canonical form has them", async () => {
  const f = await Fixture.create();
  for (const [written, equal] of [
    ["1", true], ["1.0", true], ["1e0", true], ["10e-1", true], ["1.1", false], ["-1", false],
  ] as const) {
    const body = JSON.stringify(call("refund", { amount_cents: "?" })).replace('"?"', written);
    assert.equal(await passes(f.withGrant(await l3("refund", { amount_cents: 1 }), body)), equal, written);
  }
});

test("an L3 token is used once", async () => {
  const f = await Fixture.create();
  const token = await f.sign(f.claims(await l3("refund", REFUND)));
  assert.ok(await passes(f.send(await f.request(token, call("refund", REFUND)))));
  const again = await f.refused(await f.request(token, call("refund", REFUND)));
  assert.deepEqual([again.status, again.error], [401, "invalid_token"]);
});

test("of many uses at once, one passes", async () => {
  const f = await Fixture.create();
  const token = await f.sign(f.claims(await l3("refund", REFUND)));
  const drafts = await Promise.all(Array.from({ length: 20 }, () => f.request(token, call("refund", REFUND))));
  const outcomes = await Promise.all(drafts.map((draft) => passes(f.send(draft))));
  assert.equal(outcomes.filter(Boolean).length, 1);
});

test("a token that cannot be redeemed does not pass", async () => {
  const f = await Fixture.create();
  for (const [answer, status] of [["already_used", 401], ["revoked", 401], ["unavailable", 503]] as const) {
    f.outside.redemption = answer;
    const refusal = await refusalOf(f.withGrant(await l3("refund", REFUND), call("refund", REFUND)));
    assert.equal(refusal.status, status);
  }
  f.outside.redemption = "redeemed";
  assert.ok(await passes(f.withGrant(await l3("refund", REFUND), call("refund", REFUND))));
});

test("a call that cannot run spends no token", async () => {
  const f = await Fixture.create();
  const token = await f.sign(f.claims(await l3("refund", REFUND)));
  const send = async (body: unknown) => f.send(await f.request(token, body));
  f.outside.admission = "unavailable";
  const down = await refusalOf(send(call("refund", REFUND)));
  assert.deepEqual([down.status, down.retryAfterSeconds], [503, 1]);
  f.outside.admission = { retryAfterSeconds: 7 };
  const limited = await refusalOf(send(call("refund", REFUND)));
  assert.deepEqual([limited.status, limited.retryAfterSeconds], [429, 7]);
  f.outside.admission = "ready";
  await outOfScope(send(call("refund", {})));
  await outOfScope(send(call("lookup", REFUND)));
  assert.equal(f.outside.redeemed.size, 0);
  assert.ok(await passes(send(call("refund", REFUND))));
});

test("steering a retry is part of the call", async () => {
  const f = await Fixture.create();
  const steer = (body: { params: Loose } & Loose, more: Loose) => ({ ...body, params: { ...body.params, ...more } });
  const inputResponses = { confirm: true };
  await outOfScope(f.withGrant(await l3("refund", REFUND), steer(call("refund", REFUND), { inputResponses })));
  const state = steer(call("refund", REFUND), { requestState: "s" });
  await outOfScope(f.withGrant(await l3("refund", REFUND), state));
  const constraints = {
    "/payment_id": { enum: ["pay_81"] }, "/amount_cents": { maximum: 5000 },
    "/lines/0/sku": { enum: ["a"] }, "/lines/0/n": { enum: [1] },
  };
  const transfer = call("transfer", REFUND);
  assert.ok(await passes(f.withGrant(await l2("transfer", constraints, 1), transfer)));
  await outOfScope(f.withGrant(await l2("transfer", constraints, 1), steer(transfer, { inputResponses })));
  // `_meta` and the id are outside: retries change them.
  const retried = { ...steer(call("refund", REFUND), { _meta: { progressToken: 7 } }), id: "another" };
  assert.ok(await passes(f.withGrant(await l3("refund", REFUND), retried)));
});

test("L2 admits what its constraints admit, as often as it says", async () => {
  const f = await Fixture.create();
  const constraints = { "/payment_id": { enum: ["a", "b"] }, "/amount_cents": { minimum: 1, maximum: 100 } };
  const token = await f.sign(f.claims(await l2("transfer", constraints, 2)));
  const send = async (args: unknown) => f.send(await f.request(token, call("transfer", args)));
  await outOfScope(send({ payment_id: "c", amount_cents: 5 }));
  await outOfScope(send({ payment_id: "a", amount_cents: 101 }));
  await outOfScope(send({ payment_id: "a", amount_cents: 5, note: "unconstrained" }));
  await outOfScope(send({ payment_id: "a" }));
  assert.ok(await passes(send({ payment_id: "a", amount_cents: 5 })));
  assert.ok(await passes(send({ payment_id: "b", amount_cents: 100 })));
  const spent = await refusalOf(send({ payment_id: "a", amount_cents: 5 }));
  assert.deepEqual([spent.status, spent.error], [401, "invalid_token"]);
});

test("a tool never takes a looser token than its least level", async () => {
  const f = await Fixture.create();
  const constraints = { "/payment_id": { enum: ["pay_81"] } };
  const args = { payment_id: "pay_81" };
  for (const [tool, grant, expected] of [
    ["lookup", l0(), false],
    ["lookup", await l1("lookup"), true],
    ["lookup", await l3("lookup", args), true],
    ["transfer", await l1("transfer"), false],
    ["transfer", await l2("transfer", constraints, 1), true],
    ["refund", await l1("refund"), false],
    ["refund", await l2("refund", constraints, 1), false],
    ["refund", await l3("refund", args), true],
  ] as const) {
    assert.equal(await passes(f.withGrant(grant, call(tool, args))), expected, `${tool} ${JSON.stringify(grant)}`);
  }
});

test("L0 looks, and nothing else looks", async () => {
  const f = await Fixture.create();
  for (const method of LISTING_METHODS) {
    const body = { jsonrpc: "2.0", id: 1, method, params: { notifications: {} } };
    const listing = await f.withGrant(l0(), body);
    assert.ok(listing.kind === "listing" && listing.method === method);
    await outOfScope(f.withGrant(await l1("lookup"), body));
    await outOfScope(f.withGrant(await l3("refund", REFUND), body));
  }
});

test("arguments satisfy the schema with nothing unknown", async () => {
  const f = await Fixture.create();
  for (const [args, valid] of [
    [{ payment_id: "p" }, true],
    [{ payment_id: 1 }, false],
    [{ unknown: 1 }, false],
    [{ lines: [{ sku: 1, unknown: 2 }] }, false],
  ] as const) {
    assert.equal(await passes(f.withGrant(await l1("lookup"), call("lookup", args))), valid, JSON.stringify(args));
    // Even a token for exactly these arguments does not make them valid.
    assert.equal(await passes(f.withGrant(await l3("refund", args), call("refund", args))), valid);
  }
});

test("what is passed on is what was verified", async () => {
  const f = await Fixture.create();
  const body =
    ' { "params" : {"arguments":{"note":"\\u0041"},"name":"lookup"},"method":"tools/call","id":7,"jsonrpc":"2.0" } ';
  const token = await f.sign(f.claims(await l1("lookup")));
  const verified = await verifiedCall(f.send((await f.request(token, body)).header("Mcp-Name", "lookup")));
  assert.deepEqual(JSON.parse(verified.rebuiltBody()), {
    jsonrpc: "2.0", id: 7, method: "tools/call", params: { name: "lookup", arguments: { note: "A" } },
  });
  assert.equal(verified.token, token);
  assert.ok(!inspect(verified, { showHidden: true, depth: 9 }).includes(token));
});

test("errors name no values", async () => {
  const f = await Fixture.create();
  const canary = { payment_id: ["canary-value"] };
  const refusal = await refusalOf(f.withGrant(await l1("lookup"), call("lookup", canary)));
  assert.doesNotMatch(refusal.description + refusal.challenges.join(), /canary/);
});

test("a name that would break a header does not", async () => {
  const f = await Fixture.create();
  const refusal = await f.refused(new Draft(call('x"\r\n\u0000é', {})).header("Authorization", "DPoP x"));
  new Response(null, { headers: { "www-authenticate": refusal.challenges[0] ?? "" } });
});
