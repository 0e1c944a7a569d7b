/** AWS credentials of a call: asked for once, for this call alone, kept until they end, shown to nobody. */

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { inspect } from "node:util";
import { EC2Client, RebootInstancesCommand } from "@aws-sdk/client-ec2";
import { GetCallerIdentityCommand, STSClient } from "@aws-sdk/client-sts";
import type { AwsCredentialIdentityProvider } from "@smithy/types";
import { type AwsCredentialsProvider, Kept } from "../../src/aws/credentials.js";
import { callDigest } from "../../src/call/digest.js";
import { parseObject } from "../../src/call/json.js";
import {
  AccessDeniedError, AwsCredentialsExpiredError, ConfigurationError, ExchangeError, ProtocolError, RetryLaterError,
  UnreachableError,
} from "../../src/client/errors.js";
import type { VerifiedCall } from "../../src/guard/verified.js";
import { call, Fixture, get, l1, l3, type Loose, material, PROMPTS, promptToken, verifiedCall } from "../guard/fixture.js";
import { accessKeyOf, Aws, AwsBroker, ShiftedClock } from "./broker.js";

const REFUND = { payment_id: "pay_81", amount_cents: 4200 };
let aws: Aws;
before(async () => void (aws = await Aws.start()));
after(() => aws.close());
beforeEach(() => void aws.signedBy.splice(0));

/** A guard whose calls have a way to a broker. */
async function lab(): Promise<{ f: Fixture; broker: AwsBroker; refund: (args?: Loose, jti?: string) => Promise<VerifiedCall> }> {
  const f = await Fixture.create();
  const clock = { nowMs: () => f.now * 1000, uptimeMs: () => f.uptimeMs, uniqueId: () => crypto.randomUUID() };
  const broker = await AwsBroker.create(clock);
  const client = await broker.client();
  f.outside.awsCredentials = (request) => client.awsCredentials(request);
  const refund = async (args: Loose = REFUND, jti = "jti-1") => {
    const token = await f.sign({ ...f.claims(await l3("refund", args)), jti });
    return verifiedCall(f.send(await f.request(token, call("refund", args))));
  };
  return { f, broker, refund };
}

/** A provider by the real clock, which the SDK goes by, and a broker behind it. */
async function realTime(): Promise<{ clock: ShiftedClock; broker: AwsBroker; provider: AwsCredentialsProvider }> {
  const { refund } = await lab();
  const clock = new ShiftedClock();
  const broker = await AwsBroker.create(clock);
  const [{ token }, client] = [await refund(), await broker.client()];
  return { clock, broker, provider: new Kept(() => client.awsCredentials({ token, arguments: REFUND }), clock).provider };
}

function sts(credentials: AwsCredentialsProvider): STSClient {
  return new STSClient({ region: "eu-central-1", endpoint: aws.endpoint, credentials, maxAttempts: 1 });
}

test("what is asked with is the call, and what was verified", async () => {
  const { f, broker, refund } = await lab();
  const verified = await refund();
  assert.equal(broker.asked.length, 0, "nothing is asked before somebody wants it");
  (verified.arguments as Loose)["amount_cents"] = 1;
  const given = await verified.awsCredentials()();
  assert.deepEqual({ ...given, toJSON: undefined }, {
    accessKeyId: accessKeyOf("jti-1"), secretAccessKey: "secret/of+jti-1", sessionToken: "session-of-jti-1==",
    expiration: new Date((f.now + 300) * 1000), accountId: "111122223333", decisionId: "decision-jti-1", toJSON: undefined,
  });
  const [form] = broker.asked;
  assert.equal(form?.get("subject_token"), verified.token);
  assert.deepEqual(JSON.parse(form?.get("arguments") ?? ""), REFUND, "whatever a tool makes of its arguments");
  for (const name of ["input_responses", "request_state", "template"]) assert.equal(form?.get(name), null);
});

test("what steers a retry is asked with", async () => {
  const { f, broker } = await lab();
  const steering = { inputResponses: { q: { action: "accept" } }, requestState: "s" };
  const digest = await callDigest({ method: "tools/call", name: "refund", arguments: REFUND, ...steering });
  const body = call("refund", REFUND);
  Object.assign(body.params, steering);
  const verified = await verifiedCall(f.withGrant({ ...(await l1("refund")), call_digest: digest, max_uses: 1 }, body));
  await verified.awsCredentials()();
  assert.deepEqual(JSON.parse(broker.asked[0]?.get("input_responses") ?? ""), steering.inputResponses);
  assert.equal(broker.asked[0]?.get("request_state"), '"s"');
});

test("with other arguments there are none", async () => {
  const { broker, refund } = await lab();
  const { token } = await refund();
  const client = await broker.client();
  for (const args of [{ ...REFUND, amount_cents: 4201 }, {}, { ...REFUND, note: "n" }]) {
    const refused = await rejection(client.awsCredentials({ token, arguments: args }), ExchangeError);
    assert.equal(refused.error, "invalid_request");
    assert.match(refused.whatToDo, /with that call's arguments/);
  }
  await client.awsCredentials({ token, arguments: REFUND, template: "restart" });
  assert.equal(broker.asked.at(-1)?.get("template"), "restart");
});

test("the SDK signs all it sends with one request to the broker", async () => {
  const { clock, broker, provider } = await realTime();
  // What the SDK's own types want.
  const typed: AwsCredentialIdentityProvider = provider;
  const clients = [sts(typed as AwsCredentialsProvider), sts(provider)];
  for (const seconds of [0, 1, 60, 230]) {
    clock.shiftMs += seconds * 1000;
    for (const client of clients) {
      const { Arn } = await client.send(new GetCallerIdentityCommand({}));
      assert.match(Arn ?? "", new RegExp(accessKeyOf("jti-1")));
    }
  }
  const ec2 = new EC2Client({ region: "eu-central-1", endpoint: aws.endpoint, credentials: provider });
  await ec2.send(new RebootInstancesCommand({ InstanceIds: ["i-0123456789abcdef0"] }));
  assert.equal(aws.signedBy.length, 9);
  assert.deepEqual(new Set(aws.signedBy.map(String)), new Set([`${accessKeyOf("jti-1")},session-of-jti-1==`]));
  assert.equal(broker.asked.length, 1);
});

test("after the window there is an error, nothing is signed, and nothing is looked for elsewhere", async (context) => {
  for (const name of ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]) {
    process.env[name] = "AKIAENVIRONMENT";
    context.after(() => delete process.env[name]);
  }
  const { clock, broker, provider } = await realTime();
  const client = sts(provider);
  await client.send(new GetCallerIdentityCommand({}));
  clock.shiftMs += 301_000;
  for (const credentials of [client, sts(provider)]) {
    const over = await rejection(credentials.send(new GetCallerIdentityCommand({})), AwsCredentialsExpiredError);
    assert.match(over.whatToDo, /let the agent call again/);
  }
  await rejection(provider(), AwsCredentialsExpiredError);
  assert.deepEqual([aws.signedBy.length, broker.asked.length], [1, 1], "and nothing is asked anew");
});

test("a clock that is put back makes no window longer", async () => {
  const { f, refund } = await lab();
  const provider = (await refund()).awsCredentials();
  await provider();
  f.now -= 3600;
  f.uptimeMs += 299_000;
  assert.ok(await provider());
  f.uptimeMs += 1_000;
  await rejection(provider(), AwsCredentialsExpiredError);
});

test("what is revoked ends with the guard's hearing of it", async () => {
  for (const [jti, isOver] of [["jti-1", true], ["another", false]] as const) {
    const { f, broker, refund } = await lab();
    const provider = (await refund()).awsCredentials();
    await provider();
    f.guard.revoke({ kind: "token", jti });
    if (isOver) {
      for (let time = 0; time < 2; time += 1) await assert.rejects(provider(), /revoked/);
    } else {
      assert.ok(await provider());
    }
    assert.equal(broker.asked.length, 1);
  }
  const { f, broker, refund } = await lab();
  const provider = (await refund()).awsCredentials();
  broker.answer = () => void f.guard.revoke({ kind: "token", jti: "jti-1" });
  await assert.rejects(provider(), /revoked/, "while the broker is asked");
});

test("what has ended when it comes is not used", async () => {
  const { broker, refund } = await lab();
  for (const [ends, kind] of [["2020-01-01T00:00:00Z", AwsCredentialsExpiredError], ["2099-01-01T00:00:00Z", ProtocolError]] as const) {
    broker.answer = (form) => Response.json(broker.credentials(form, { Expiration: ends }));
    await rejection((await refund(REFUND, `jti-${ends}`)).awsCredentials()(), kind as new () => Error);
  }
});

test("those that ask at once make one request", async () => {
  const { broker, refund } = await lab();
  const verified = await refund();
  let release: () => void = () => undefined;
  const held = new Promise<undefined>((resolve) => (release = () => resolve(undefined)));
  broker.answer = () => held;
  const asking = Array.from({ length: 50 }, () => verified.awsCredentials()());
  release();
  const given = await Promise.all(asking);
  assert.deepEqual(new Set(given.map((each) => each.accessKeyId)), new Set([accessKeyOf("jti-1")]));
  assert.equal(broker.asked.length, 1);
});

for (const [status, error, kind, advice] of [
  [400, "invalid_request", ExchangeError, /while its token is fresh/],
  [400, "access_denied", AccessDeniedError, /which template or policy/],
  [401, "invalid_client", ExchangeError, /check the client's id/],
  [404, "not_found", ExchangeError, /have `aws` configured/],
  [502, "server_error", ExchangeError, /AWS refused/],
] as const) {
  test(`a refusal says what to do and stands: ${status} ${error}`, async () => {
    const { f, broker, refund } = await lab();
    const said = { error, error_description: "no", reason: "policy", decision_id: "d-1" };
    broker.answer = () => Response.json(said, { status });
    const provider = (await refund()).awsCredentials();
    for (let turn = 0; turn < 3; turn += 1) {
      const refused: ExchangeError = await rejection(provider(), kind as typeof ExchangeError);
      assert.ok(!(refused instanceof RetryLaterError));
      assert.match(refused.whatToDo, advice);
      assert.equal(refused.decisionId, "d-1");
      f.pass(10);
    }
    assert.equal(broker.asked.length, 1);
  });
}

test("what may pass is asked for again, but not at once", async () => {
  const { f, broker, refund } = await lab();
  const said = { error: "temporarily_unavailable", error_description: "throttled" };
  broker.answer = () => Response.json(said, { status: 503, headers: { "retry-after": "7" } });
  const provider = (await refund()).awsCredentials();
  for (const [seconds, asked] of [[0, 1], [6, 1], [1, 2], [1, 2]] as const) {
    f.pass(seconds);
    assert.equal((await rejection(provider(), RetryLaterError)).retryAfterSeconds, 7);
    assert.equal(broker.asked.length, asked);
  }
  f.pass(7);
  broker.answer = () => undefined;
  assert.ok((await provider()).accessKeyId);
});

test("a broker that cannot be reached is asked again after a second", async () => {
  const { f, broker, refund } = await lab();
  broker.answer = () => Promise.reject(new TypeError("fetch failed"));
  const provider = (await refund()).awsCredentials();
  for (const [seconds, asked] of [[0, 1], [0, 1], [1, 2]] as const) {
    f.pass(seconds);
    await rejection(provider(), UnreachableError);
    assert.equal(broker.asked.length, asked);
  }
});

test("what is malformed is not signed with, and shown nowhere", async () => {
  const { broker, refund } = await lab();
  let turn = 0;
  for (const change of [
    { Version: 2 }, { AccessKeyId: null }, { AccessKeyId: "A\nB" }, { SecretAccessKey: "" }, { SecretAccessKey: "with space" },
    { SessionToken: "x\r\nhost: evil" }, { SessionToken: "x".repeat(20_000) }, { SessionToken: ["x"] },
    { Expiration: "2027-01-15T08:00:00+00:00" }, { Expiration: "2027-13-15T08:00:00Z" }, { Expiration: "2027-02-30T08:00:00Z" },
    { Expiration: 1_800_000_300 },
  ]) {
    broker.answer = (form) => Response.json(broker.credentials(form, change));
    const refused = await rejection((await refund(REFUND, `jti-${(turn += 1)}`)).awsCredentials()(), ProtocolError);
    assert.doesNotMatch(inspect(refused, { depth: 10, showHidden: true }), /secret\/of/);
  }
  for (const body of ["", "[]", "<html>secret/of+jti</html>", '{"Version":1,"Version":1,"SecretAccessKey":"secret/of+j"}']) {
    broker.answer = () => new Response(body);
    const refused = await rejection((await refund(REFUND, `jti-${(turn += 1)}`)).awsCredentials()(), ProtocolError);
    assert.doesNotMatch(inspect(refused, { depth: 10, showHidden: true }), /secret\/of/);
  }
});

test("nothing shows them", async () => {
  const { broker, refund } = await lab();
  const verified = await refund();
  const provider = verified.awsCredentials();
  const given = await provider();
  const direct = await (await broker.client()).awsCredentials({ token: verified.token, arguments: REFUND });
  const client = sts(provider);
  await client.send(new GetCallerIdentityCommand({}));
  for (const each of [given, direct, provider, verified]) {
    for (const text of [inspect(each, { depth: 10 }), `${String(each)}`, JSON.stringify({ each })]) {
      for (const part of ["secret/of+jti-1", "session-of-jti-1"]) assert.ok(!text.includes(part), text);
    }
  }
  assert.throws(() => structuredClone(given), { name: "DataCloneError" });
  assert.deepEqual(JSON.parse(JSON.stringify(given)), { expiration: given.expiration.toISOString(), decisionId: "decision-jti-1" });
});

test("only calls of tools have them, and only with a way to the broker", async () => {
  const f = await Fixture.create();
  const without = await verifiedCall(f.withGrant(await l1("lookup"), call("lookup", {})));
  assert.throws(() => without.awsCredentials(), ConfigurationError);
  const { f: other } = await lab();
  other.guard.install(await other.snapshot({ version: 2, ...(await material()) }));
  await other.guard.observePrompts(PROMPTS.map((each) => parseObject(JSON.stringify(each))));
  const prompt = await verifiedCall(other.withGrant(await promptToken("greet"), get("greet", { city: "Bonn" })));
  assert.throws(() => prompt.awsCredentials(), /tools alone/);
});

async function rejection<T extends Error>(promise: Promise<unknown>, kind: abstract new (...args: never[]) => T): Promise<T> {
  const error = await promise.then(
    () => new Error("it was given"),
    (cause: unknown) => cause,
  );
  if (error instanceof kind) return error;
  throw error;
}
