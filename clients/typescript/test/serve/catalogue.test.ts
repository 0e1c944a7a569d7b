/**
 * The catalogue of what must be refused (`conformance/hostile.toml`), as far as it is about guards, at the middleware.
 * After each case: the answers are those of the catalogue, nothing ran but what was granted, the next honest call does.
 */

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { Refusal } from "../../src/guard/refusal.js";
import { linkGuard, snapshotFile, SnapshotError } from "../../src/server.js";
import {
  call, DEFINITIONS, get, l0OfAll, l1, l3, LIST, type Loose, promptToken, read, readToken,
} from "../guard/fixture.js";
import { FakeBroker } from "../link/broker.js";
import { type Otherwise, type Reading, SessionWorld } from "./session-server.js";

const ARGS = { payment_id: "pay_81", amount_cents: 4200 };
const GOOD = JSON.stringify(call("refund", ARGS));
const ELSEWHERE = "https://crm.example.com/mcp";

/** An answer: its status, and `error` of its body. */
interface Said {
  readonly status: number;
  readonly error: unknown;
}

/** What a case has to work with. */
class Lab {
  /** Calls that may run. */
  granted = 0;

  constructor(readonly w: SessionWorld) {}

  get f() {
    return this.w.f;
  }

  /** A request with a token for one call of `refund`, its body as given. */
  async instead(body: string, otherwise: Otherwise = {}): Promise<Said> {
    return said(await this.w.send(body, { detail: await l3("refund", ARGS), ...otherwise }));
  }

  async runs(body: string, otherwise: Otherwise = {}): Promise<void> {
    assert.equal((await this.instead(body, otherwise)).status, 200);
    this.granted += 1;
  }

  /** A call that is granted, and runs; the server answers it like this. */
  async answered(answer: string): Promise<Said> {
    this.w.answers.set("tools/call", answer);
    this.granted += 1;
    const heard = await this.instead(GOOD);
    this.w.answers.clear();
    return heard;
  }

  all(bodies: readonly string[]): Promise<Said[]> {
    return Promise.all(bodies.map((body) => this.instead(body)));
  }
}

const said = async (reading: Reading): Promise<Said> => ({ status: reading.status, error: (await reading.json())["error"] });
const calls = (name: string, ...args: unknown[]) => args.map((each) => JSON.stringify(call(name, each)));

type Case = (lab: Lab) => Promise<Said[]>;
const CASES = new Map<string, Case>([
  ["H-30.a", (lab) => lab.all([...calls("lookup", ARGS), ...calls("transfer", {})])],
  ["H-30.b", (lab) => lab.all(calls("refund", { ...ARGS, payment_id: "pay_82" }, { ...ARGS, amount_cents: 4201 }))],
  ["H-30.c", (lab) => lab.all(calls("refund", { ...ARGS, note: "" }, { ...ARGS, unknown: 1 }))],
  ["H-30.d", (lab) => lab.all(calls("refund", { payment_id: "pay_81" }, {}))],
  ["H-30.e", async (lab) => {
    const token = await lab.f.sign(lab.f.claims(await l3("refund", ARGS)));
    const reordered = JSON.stringify(call("refund", { amount_cents: 4200, payment_id: "pay_81" }));
    await lab.runs(reordered, { token });
    return [await lab.instead(GOOD, { token })];
  }],
  ["H-30.f", async (lab) => {
    for (const same of ["4200.0", "4.2e3", "42000e-1"]) await lab.runs(GOOD.replace("4200", same));
    return lab.all(["4200.5", "-4200", "42e3"].map((other) => GOOD.replace("4200", other)));
  }],
  ["H-30.g", async (lab) => {
    const token = await lab.f.sign(lab.f.claims(await l3("refund", ARGS)));
    await lab.runs(GOOD, { token });
    return [await lab.instead(GOOD, { token })];
  }],
  ["H-30.h", async (lab) => {
    const detail = { ...(await l3("refund", ARGS)), locations: [ELSEWHERE] };
    return [await lab.instead(GOOD, { detail, claims: { aud: ELSEWHERE } })];
  }],
  ["H-30.i", async (lab) => {
    const claims = lab.f.claims(await l1("lookup"));
    const token = await lab.f.sign(claims);
    const lookup = JSON.stringify(call("lookup", {}));
    await lab.runs(lookup, { token });
    lab.f.guard.revoke({ kind: "token", jti: claims["jti"] as string });
    return [await lab.instead(lookup, { token })];
  }],
  ["H-31.a", (lab) => Promise.all(
    [{ "mcp-name": "lookup" }, { "mcp-method": "tools/list" }, { "mcp-param-payment": "pay_82" }, { "mcp-param-x": "1" }]
      .map((headers) => lab.instead(GOOD, { headers: headers as Record<string, string> })),
  )],
  ["H-31.b", (lab) => lab.all([`[${GOOD},${GOOD}]`, `[${GOOD}]`])],
  ["H-31.c", (lab) => lab.all(["{}", "[1]", "null", "1.5", "true"].map((id) => GOOD.replace('"id":1', `"id":${id}`)))],
  ["H-31.d", (lab) => lab.all(['"method":"ping"', '"\\u006dethod":"ping"'].map((other) => GOOD.replace('"method"', `${other},"method"`)))],
  ["H-31.e", (lab) => lab.all([GOOD.replace('"id":1,', ""), GOOD.replace("tools/call", "notifications/tools/call")])],
  ["H-31.f", (lab) => lab.all([`${GOOD} x`, `${GOOD}${GOOD}`, `${GOOD}\u0000`, `\ufeff${GOOD}`])],
  ["H-31.g", (lab) => Promise.all(
    ["gzip", "br", "identity, gzip"].map((encoding) => lab.instead(GOOD, { headers: { "content-encoding": encoding } })),
  )],
  ["H-33.a", async (lab) => Promise.all(
    ["tools/list", "initialize", "server/discover"].map(async (method) =>
      lab.instead(JSON.stringify({ ...LIST, method, params: {} }), { detail: await l1("lookup") })),
  )],
  ["H-33.b", async (lab) => Promise.all(
    [
      "file:///etc/passwd", "file:///srv/../etc/passwd", "http://169.254.169.254/", "demo://docs/../etc/passwd",
      "demo://docs/%2e%2e/etc/passwd", "demo://docs/..;/etc/passwd", "demo://docs\\..\\etc", "demo://user@docs/a",
      "demo://docs/./a", "DEMO://docs/a", "demo://docs/b", "demo://docs/drafts/a", "refund",
    ].flatMap((uri) =>
      [lab.w.looking, l1("lookup"), readToken("demo://docs/a")].map(async (detail) =>
        lab.instead(JSON.stringify(read(uri)), { detail: await detail }))),
  )],
  ["H-33.c", async (lab) => {
    const methods = ["completion/complete", "resources/subscribe", "sampling/createMessage", "tasks/result", "prompts/get"];
    const { looking } = lab.w;
    const asked = methods.map((method) => [{ ...LIST, method, params: { name: "greet" } }, looking] as const);
    const greet = await promptToken("greet");
    const others = [get("vault", {}), get("refund", {}), call("greet", {}), read("demo://docs/a")].map((each) => [each, greet] as const);
    const tools = [get("greet", { city: "Bonn" }), await l1("lookup")] as const;
    return Promise.all([...asked, ...others, tools].map(([body, detail]) => lab.instead(JSON.stringify(body), { detail })));
  }],
  ["H-33.e", async (lab) => {
    const { w } = lab;
    const detail = await l0OfAll(["vault", "demo://vault/*"]);
    const uris = ["demo://docs/a", "demo://docs/drafts/a", "demo://vault/a", "x://y"];
    w.answers.set("prompts/list", { prompts: w.prompts });
    w.answers.set("resources/list", { resources: uris.map((uri) => ({ uri, name: uri })) });
    for (const [kind, expected] of [["prompts", ["greet"]], ["resources", ["demo://docs/a"]]] as const) {
      const listed = await (await w.send({ ...LIST, method: `${kind}/list` }, { detail })).json();
      const shown = (listed["result"] as Record<string, { uri?: string; name: string }[]>)[kind] ?? [];
      assert.deepEqual(shown.map(({ uri, name }) => uri ?? name), expected);
      assert.doesNotMatch(JSON.stringify(listed), /vault/);
    }
    return Promise.all([get("vault", {}), read("demo://vault/a")].map((body) => lab.instead(JSON.stringify(body), { detail })));
  }],
  ["H-33.d", async (lab) => {
    const result = { resultType: "input_required", inputRequests: { a: { method: "sampling/createMessage" } } };
    return [await lab.answered(JSON.stringify({ jsonrpc: "2.0", id: 1, result }))];
  }],
  ["H-34.a", async (lab) => [await lab.answered(`{"jsonrpc":"2.0","id":1,"result":{"text":"${"x".repeat(100_000_000)}"}}`)]],
  ["H-34.b", async (lab) => {
    const piece = new Uint8Array(100_000).fill(32);
    lab.w.whole = () => new Response(new ReadableStream({ pull: (controller) => controller.enqueue(piece) }), { headers: JSON_TYPE });
    lab.granted += 1;
    const heard = await lab.instead(GOOD);
    lab.w.whole = undefined;
    return [heard];
  }],
  ["H-34.c", async () => {
    // A server that hangs: time is real here, so it has little.
    const w = await SessionWorld.create({ limits: { answerSeconds: 0.05 } });
    let asked = 0;
    w.hangs = () => {
      asked += 1;
      return new Promise(() => undefined);
    };
    const heard = await said(await w.send(GOOD, { detail: await l3("refund", ARGS) }));
    assert.equal(asked, 1);
    return [heard];
  }],
  ["H-34.e", async (lab) => [await lab.answered('{"jsonrpc":"2.0","id":2,"result":{}}')]],
  ["H-34.f", async (lab) => [await lab.answered("not json")]],
  ["H-34.g", async (lab) => {
    lab.w.whole = () => new Response("<html>sign in</html>", { headers: { "content-type": "text/html" } });
    lab.granted += 1;
    const heard = await lab.instead(GOOD);
    lab.w.whole = undefined;
    return [heard];
  }],
  ["H-32.a", told((broker) => broker.signed({ issued_at: broker.fixture.now - 100, expires_at: broker.fixture.now - 1 }))],
  ["H-32.b", async (lab) => [
    ...(await told((broker) => broker.signed({ issued_at: broker.fixture.now + 600, expires_at: broker.fixture.now + 1200 }))(lab)),
    ...(await told((broker) => broker.signed({ expires_at: broker.fixture.now + 3591 }))(lab)),
  ]],
  ["H-32.c", told(async (broker) => ({ ...(await broker.signed()), signature: "" }))],
  ["H-32.d", told(async (broker) => {
    const signed = await broker.signed();
    return { ...signed, snapshot: signed.snapshot.replace('"L3"', '"L1"') };
  })],
  ["H-32.e", told((broker) => broker.signed({}, broker.fixture.broker))],
  ["H-32.f", told((broker) => broker.signed({ resource: ELSEWHERE }))],
  ["H-32.g", told((broker) => broker.signed({ issuer: "https://other.example.com" }))],
  ["H-32.h", told((broker) => {
    const text = JSON.stringify(broker.document);
    return broker.signed(JSON.parse(text.replace('"description":"refund"', '"description":"refund."')) as Loose);
  })],
  ["H-32.i", async () => Promise.all(
    ([["alive", {}], ["revocation", { kind: "tool", name: "lookup" }]] as const).map(([event, data]) =>
      afterAMinute(async (stream) => stream.send(event, data))),
  )],
  ["H-32.j", async () => [
    await afterAMinute(async (stream, broker) => {
      stream.send("snapshot", await broker.signed({ version: 0 }));
      stream.send("alive", {});
    }),
  ]],
  ["H-32.k", async () => {
    const broker = await FakeBroker.create();
    const { tools } = broker.document as { tools: { definition: Loose }[] };
    const without = tools.filter(({ definition }) => definition["name"] !== "refund");
    broker.snapshotAnswer = async () => Response.json(await broker.signed({ version: 5, tools: without }));
    const problems: Error[] = [];
    return [await linkedTo(broker, { onProblem: (problem) => problems.push(problem) }, async () => {
      (await broker.nextStream()).send("snapshot", await broker.signed({ version: 4 }));
      while (problems.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    })];
  }],
  ["H-32.l", async () => remembering(async (path, broker) => {
    const snapshot = await broker.signed({ version: 5, expires_at: broker.fixture.now + 10 });
    await writeFile(path, JSON.stringify({ version: 5, snapshot }));
    broker.fixture.pass(11);
    broker.snapshotAnswer = async () => Response.json(await broker.signed({ version: 4 }));
  })],
  ["H-32.m", async () => remembering(async (path, broker) => {
    await writeFile(path, JSON.stringify({ version: 1, snapshot: await broker.signed() }));
    broker.snapshotAnswer = () => Response.json({ error: "temporarily_unavailable" }, { status: 503 });
  })],
]);

/** A guard that is told one thing as its first: it does not start, or knows nothing. */
function told(signed: (broker: FakeBroker) => Promise<unknown>): Case {
  return async () => {
    const broker = await FakeBroker.create();
    const text = await signed(broker);
    broker.snapshotAnswer = () => Response.json(text);
    await assert.rejects(linkGuard(broker.settings()), SnapshotError);
    // What a guard answers that was told nothing.
    return [await honest(broker, await broker.fixture.emptyGuard())];
  };
}

/** A linked guard whose broker says this and then no more, a minute later. */
async function afterAMinute(say: (stream: Awaited<ReturnType<FakeBroker["nextStream"]>>, broker: FakeBroker) => Promise<void>): Promise<Said> {
  const broker = await FakeBroker.create();
  const problems: Error[] = [];
  return linkedTo(broker, { onProblem: (problem) => problems.push(problem) }, async () => {
    const stream = await broker.nextStream();
    broker.fixture.pass(61);
    await say(stream, broker);
    while (problems.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  });
}

/** What a linked guard answers to an honest call after `meanwhile`. */
async function linkedTo(broker: FakeBroker, settings: Parameters<FakeBroker["settings"]>[0], meanwhile: () => Promise<void>): Promise<Said> {
  const link = await linkGuard(broker.settings(settings));
  try {
    await meanwhile();
    return await honest(broker, link.guard);
  } finally {
    await link.close();
  }
}

/** What a guard answers that starts with a memory, and whose broker says what it should not, or nothing. */
async function remembering(prepare: (path: string, broker: FakeBroker) => Promise<void>): Promise<Said[]> {
  const folder = await mkdtemp(join(tmpdir(), "guard-"));
  try {
    const broker = await FakeBroker.create();
    const path = join(folder, "snapshot.json");
    await prepare(path, broker);
    await assert.rejects(linkGuard(broker.settings({ memory: snapshotFile(path), startTimeoutMs: 0 })));
    // The guard that did not start knows this much.
    const guard = await broker.fixture.emptyGuard();
    const { version, snapshot } = JSON.parse(await readFile(path, "utf8")) as { version: number; snapshot: unknown };
    const opened = await broker.openSigned(snapshot).catch(() => undefined);
    guard.recall(version, opened);
    return [await honest(broker, guard)];
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function honest(broker: FakeBroker, guard: typeof broker.fixture.guard): Promise<Said> {
  broker.fixture.guard = guard;
  await broker.fixture.observe(DEFINITIONS);
  const verified = broker.fixture.withGrant(await l3("refund", ARGS), call("refund", ARGS));
  const refusal = await verified.then(() => assert.fail("it passed"), (error: unknown) => error);
  if (!(refusal instanceof Refusal)) throw refusal;
  return refusal;
}

const JSON_TYPE = { "content-type": "application/json" };
const catalogue = await tablesOf("hostile.toml");
const LISTED = new Map(
  catalogue.filter(({ table, id }) => table === "case" && /^H-3[0-4]\./.test(id ?? "")).map(({ id = "", answer = "" }) => [id, answer]),
);
const NOT_HERE = new Set(
  (await tablesOf("not_in_middleware.toml")).filter(({ typescript }) => typescript !== undefined).map(({ id = "" }) => id),
);

/** The tables of one of the conformance catalogues: arrays of tables of plain texts, and nothing else. */
async function tablesOf(file: string): Promise<Record<string, string>[]> {
  const path = fileURLToPath(new URL(`../../../../../conformance/${file}`, import.meta.url));
  const tables: Record<string, string>[] = [];
  for (const line of (await readFile(path, "utf8")).split("\n")) {
    const [, table] = /^\[\[(\w+)\]\]$/.exec(line) ?? [];
    const [, name, value] = /^(\w+) = "(.*)"$/.exec(line) ?? [];
    if (table !== undefined) tables.push({ table });
    else if (name !== undefined && value !== undefined) Object.assign(tables.at(-1) ?? {}, { [name]: value });
  }
  return tables;
}

test("each case of the catalogue has its test, or a reason", () => {
  assert.ok(LISTED.size > 40);
  assert.deepEqual([...LISTED.keys()].sort(), [...new Set([...CASES.keys(), ...NOT_HERE])].sort());
  assert.deepEqual([...CASES.keys()].filter((id) => NOT_HERE.has(id)), []);
});

for (const [id, run] of CASES) {
  test(`${id}: ${LISTED.get(id)}`, async () => {
    const lab = new Lab(await SessionWorld.create({ maxResultBytes: 1_000_000 }));
    await lab.w.approveMaterial();
    const answers = await run(lab);
    assert.ok(answers.length > 0);
    for (const { status, error } of answers) assert.equal(`${status} ${String(error)}`, LISTED.get(id));
    const ran = lab.w.received.filter(({ message }) => message["method"] === "tools/call");
    assert.equal(ran.length, lab.granted, "nothing ran but what was granted");
    assert.equal((await lab.instead(GOOD)).status, 200, "the next honest call");
  });
}
