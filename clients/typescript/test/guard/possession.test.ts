/** A token for this server from the holder of its key, and each neighbour that is not (H-22). */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Signer } from "../../src/client/signer.js";
import type { Verified } from "../../src/guard/verified.js";
import { call, Draft, Fixture, l1, type Loose, NOW, passes, type ProofChanges, refusalOf } from "./fixture.js";

const BODY = call("lookup", {});

async function withClaims(f: Fixture, changes: Loose): Promise<Verified> {
  const claims = { ...f.claims(await l1("lookup")), ...changes };
  return f.send(await f.request(await f.sign(claims), BODY));
}

async function withRequest(f: Fixture, change: (token: string, draft: Draft) => unknown): Promise<Verified> {
  const token = await f.sign(f.claims(await l1("lookup")));
  const draft = await f.request(token, BODY);
  await change(token, draft);
  return f.send(draft);
}

async function invalidToken(verified: Promise<Verified>): Promise<void> {
  const refusal = await refusalOf(verified);
  assert.deepEqual([refusal.status, refusal.error], [401, "invalid_token"], refusal.message);
  assert.match(
    refusal.challenges[0] ?? "",
    /^DPoP resource_metadata="https:\/\/pay\.example\.com\/\.well-known\/oauth-protected-resource\/mcp"/,
  );
}

async function invalidProof(verified: Promise<Verified>): Promise<void> {
  const refusal = await refusalOf(verified);
  assert.deepEqual([refusal.status, refusal.error], [401, "invalid_dpop_proof"], refusal.message);
}

test("a token of this broker, for this server, within its time", async () => {
  const f = await Fixture.create();
  assert.ok(await passes(withClaims(f, {})));
  await invalidToken(withClaims(f, { iss: "https://other.example.com" }));
  await invalidToken(withClaims(f, { tenant: "other" }));
  await invalidToken(withClaims(f, { exp: NOW - 30 }));
  await invalidToken(withClaims(f, { nbf: NOW + 30, iat: NOW + 30 }));
  const elsewhere = "https://crm.example.com/mcp";
  const detail = { ...(await l1("lookup")), locations: [elsewhere] };
  await invalidToken(withClaims(f, { aud: elsewhere, authorization_details: [detail] }));
  assert.ok(await passes(withClaims(f, { iat: NOW - 60, nbf: NOW - 60, exp: NOW - 3 })), "within the leeway");
});

test("another signer or kind of token is refused", async () => {
  const f = await Fixture.create();
  const claims = f.claims(await l1("lookup"));
  const other = await Signer.generate();
  for (const token of [
    await other.sign("at+jwt", claims),
    await f.broker.sign("JWT", claims),
    await f.broker.sign("deputize-snapshot+jwt", claims),
    `${await f.sign(claims)}x`,
    "x".repeat(20_000),
    "a.b.c",
  ]) {
    await invalidToken(f.send(await f.request(token, BODY)));
  }
});

test("one authorization header with the right scheme", async () => {
  const f = await Fixture.create();
  assert.ok(await passes(withRequest(f, (token, draft) => draft.replace("Authorization", `dpop ${token}`))));
  await invalidToken(withRequest(f, (token, draft) => draft.replace("Authorization", `Bearer ${token}`)));
  await invalidToken(withRequest(f, (token, draft) => draft.replace("Authorization", token)));
  const twice = await refusalOf(withRequest(f, (token, draft) => draft.header("authorization", `DPoP ${token}`)));
  assert.equal(twice.status, 400);
  const none = await f.refused(new Draft(BODY));
  assert.deepEqual([none.status, none.error], [401, ""]);
  // RFC 6750 §3.1: no error code where there was no token.
  assert.doesNotMatch(none.challenges[0] ?? "error=", /error=/);
});

test("a proof for this request, token and key", async () => {
  const f = await Fixture.create();
  const other = await Signer.generate();
  const proved = (changes: ProofChanges, key?: Signer) =>
    withRequest(f, async (token, draft) => draft.replace("DPoP", await f.proof(token, changes, key)));
  assert.ok(await passes(proved({})));
  await invalidProof(proved({}, other));
  await invalidProof(proved({ accessToken: null }));
  await invalidProof(proved({ accessToken: "another" }));
  await invalidProof(proved({ htm: "GET" }));
  await invalidProof(proved({ htu: "https://pay.example.com/other" }));
  await invalidProof(proved({ htu: "https://evil.example.com/mcp" }));
  await invalidProof(proved({ iat: NOW - 61 }));
  await invalidProof(proved({ iat: NOW + 61 }));
  assert.ok(await passes(proved({ iat: NOW + 60 })));
  await invalidProof(withRequest(f, (_, draft) => draft.replace("DPoP", "rubbish")));
  await invalidProof(withRequest(f, (_, draft) => (draft.headers = draft.headers.filter(([name]) => name !== "DPoP"))));
  const twice = withRequest(f, async (token, draft) => draft.header("dpop", await f.proof(token)));
  assert.equal((await refusalOf(twice)).status, 400);
  // Host and forwarding headers decide nothing.
  await invalidProof(
    withRequest(f, async (token, draft) => {
      draft.header("Host", "evil.example.com").header("X-Forwarded-Host", "evil.example.com");
      draft.replace("DPoP", await f.proof(token, { htu: "https://evil.example.com/mcp" }));
    }),
  );
});

test("a proof serves once, and a challenge consumes nothing", async () => {
  const f = await Fixture.create();
  const token = await f.sign(f.claims(await l1("lookup")));
  const request = async (changes: ProofChanges) =>
    (await f.request(token, BODY)).replace("DPoP", await f.proof(token, changes));
  const challenged = await f.refused(await request({ nonce: null, jti: "j1" }));
  assert.deepEqual([challenged.status, challenged.error], [401, "use_dpop_nonce"]);
  const proved = await request({ nonce: challenged.dpopNonce ?? "", jti: "j2" });
  const verified = await f.send(proved);
  await invalidProof(f.send(proved));
  // The answer brings a nonce that is good for the next request.
  assert.ok(await passes(f.send(await request({ nonce: verified.nextNonce, jti: "j3" }))));
});

test("nonces of others and of long ago are challenged", async () => {
  const f = await Fixture.create();
  const foreign = await (await Fixture.create()).nonce();
  const stale = await f.nonce();
  f.pass(121);
  f.guard.hearRevocations();
  const altered = stale.replace(/.$/, (last) => (last === "A" ? "E" : "A"));
  for (const nonce of [foreign, stale, altered, "made-up"]) {
    const token = await f.sign(f.claims(await l1("lookup")));
    const draft = (await f.request(token, BODY)).replace("DPoP", await f.proof(token, { nonce }));
    const refusal = await f.refused(draft);
    assert.deepEqual([refusal.status, refusal.error], [401, "use_dpop_nonce"]);
  }
});

test("full memories refuse and never forget", async () => {
  const f = await Fixture.create({ proofCapacity: 4 });
  const statuses = [];
  for (let i = 0; i < 3; i += 1) {
    statuses.push(await withClaims(f, {}).then(() => 200, (refusal: { status: number }) => refusal.status));
  }
  assert.deepEqual(statuses, [200, 200, 503]);
});

test("a certificate-bound token needs its certificate", async () => {
  const f = await Fixture.create();
  const { thumbprint } = f.agent;
  const token = await f.sign({ ...f.claims(await l1("lookup")), cnf: { "x5t#S256": thumbprint } });
  const draft = new Draft(BODY).header("Authorization", `Bearer ${token}`);
  await invalidToken(f.send(draft));
  draft.certificate = "another";
  await invalidToken(f.send(draft));
  draft.certificate = thumbprint;
  assert.ok(await passes(f.send(draft)));
  await invalidToken(f.send(draft.replace("Authorization", `DPoP ${token}`)));
});
