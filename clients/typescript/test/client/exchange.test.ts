/** The exchange client against a broker that says what a test wants. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeJwt, decodeProtectedHeader, exportJWK, generateKeyPair, type JWK } from "jose";
import {
  AccessDeniedError, ApprovalPendingError, ConfigurationError, DeputizeClient, DeputizeError, type ExchangeRequest,
  ExchangeError, ProtocolError, RetryLaterError, SignInRequiredError, ToolChangedError, UnreachableError,
} from "../../src/index.js";

const ISSUER = "https://deputize.example.com";
const RESOURCE = "https://crm.example.com/mcp";

interface Asked {
  readonly form: URLSearchParams;
  readonly headers: Headers;
}

/** A broker: answers exchanges with what `answer` says, and keeps what it was asked. */
class Broker {
  readonly asked: Asked[] = [];
  metadata: Record<string, unknown> = { issuer: ISSUER, token_endpoint: `${ISSUER}/token` };
  uptimeMs = 0;

  constructor(private readonly answer: (asked: Asked, nth: number) => Response | Promise<Response>) {}

  async client(changes: Partial<Parameters<typeof DeputizeClient.create>[0]> = {}): Promise<DeputizeClient> {
    const clock = { nowMs: () => 1_800_000_000_000 + this.uptimeMs, uptimeMs: () => this.uptimeMs, uniqueId: () => crypto.randomUUID() };
    return DeputizeClient.create({
      issuer: ISSUER, clientId: "platform", privateKey: await privateKey(), fetch: this.fetch, clock, ...changes,
    });
  }

  private readonly fetch = async (url: string | URL, init?: RequestInit): Promise<Response> => {
    if (String(url).includes("/.well-known/")) return Response.json(this.metadata);
    const asked = { form: new URLSearchParams(String(init?.body)), headers: new Headers(init?.headers) };
    this.asked.push(asked);
    return this.answer(asked, this.asked.length);
  };
}

async function privateKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  return exportJWK(privateKey);
}

let serial = 0;
function granted(detail: Record<string, unknown> = {}, more: Record<string, unknown> = {}): Response {
  serial += 1;
  return Response.json({
    access_token: `token-${serial}`, token_type: "DPoP", expires_in: 60, scope: "x", authorization_details: [detail],
    transaction_id: "txn", decision_id: "decision", ...more,
  });
}

const REQUEST: ExchangeRequest = { resource: RESOURCE, subjectToken: "user.jwt" };
const CALL: ExchangeRequest = { ...REQUEST, detail: { level: "L3", tool: "refund", arguments: { amount: 1 } } };

async function errorOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(() => assert.fail("it was granted"), (error: unknown) => error);
}

test("an exchange says who asks, for whom, for what, and proves a key", async () => {
  const broker = new Broker(() => granted());
  await (await broker.client()).exchange({
    ...CALL, actorToken: "a.b.c", actorTokenType: "id_token", scope: "refund", transactionId: "t-1",
    claimed: { model: "m", traceparent: "00-1" },
  });
  const { form, headers } = broker.asked[0] ?? assert.fail();
  assert.equal(form.get("grant_type"), "urn:ietf:params:oauth:grant-type:token-exchange");
  assert.equal(form.get("subject_token"), "user.jwt");
  assert.equal(form.get("subject_token_type"), "urn:ietf:params:oauth:token-type:jwt");
  assert.equal(form.get("actor_token_type"), "urn:ietf:params:oauth:token-type:id_token");
  assert.deepEqual([form.get("resource"), form.get("scope"), form.get("transaction_id")], [RESOURCE, "refund", "t-1"]);
  assert.deepEqual([form.get("model"), form.get("traceparent")], ["m", "00-1"]);
  assert.deepEqual(JSON.parse(form.get("authorization_details") ?? ""), [
    { type: "mcp_tool_call", locations: [RESOURCE], actions: ["tools/call"], identifier: "refund", arguments: { amount: 1 } },
  ]);
  const assertion = decodeJwt(form.get("client_assertion") ?? "");
  assert.deepEqual([assertion.iss, assertion.sub, assertion.aud], ["platform", "platform", ISSUER]);
  assert.ok((assertion.exp ?? 0) - (assertion.iat ?? 0) <= 300);
  const proof = headers.get("dpop") ?? "";
  const { htm, htu, ath } = decodeJwt(proof);
  assert.deepEqual([htm, htu, ath], ["POST", `${ISSUER}/token`, undefined]);
  const { typ, jwk } = decodeProtectedHeader(proof);
  assert.equal(typ, "dpop+jwt");
  assert.deepEqual(Object.keys(jwk ?? {}).sort(), ["crv", "kty", "x", "y"]);
});

test("every level is asked for as it is written", async () => {
  const broker = new Broker(() => granted());
  const client = await broker.client();
  const detailOf = async (request: ExchangeRequest) => {
    await client.exchange(request);
    return JSON.parse(broker.asked.at(-1)?.form.get("authorization_details") ?? "null") as unknown;
  };
  assert.equal(await detailOf(REQUEST), null);
  const base = { type: "mcp_tool_call", locations: [RESOURCE], actions: ["tools/call"], identifier: "refund" };
  assert.deepEqual(await detailOf({ ...REQUEST, detail: { level: "L1", tool: "refund" } }), [base]);
  const constraints = { "/amount": { maximum: 5 } };
  assert.deepEqual(await detailOf({ ...REQUEST, detail: { level: "L2", tool: "refund", constraints } }), [{ ...base, constraints }]);
  for (const action of ["prompts/get", "resources/read"] as const) {
    const asked = await detailOf({ ...REQUEST, action, detail: { level: "L1", tool: "refund" } });
    assert.deepEqual(asked, [{ ...base, actions: [action] }]);
  }
  const steered = { level: "L3", tool: "refund", arguments: {}, inputResponses: { ok: true }, requestState: "s" } as const;
  assert.deepEqual(await detailOf({ ...REQUEST, detail: steered }), [
    { ...base, arguments: {}, inputResponses: { ok: true }, requestState: "s" },
  ]);
  assert.deepEqual(await detailOf({ ...REQUEST, detail: { level: "L3", tool: "refund", callDigest: "d" } }), [
    { ...base, call_digest: "d" },
  ]);
  await client.exchange({ resource: RESOURCE });
  assert.equal(broker.asked.at(-1)?.form.get("grant_type"), "client_credentials");
});

test("a nonce is answered once, with the same assertion, and kept for the next time", async () => {
  const challenge = (nonce: string) =>
    Response.json({ error: "use_dpop_nonce" }, { status: 400, headers: { "dpop-nonce": nonce } });
  const broker = new Broker((_, nth) => (nth === 1 ? challenge("n-1") : granted()));
  const client = await broker.client();
  await client.exchange(CALL);
  await client.exchange(CALL);
  assert.equal(broker.asked.length, 3);
  const nonces = broker.asked.map(({ headers }) => decodeJwt(headers.get("dpop") ?? "")["nonce"]);
  assert.deepEqual(nonces, [undefined, "n-1", "n-1"]);
  const [first, second, third] = broker.asked.map(({ form }) => form.get("client_assertion"));
  assert.ok(first === second && second !== third);

  const insisting = new Broker((_, nth) => challenge(`n-${nth}`));
  const error = await errorOf((await insisting.client()).exchange(CALL));
  assert.ok(error instanceof ExchangeError && error.error === "use_dpop_nonce");
  assert.equal(insisting.asked.length, 2, "one retry");
});

test("what may serve again does, as long and as often as it may; one call's token never does", async () => {
  const broker = new Broker(({ form }) => {
    const [detail] = JSON.parse(form.get("authorization_details") ?? "[{}]") as Record<string, unknown>[];
    if (detail?.["constraints"] !== undefined) return granted({ max_uses: 2 });
    return granted(detail?.["arguments"] === undefined ? {} : { call_digest: "d", max_uses: 1 });
  });
  const client = await broker.client();
  const tokens = async (request: ExchangeRequest, times: number) => {
    const seen = [];
    for (let i = 0; i < times; i += 1) seen.push((await client.exchange(request)).accessToken);
    return new Set(seen).size;
  };
  const tool: ExchangeRequest = { ...REQUEST, detail: { level: "L1", tool: "refund" } };
  assert.equal(await tokens(REQUEST, 3), 1);
  assert.equal(await tokens(tool, 3), 1);
  assert.equal(await tokens({ ...REQUEST, detail: { level: "L2", tool: "refund", constraints: {} } }, 4), 2);
  assert.equal(await tokens(CALL, 3), 3);
  assert.equal(await tokens({ ...tool, approvalId: "a" }, 2), 2, "what was waited for");
  const held = (await client.exchange(tool)).accessToken;
  assert.notEqual((await client.exchange({ ...tool, subjectToken: "bob.jwt" })).accessToken, held);
  broker.uptimeMs += 54_000;
  assert.equal((await client.exchange(tool)).accessToken, held);
  broker.uptimeMs += 1_000;
  assert.notEqual((await client.exchange(tool)).accessToken, held, "five seconds before its end");
  const token = await client.exchange(tool);
  client.forget(token);
  assert.notEqual((await client.exchange(tool)).accessToken, token.accessToken);
});

test("each refusal is an error of its kind, with the decision and what to do", async () => {
  let answer: () => Response = () => granted();
  const client = await new Broker(() => answer()).client();
  const refusal = async (body: Record<string, unknown>, status = 400, headers: Record<string, string> = {}) => {
    answer = () => Response.json({ decision_id: "d-1", error_description: "say\u0007 why", ...body }, { status, headers });
    const error = await errorOf(client.exchange(CALL));
    assert.ok(error instanceof ExchangeError, String(error));
    assert.deepEqual([error.status, error.decisionId, error.description], [status, "d-1", "say why"]);
    assert.ok(error.whatToDo.length > 5 && error.message.includes("d-1"));
    return error;
  };
  for (const error of ["invalid_request", "invalid_target", "invalid_scope", "invalid_authorization_details", "expired_token"]) {
    assert.equal((await refusal({ error })).error, error);
  }
  const denied = await refusal({ error: "access_denied", reason: "human" });
  assert.ok(denied instanceof AccessDeniedError && denied.reason === "human");
  const unsaid = await refusal({ error: "access_denied", reason: "mood" });
  assert.ok(unsaid instanceof AccessDeniedError && unsaid.reason === "other");
  const pending = await refusal({ error: "authorization_pending", approval_id: "a", approval_uri: "u", interval: 2, expires_in: 300 });
  assert.ok(pending instanceof ApprovalPendingError);
  assert.deepEqual([pending.approvalId, pending.approvalUri, pending.intervalSeconds, pending.expiresInSeconds], ["a", "u", 2, 300]);
  const signIn = await refusal({ error: "insufficient_user_authentication", acr_values: "mfa phr", max_age: 60 });
  assert.ok(signIn instanceof SignInRequiredError);
  assert.deepEqual([signIn.acrValues, signIn.maxAgeSeconds], [["mfa", "phr"], 60]);
  const limited = await refusal({ error: "temporarily_unavailable" }, 429, { "retry-after": "7" });
  assert.ok(limited instanceof RetryLaterError && limited.retryAfterSeconds === 7);
  assert.ok((await refusal({}, 503)) instanceof RetryLaterError);
});

test("an answer that is none is not believed", async () => {
  const bad = async (answer: () => Response) => errorOf((await new Broker(answer).client()).exchange(CALL));
  assert.ok((await bad(() => granted({}, { token_type: "Bearer" }))) instanceof ProtocolError, "not bound to our key");
  assert.ok((await bad(() => granted({}, { access_token: 1 }))) instanceof ProtocolError);
  assert.ok((await bad(() => new Response("<html>"))) instanceof ProtocolError);
  assert.ok((await bad(() => new Response("x".repeat(300_000)))) instanceof ProtocolError);
  const broker = new Broker(() => granted());
  for (const metadata of [
    { issuer: "https://other.example.com", token_endpoint: `${ISSUER}/token` },
    { issuer: ISSUER, token_endpoint: "http://deputize.example.com/token" },
    { issuer: ISSUER, token_endpoint: 1 },
  ]) {
    broker.metadata = metadata;
    assert.ok((await errorOf((await broker.client()).exchange(CALL))) instanceof ProtocolError);
  }
  assert.equal(broker.asked.length, 0);
  const away = await new Broker(() => granted()).client({ fetch: () => Promise.reject(new TypeError("fetch failed")) });
  assert.ok((await errorOf(away.exchange(CALL))) instanceof UnreachableError);
  const slow = await new Broker(() => granted()).client({
    timeoutMs: 20,
    fetch: (_, init) => new Promise((_, reject) => init?.signal?.addEventListener("abort", () => reject(init.signal?.reason))),
  });
  assert.ok((await errorOf(slow.exchange(CALL))) instanceof UnreachableError);
});

test("what was given is checked before anything is sent", async () => {
  const key = await privateKey();
  const created = (changes: Record<string, unknown>) =>
    errorOf(DeputizeClient.create({ issuer: ISSUER, clientId: "c", privateKey: key, ...changes }));
  const { d: _d, ...publicKey } = key;
  for (const changes of [
    { issuer: "http://deputize.example.com" }, { issuer: "https://u:p@deputize.example.com" }, { issuer: "deputize" },
    { privateKey: publicKey }, { privateKey: { kty: "oct", k: "AAAA" } }, { privateKey: { ...key, x: "AAAA" } },
  ]) {
    assert.ok((await created(changes)) instanceof ConfigurationError, JSON.stringify(changes));
  }
  await DeputizeClient.create({ issuer: "http://127.0.0.1:7000", clientId: "c", privateKey: key });
});

test("a token for another definition than the live one is refused", async () => {
  const client = await new Broker(() => granted({ tool_digest: "approved" })).client();
  const error = await errorOf(client.exchange({ ...CALL, liveToolDigest: "live" }));
  assert.ok(error instanceof ToolChangedError);
  assert.deepEqual([error.tool, error.liveDigest, error.approvedDigest, error.decisionId], ["refund", "live", "approved", "decision"]);
  await client.exchange({ ...CALL, liveToolDigest: "approved" });
});

test("a person's decision is waited for, and the wait can be ended", async () => {
  const pending = () =>
    Response.json({ error: "authorization_pending", approval_id: "a-1", approval_uri: "u", interval: 0 }, { status: 400 });
  const broker = new Broker((_, nth) => (nth <= 2 ? pending() : granted({ call_digest: "d" })));
  const told: string[] = [];
  const token = await (await broker.client()).exchangeAndWait(CALL, { onPending: ({ approvalId }) => void told.push(approvalId) });
  assert.equal(token.bindsOneCall, true);
  assert.deepEqual(told, ["a-1"], "once");
  assert.deepEqual(broker.asked.map(({ form }) => form.get("approval_id")), [null, "a-1", "a-1"]);
  assert.deepEqual(broker.asked.map(({ headers }) => headers.get("prefer")), [null, "wait=30", "wait=30"]);

  const refusing = new Broker((_, nth) =>
    nth === 1 ? pending() : Response.json({ error: "access_denied", reason: "human" }, { status: 400 }),
  );
  assert.ok((await errorOf((await refusing.client()).exchangeAndWait(CALL))) instanceof AccessDeniedError);

  const ends = new AbortController();
  const waiting = (await new Broker(pending).client()).exchangeAndWait(CALL, {
    onPending: () => ends.abort(new DeputizeError("given up", "nothing")),
    signal: ends.signal,
  });
  assert.equal(await errorOf(waiting), ends.signal.reason);
});
