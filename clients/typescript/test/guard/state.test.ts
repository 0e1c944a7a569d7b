/** What a guard knows, and what it does when it does not know (H-32). */

import assert from "node:assert/strict";
import { test } from "node:test";
import { KeySet } from "../../src/call/keys.js";
import { Signer } from "../../src/client/signer.js";
import type { Revocation } from "../../src/guard/revocation.js";
import { SnapshotError } from "../../src/guard/pin.js";
import { readSnapshot } from "../../src/guard/snapshot.js";
import type { Verified } from "../../src/guard/verified.js";
import {
  call, DEFINITIONS, digestOf, Draft, Fixture, l0, l1, l2, l3, LIST, type Loose, NOW, passes, refusalOf,
} from "./fixture.js";

async function look(f: Fixture): Promise<Verified> {
  return f.withGrant(await l1("lookup"), call("lookup", {}));
}

async function snapshotProblem(opened: Promise<unknown>): Promise<string> {
  const error = await opened.then(() => undefined, (caught: unknown) => caught);
  assert.ok(error instanceof SnapshotError, String(error));
  return error.problem;
}

test("revocations reach what they name", async () => {
  const cases: ((claims: Loose, f: Fixture) => Revocation)[] = [
    (claims) => ({ kind: "token", jti: claims["jti"] as string }),
    (claims) => ({ kind: "token", jti: claims["pjti"] as string }),
    (claims) => ({ kind: "transaction", txn: claims["txn"] as string }),
    (claims) => ({ kind: "person", sub: claims["sub"] as string }),
    (claims) => ({ kind: "client", client_id: claims["client_id"] as string }),
    () => ({ kind: "actor", sub: "agent:support" }),
    () => ({ kind: "actor", sub: "agent:planner" }),
    () => ({ kind: "tool", name: "lookup" }),
    (_, f) => ({ kind: "key", thumbprint: f.agent.thumbprint }),
    () => ({ kind: "everything" }),
  ];
  for (const revocationOf of cases) {
    const f = await Fixture.create();
    const claims = f.claims(await l1("lookup"));
    const { act: _act, ...without } = f.claims(await l3("refund", {}));
    const other = { ...without, sub: "user:acme:x:bob", client_id: "other" };
    const send = async (of: Loose, tool: string) => f.send(await f.request(await f.sign(of), call(tool, {})));
    assert.ok(await passes(send(claims, "lookup")));
    const revocation = revocationOf(claims, f);
    f.guard.revoke(revocation);
    const refusal = await refusalOf(send(claims, "lookup"));
    assert.deepEqual([refusal.status, refusal.error], [401, "invalid_token"], revocation.kind);
    const reachesAll = revocation.kind === "everything" || revocation.kind === "key";
    assert.equal(await passes(send(other, "refund")), !reachesAll, revocation.kind);
  }
});

test("what is switched off while a token is redeemed does not run", async () => {
  for (const [name, runs] of [["lookup", true], ["refund", false]] as const) {
    const f = await Fixture.create();
    f.outside.meanwhile = () => f.guard.revoke({ kind: "tool", name });
    const refund = async () => f.withGrant(await l3("refund", {}), call("refund", {}));
    assert.equal(await passes(refund()), runs, name);
  }
});

test("silence about revocations stops calls after 60 seconds, whatever is configured", async () => {
  for (const f of [await Fixture.create(), await Fixture.create({ maxRevocationAgeMs: 3_600_000 })]) {
    f.pass(60);
    assert.ok(await passes(look(f)));
    f.pass(1);
    assert.equal((await refusalOf(look(f))).status, 503);
    assert.equal((await refusalOf(f.withGrant(l0(), LIST))).status, 503);
    f.guard.hearRevocations();
    assert.ok(await passes(look(f)));
  }
});

test("a newer snapshot lifts a kill switch and keeps revoked tokens", async () => {
  const f = await Fixture.create();
  const claims = f.claims(await l1("lookup"));
  f.guard.revoke({ kind: "everything" });
  f.guard.revoke({ kind: "token", jti: claims["jti"] as string });
  f.guard.install(await f.snapshot());
  assert.ok(!(await passes(look(f))), "the same version knows nothing of the switch");
  const g = await Fixture.create();
  g.guard.install(await g.snapshot({ revocations: [{ kind: "tool", name: "lookup" }] }));
  assert.ok(!(await passes(look(g))), "the same version, made after a revocation, knows of it");
  f.guard.install(await f.snapshot({ version: 2 }));
  assert.ok(await passes(look(f)));
  assert.equal((await f.refused(await f.request(await f.sign(claims), call("lookup", {})))).status, 401);
});

test("a guard without knowledge refuses", async () => {
  const f = await Fixture.create();
  f.guard = await f.emptyGuard();
  const ask = async () => (await f.refused(new Draft(call("lookup", {})).header("Authorization", "DPoP x"))).status;
  assert.equal(await ask(), 503);
  f.guard.install(await f.snapshot());
  assert.equal((await refusalOf(look(f))).status, 503, "the server's tools were not seen");
  await f.observe(DEFINITIONS);
  assert.ok(await passes(look(f)));
  f.pass(1800);
  f.guard.hearRevocations();
  assert.equal(await ask(), 503, "the snapshot has expired");
});

test("snapshots never go back and never come from elsewhere", async () => {
  const f = await Fixture.create();
  f.guard.install(await f.snapshot({ version: 5 }));
  const install = async (changes: Loose) => f.guard.install(await f.snapshot(changes));
  assert.equal(await snapshotProblem(install({ version: 4 })), "older");
  assert.equal(await snapshotProblem(install({ version: 6, resource: "https://x.example/" })), "other");
  assert.equal(await snapshotProblem(install({ version: 6, issuer: "https://x.example" })), "other");
});

test("snapshots hold within their time and with their tools", async () => {
  const f = await Fixture.create();
  const document = await f.document();
  const [first] = document["tools"] as Loose[];
  const problem = (changes: Loose) => snapshotProblem(f.snapshot(changes));
  assert.equal(await problem({ expires_at: NOW }), "time");
  assert.equal(await problem({ expires_at: NOW + 3600 }), "time");
  assert.equal(await problem({ issued_at: NOW + 61 }), "time");
  assert.equal(await problem({ jwks: { keys: [] } }), "malformed");
  assert.equal(await problem({ more: 1 }), "malformed");
  assert.equal(await problem({ revocations: [{ kind: "person" }] }), "malformed");
  assert.equal(await problem({ revocations: [{ kind: "everything", jti: "x" }] }), "malformed");
  assert.equal(await problem({ tools: [first, first] }), "tool");
  assert.equal(await problem({ tools: [{ ...first, tool_digest: await digestOf("refund") }] }), "tool");
  assert.equal(await problem({ tools: [{ ...first, least_level: "L0" }] }), "tool");
  assert.equal(await snapshotProblem(readSnapshot('{"version":1,"version":2}', NOW)), "malformed");
});

test("a signed snapshot is signed by a configured key", async () => {
  const f = await Fixture.create();
  const signer = await Signer.generate();
  const keys = await KeySet.fromJwks({ keys: [signer.publicJwk] });
  const document = await f.document();
  // The set names no key: one without `kid` is found by its algorithm alone, so the signature's `kid` must not mislead.
  const named = await KeySet.fromJwks({ keys: [{ ...signer.publicJwk, kid: signer.kid }] });
  const signed = await f.signed(document, signer);
  assert.equal((await f.open(signed, named)).version, 1);
  assert.equal(await snapshotProblem(f.open(signed, keys)), "signature");
  assert.equal(await snapshotProblem(f.open(await f.signed(document, f.broker), named)), "signature");
  const altered = { ...signed, snapshot: signed.snapshot.replace('"version":1', '"version":9') };
  assert.equal(await snapshotProblem(f.open(altered, named)), "signature");
  assert.equal(await snapshotProblem(f.open(await f.signed(document, signer, "at+jwt"), named)), "signature");
  assert.equal(await snapshotProblem(f.open(signed, named, NOW + 3600)), "time");
  const unsigned = { snapshot: signed.snapshot, signature: "" };
  assert.equal(await snapshotProblem(f.open(unsigned, named)), "signature");
});

test("a tool that changed or vanished is not called", async () => {
  const f = await Fixture.create();
  for (const change of [
    { description: "lookup." }, { title: "new" }, { annotations: { readOnlyHint: true } }, { inputSchema: { type: "object" } },
  ]) {
    const observed = await f.observe([{ ...DEFINITIONS[0], ...change }, ...DEFINITIONS.slice(1)]);
    assert.deepEqual([observed.drifted.map(({ name }) => name), observed.approved], [["lookup"], ["transfer", "refund"]]);
    assert.equal((await refusalOf(look(f))).status, 403, JSON.stringify(change));
  }
  await f.observe(DEFINITIONS.slice(1));
  assert.equal((await refusalOf(look(f))).status, 403);
  const observed = await f.observe([...DEFINITIONS, { name: "new", inputSchema: {} }, DEFINITIONS[1]]);
  assert.deepEqual([observed.unknown, observed.drifted.map(({ name, live }) => [name, live])], [["new"], [["transfer", undefined]]]);
  assert.ok(await passes(look(f)));
  await f.observe(DEFINITIONS);
  assert.ok(await passes(look(f)), "it may return as it was approved");
});

test("a token for an earlier definition or an unapproved tool is refused", async () => {
  const f = await Fixture.create();
  const stale = { ...(await l1("lookup")), tool_digest: await digestOf("refund") };
  assert.equal((await refusalOf(f.withGrant(stale, call("lookup", {})))).status, 403);
  const unapproved = { ...(await l1("lookup")), identifier: "unapproved" };
  assert.equal((await refusalOf(f.withGrant(unapproved, call("unapproved", {})))).status, 403);
});

test("tokens with counted uses from before the start are refused", async () => {
  const f = await Fixture.create();
  const detail = await l2("transfer", { "/payment_id": { enum: ["a"] } }, 5);
  const counted = async (iat: number) =>
    f.send(await f.request(await f.sign({ ...f.claims(detail), iat, nbf: iat }), call("transfer", { payment_id: "a" })));
  assert.equal((await refusalOf(counted(NOW - 1000 + 4))).status, 401);
  assert.ok(await passes(counted(NOW - 1000 + 5)));
});

test("the count of uses is bounded and forgets only what expired", async () => {
  const f = await Fixture.create({ countedTokens: 4 });
  const detail = { ...(await l1("lookup")), max_uses: 1 };
  const counted = () =>
    f.withGrant(detail, call("lookup", {})).then(() => 200, (refusal: { status: number }) => refusal.status);
  assert.deepEqual([await counted(), await counted(), await counted()], [200, 200, 503]);
  f.pass(71);
  f.guard.hearRevocations();
  assert.equal(await counted(), 200);
});

test("nobody but a guard verifies", async () => {
  const f = await Fixture.create();
  const { constructor } = await look(f);
  assert.throws(() => Reflect.construct(constructor as new () => unknown, [Symbol("made by the guard"), {}, {}]));
});

test("a jump of the clock stops calls until it is back, slow drift does not", async () => {
  const f = await Fixture.create();
  assert.ok(await passes(look(f)));
  for (const jump of [-3, 3]) {
    f.now += jump;
    assert.equal((await refusalOf(look(f))).status, 503);
    f.now -= jump;
    assert.ok(await passes(look(f)));
  }
  const { ClockWatch } = await import("../../src/guard/clocks.js");
  const watch = new ClockWatch();
  for (let second = 0; second < 100_000; second += 1) assert.ok(watch.agree(second * 1000.5, second * 1000), "half a millisecond a second");
  assert.ok(!watch.agree(100_000 * 1000.5 + 3_000, 100_000_000));
  const fast = new ClockWatch();
  assert.ok(fast.agree(0, 0) && !fast.agree(20_000, 10_000), "it is no drift");
});
