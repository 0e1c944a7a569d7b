/** The link to the broker: what is believed, what is not, and what silence does. */

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, test } from "node:test";
import { decodeJwt, type JWK } from "jose";
import { ConfigurationError, ExchangeError, UnreachableError } from "../../src/client/errors.js";
import { Signer } from "../../src/client/signer.js";
import { SnapshotError } from "../../src/guard/pin.js";
import { snapshotFile } from "../../src/link/memory.js";
import { linkGuard, type LinkedGuard, type LinkedGuardSettings } from "../../src/link/link.js";
import { call, DEFINITIONS, ISSUER, l1, l3, passes, refusalOf } from "../guard/fixture.js";
import { FakeBroker } from "./broker.js";

/** A guard that is linked and has seen its server's tools, and the broker that it is linked to. */
async function linked(changes: Partial<LinkedGuardSettings> = {}): Promise<{ broker: FakeBroker; link: LinkedGuard }> {
  const broker = await FakeBroker.create();
  const link = await linkGuard(broker.settings(changes));
  open.push(link);
  broker.fixture.guard = link.guard;
  await broker.fixture.observe(DEFINITIONS);
  return { broker, link };
}

const open: LinkedGuard[] = [];
afterEach(async () => {
  for (const link of open.splice(0)) await link.close();
});

async function look(broker: FakeBroker): Promise<unknown> {
  return broker.fixture.withGrant(await l1("lookup"), call("lookup", {}));
}

/** Waits until `holds`; fails after five seconds. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 5_000;
  while (!(await holds())) {
    if (performance.now() > end) assert.fail("it does not become so");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("it starts with a snapshot of the configured key, and calls pass", async () => {
  const { broker } = await linked();
  assert.ok(await passes(look(broker)));
});

test("the snapshot keys may be a JWKS or its keys", async () => {
  const broker = await FakeBroker.create();
  const { keys } = broker.settings().snapshotKeys as { keys: JWK[] };
  open.push(await linkGuard(broker.settings({ snapshotKeys: keys })));
  open.push(await linkGuard(broker.settings({ snapshotKeys: { keys } })));
});

test("it does not start with what is not the broker's word", async () => {
  const broker = await FakeBroker.create();
  const stranger = await Signer.generate();
  const started = async (answer: () => Response | Promise<Response>, changes: Partial<LinkedGuardSettings> = {}) => {
    broker.snapshotAnswer = answer;
    return linkGuard(broker.settings(changes)).then(() => assert.fail("it starts"), (error: unknown) => error);
  };
  const signed = async (...parts: Parameters<FakeBroker["signed"]>) => Response.json(await broker.signed(...parts));
  assert.ok((await started(() => signed({}, stranger))) instanceof SnapshotError);
  assert.ok((await started(() => signed({ resource: "https://other.example.com/mcp" }))) instanceof SnapshotError);
  assert.ok((await started(() => signed({ issuer: "https://other.example.com" }))) instanceof SnapshotError);
  assert.ok((await started(() => signed({ expires_at: broker.fixture.now }))) instanceof SnapshotError);
  const refused = await started(() => Response.json({ error: "invalid_client" }, { status: 401 }));
  assert.ok(refused instanceof ExchangeError && refused.error === "invalid_client");
  const away = await started(() => Promise.reject(new TypeError("fetch failed")), { startTimeoutMs: 0 });
  assert.ok(away instanceof UnreachableError);
  const keyless = await linkGuard(broker.settings({ snapshotKeys: [] })).catch((error: unknown) => error);
  assert.ok(keyless instanceof ConfigurationError);
  const plain = await linkGuard(broker.settings({ issuer: "http://broker.example.com" })).catch((error: unknown) => error);
  assert.ok(plain instanceof ConfigurationError);
});

test("every request has an assertion of its own, for the broker alone", async () => {
  const { broker, link } = await linked();
  await broker.nextStream();
  link.report({ kind: "executed", tool: "lookup" });
  await link.close();
  const claims = broker.assertions.map((header) => decodeJwt(header.replace(/^Bearer /, "")));
  assert.ok(claims.length >= 3);
  assert.equal(new Set(claims.map(({ jti }) => jti)).size, claims.length);
  for (const { aud, iss, sub } of claims) assert.deepEqual([aud, iss, sub], [ISSUER, "pay-guard", "pay-guard"]);
});

test("a revocation stops calls at once, a newer snapshot lifts it", async () => {
  const { broker } = await linked();
  const stream = await broker.nextStream();
  stream.send("snapshot", await broker.signed());
  stream.send("revocation", { kind: "tool", name: "lookup" });
  await until(async () => !(await passes(look(broker))));
  assert.equal((await refusalOf(look(broker))).error, "invalid_token");
  stream.send("snapshot", await broker.signed({ version: 2 }));
  await until(() => passes(look(broker)));
});

test("without a word for 60 seconds calls stop, and with one they go on", async () => {
  const { broker, link } = await linked();
  const stream = await broker.nextStream();
  stream.send("snapshot", await broker.signed({ version: 2 }));
  await until(() => link.guard.installed?.version === 2);
  broker.fixture.pass(61);
  assert.equal((await refusalOf(look(broker))).status, 503);
  stream.send("alive", {});
  await until(() => passes(look(broker)));
});

test("a stream vouches for nothing before it has told the whole state", async () => {
  const problems: Error[] = [];
  const { broker } = await linked({ onProblem: (problem) => problems.push(problem) });
  const first = await broker.nextStream();
  broker.fixture.pass(61);
  first.send("alive", {});
  await until(() => problems.length > 0);
  assert.equal((await refusalOf(look(broker))).status, 503, "what was revoked meanwhile is not known");
  const second = await broker.nextStream();
  second.send("snapshot", await broker.signed({ revocations: [{ kind: "tool", name: "lookup" }], version: 2 }));
  await until(async () => (await refusalOf(look(broker))).status === 401);
});

test("a stream that ends, lies, or says what nobody understands is opened anew", async () => {
  const problems: Error[] = [];
  const { broker, link } = await linked({ onProblem: (problem) => problems.push(problem) });
  const first = await broker.nextStream();
  first.send("snapshot", await broker.signed({ version: 7 }));
  first.end();
  const second = await broker.nextStream();
  second.send("snapshot", await broker.signed({ version: 6 }));
  const third = await broker.nextStream();
  assert.equal(link.guard.installed?.version, 7, "a lower version is refused");
  assert.ok(problems.some((problem) => problem instanceof SnapshotError && problem.problem === "older"));
  third.send("snapshot", await broker.signed({ version: 8 }, await Signer.generate()));
  const fourth = await broker.nextStream();
  assert.equal(link.guard.installed?.version, 7, "a foreign signature is refused");
  fourth.send("snapshot", await broker.signed({ version: 8 }));
  fourth.send("revocation", { kind: "moon" });
  await broker.nextStream();
  assert.equal(link.guard.installed?.version, 8);
});

test("a restarted guard takes nothing older than its predecessor had, and waits to hear what was revoked", async () => {
  const folder = await mkdtemp(join(tmpdir(), "deputize-memory-"));
  const memory = snapshotFile(join(folder, "snapshot.json"));
  const { broker } = await linked({ memory });
  (await broker.nextStream()).send("snapshot", await broker.signed({ version: 7 }));
  await until(async () => (await memory.load())?.startsWith('{"version":7,') === true);

  const rolledBack = await linkGuard(broker.settings({ memory })).catch((error: unknown) => error);
  assert.ok(rolledBack instanceof SnapshotError && rolledBack.problem === "older", String(rolledBack));
  broker.document = { ...broker.document, version: 7 };
  const restarted = await linkGuard(broker.settings({ memory }));
  open.push(restarted);
  assert.equal(restarted.guard.installed?.version, 7);
  broker.fixture.pass(7_200);
  const { now } = broker.fixture;
  broker.document = { ...broker.document, version: 6, issued_at: now, expires_at: now + 1_800 };
  const expired = await linkGuard(broker.settings({ memory })).catch((error: unknown) => error);
  assert.ok(expired instanceof SnapshotError && expired.problem === "older", "the version outlives its snapshot");
  await writeFile(join(folder, "snapshot.json"), '{"version":');
  const unreadable = await linkGuard(broker.settings({ memory })).catch((error: unknown) => error);
  assert.ok(unreadable instanceof ConfigurationError);
  await rm(folder, { recursive: true });
});

test("a recalled snapshot lets nothing through before the broker was heard", async () => {
  const { broker } = await linked();
  const recalled = await broker.fixture.emptyGuard();
  recalled.recall(1, await broker.fixture.snapshot());
  broker.fixture.guard = recalled;
  await broker.fixture.observe(DEFINITIONS);
  assert.equal((await refusalOf(look(broker))).status, 503);
  recalled.install(await broker.fixture.snapshot());
  assert.ok(await passes(look(broker)));
});

test("tokens are redeemed at the broker, and an answer that does not come refuses", async () => {
  const { broker } = await linked();
  const { fixture } = broker;
  const args = { payment_id: "pay_81" };
  const token = await fixture.sign(fixture.claims(await l3("refund", args)));
  const send = async () => fixture.send(await fixture.request(token, call("refund", args)));
  assert.ok(await passes(send()));
  assert.deepEqual([...broker.redeemed], [token]);
  assert.equal((await refusalOf(send())).error, "invalid_token");
  const away = await FakeBroker.create();
  const other = await linkGuard(
    away.settings({
      fetch: (url, init) =>
        String(url).endsWith("/redeem") ? Promise.reject(new TypeError("fetch failed")) : away.fetch(url, init),
    }),
  );
  open.push(other);
  away.fixture.guard = other.guard;
  await away.fixture.observe(DEFINITIONS);
  assert.equal((await refusalOf(away.fixture.withGrant(await l3("refund", args), call("refund", args)))).status, 503);
});

test("what was seen is reported in batches, and no event gets a second id", async () => {
  const { broker, link } = await linked();
  broker.reportStatus = 503;
  for (let i = 0; i < 150; i += 1) link.report({ kind: "executed", tool: `tool-${i}`, bytes: i });
  await until(() => broker.assertions.length > 2);
  broker.reportStatus = 200;
  await link.close();
  assert.ok(broker.reports.every((batch) => batch.length <= 100));
  const events = broker.reports.flat().filter((event) => event["kind"] === "executed");
  assert.equal(events.length, 150);
  assert.equal(new Set(events.map((event) => event["id"])).size, 150);
});

test("ids are UUIDs of version 7, in the order of time", async () => {
  const { systemClock } = await import("../../src/clock.js");
  const id = systemClock.uniqueId();
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.ok(Math.abs(Number.parseInt(id.replace("-", "").slice(0, 12), 16) - Date.now()) < 60_000);
});
