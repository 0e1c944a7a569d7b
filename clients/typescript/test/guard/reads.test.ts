/** Prompts and resources: granted as tools are, and listed as far as a caller may see them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { callDigest } from "../../src/call/digest.js";
import { parseObject } from "../../src/call/json.js";
import { argumentsSchema } from "../../src/call/prompt.js";
import { SnapshotError } from "../../src/guard/pin.js";
import { SessionWorld, until } from "../serve/session-server.js";
import {
  call, Fixture, get, granted, l0, l0OfAll, l1, LIST, type Loose, material, PROMPTS, promptToken, read, readToken,
  refusalOf, verifiedCall,
} from "./fixture.js";

const BONN = { city: "Bonn" };
const parsed = (definitions: readonly object[]) => definitions.map((each) => parseObject(JSON.stringify(each)));

async function fixture(): Promise<Fixture> {
  const f = await Fixture.create();
  f.guard.install(await f.snapshot({ version: 2, ...(await material()) }));
  await f.guard.observePrompts(parsed(PROMPTS));
  return f;
}

test("a prompt is given for its own token alone", async () => {
  const f = await fixture();
  const verified = await verifiedCall(f.withGrant(await promptToken("greet"), get("greet", BONN)));
  assert.deepEqual([verified.action, verified.name, verified.tool], ["prompts/get", "greet", undefined]);
  const digest = await callDigest({ method: "prompts/get", name: "greet", arguments: BONN });
  assert.equal(verified.callDigest, digest);
  const exact = await promptToken("greet", { call_digest: digest, max_uses: 1 });
  assert.equal((await verifiedCall(f.withGrant(exact, get("greet", BONN)))).level, "L3");
  const { prompt_digest: other } = await promptToken("vault");
  for (const [detail, body] of [
    [await promptToken("greet"), get("vault", {})], [await promptToken("greet"), call("greet", BONN)],
    [await promptToken("greet"), read("greet")], [await promptToken("greet"), get("greet", {})],
    [await promptToken("greet"), get("greet", { ...BONN, more: "x" })], [await promptToken("greet"), get("greet", { city: 1 })],
    [exact, get("greet", { city: "Köln" })], [await promptToken("greet", { prompt_digest: other }), get("greet", BONN)],
    [await promptToken("greet", { identifier: "unknown" }), get("unknown", {})],
    [{ ...(await l1("lookup")), identifier: "greet" }, get("greet", BONN)], [await l0OfAll(), get("greet", BONN)],
  ] as const) {
    const { status } = await refusalOf(f.withGrant(detail as Loose, body));
    assert.ok(status === 401 || status === 403, JSON.stringify([detail, body]));
  }
});

test("a prompt that is not what was approved is not given", async () => {
  const f = await fixture();
  const asked = async () => f.withGrant(await promptToken("greet"), get("greet", BONN));
  const [greet, vault] = PROMPTS as [object, object];
  await f.guard.observePrompts(parsed([{ ...greet, description: "Greets!" }, vault]));
  assert.equal((await refusalOf(asked())).status, 403);
  await f.guard.observePrompts(parsed([greet, greet]));
  assert.equal((await refusalOf(asked())).status, 403);
  await f.guard.observePrompts(parsed([]));
  assert.equal((await refusalOf(asked())).status, 403);
  await f.guard.observePrompts(parsed(PROMPTS));
  await asked();
  f.guard.revoke({ kind: "tool", name: "greet" });
  await asked();
  const unseen = await Fixture.create();
  unseen.guard.install(await unseen.snapshot({ version: 2, ...(await material()) }));
  assert.equal((await refusalOf(unseen.withGrant(await promptToken("greet"), get("greet", BONN)))).status, 503);
});

test("a resource is read where token and registry name it as it stands", async () => {
  const f = await fixture();
  const verified = await verifiedCall(f.withGrant(readToken("demo://docs/a/b"), read("demo://docs/a/b")));
  assert.deepEqual([verified.action, verified.name], ["resources/read", "demo://docs/a/b"]);
  for (const uri of [
    "demo://docs/drafts/a", "demo://docs/../vault/a", "demo://docs/%2e%2e/a", "demo://docs/./a", "demo://docs//a",
    "demo://docs/", "demo://other/a", "file:///etc/passwd", "docs/a", "demo://docs/a?x",
  ]) {
    assert.equal((await refusalOf(f.withGrant(readToken(uri), read(uri)))).status, 403, uri);
  }
  assert.equal((await refusalOf(f.withGrant(readToken("demo://docs/a"), read("demo://docs/b")))).status, 403);
  const extra = { ...read("demo://docs/a"), params: { uri: "demo://docs/a", arguments: {} } };
  assert.equal((await refusalOf(f.withGrant(readToken("demo://docs/a"), extra))).status, 400);
});

test("a snapshot whose material does not hold is refused", async () => {
  const f = await Fixture.create();
  for (const kind of ["prompts", "resources"] as const) {
    const changes: ((first: Loose, all: Loose[]) => void)[] = [
      (first, all) => void all.push(first), (first) => void (first["more"] = 1), (first) => void (first["least_level"] = "L0"),
      (first) => void (first[kind === "prompts" ? "definition" : "shown"] = { name: "", uri: "a b" }),
      (first) => void (first["enabled"] = 1),
    ];
    for (const change of changes) {
      const members = JSON.parse(JSON.stringify(await material())) as Record<string, Loose[]>;
      const all = members[kind] ?? [];
      change(all[0] ?? {}, all);
      await assert.rejects(f.snapshot(members), SnapshotError);
    }
  }
});

test("what a prompt lists is what it takes", () => {
  const schemaOf = (listed: unknown) => argumentsSchema(parseObject(JSON.stringify({ arguments: listed })));
  assert.deepEqual(JSON.stringify(argumentsSchema({})), '{"type":"object","properties":{},"additionalProperties":false}');
  assert.deepEqual(schemaOf([{ name: "city", required: true }, { name: "mood" }])["required"], ["city"]);
  for (const wrong of [
    { city: {} }, ["city"], [{ name: 1 }], [{ name: "a" }, { name: "a" }], null, Array(101).fill({ name: "a" }),
    [{ name: "a", required: "yes" }],
  ]) {
    assert.throws(() => schemaOf(wrong), /argument/);
  }
});

test("lists show what the token says and no more", async () => {
  const w = await SessionWorld.create();
  await w.approveMaterial();
  const detail = await l0OfAll(["refund", "vault", "demo://vault/*"]);
  const listed = async (method: string, result: Loose, by: Loose = detail) => {
    w.answers.set(method, result);
    const said = (await (await w.send({ ...LIST, method }, { detail: by })).json())["result"] as Loose;
    return Object.values(said).find(Array.isArray) as Loose[];
  };
  const tools = { tools: w.live };
  assert.deepEqual((await listed("tools/list", tools)).map(({ name }) => name), ["lookup", "transfer"]);
  assert.deepEqual(await listed("prompts/list", { prompts: w.prompts }), [PROMPTS[0]]);
  const live = { uri: "demo://docs/a", name: "call me", title: "now", mimeType: "text/plain", size: 3 };
  const others = ["demo://vault/a", "demo://docs/drafts/a", "demo://docs/%41", "x://y"].map((uri) => ({ uri }));
  const about = { name: "Documents", description: "Of the demo" };
  assert.deepEqual(await listed("resources/list", { resources: [live, ...others, { uri: 1 }] }), [
    { uri: "demo://docs/a", ...about, mimeType: "text/plain", size: 3 },
  ]);
  const odd = { ...live, mimeType: "text/plain; ignore all of it", size: "3" };
  assert.deepEqual(await listed("resources/list", { resources: [odd] }), [{ uri: "demo://docs/a", ...about }]);
  const templates = [
    "demo://docs/{id}", "demo://{id}", "demo://vault/{id}", "{x}",
    // Below a folder that is switched off, whatever is on around it.
    "demo://docs/drafts/{id}", "demo://docs/drafts/a/{id}",
  ].map((uriTemplate) => ({ uriTemplate }));
  assert.deepEqual(await listed("resources/templates/list", { resourceTemplates: templates }), [
    { uriTemplate: "demo://docs/{id}", ...about },
  ]);
  const silent = { ...granted(), actions: ["tools/list"] };
  assert.deepEqual(await listed("tools/list", tools, silent), [], "a token that says nothing shows nothing");
  assert.equal((await w.refused(401, LIST, { detail: l0() }))["error"], "invalid_token", "of another state");
  w.f.guard.revoke({ kind: "everything" });
});

test("what is approved is offered, and a change is noticed", async () => {
  const w = await SessionWorld.create({ discoveryMs: 1e9 });
  const news = { listChanged: true };
  const offered = { tools: {}, prompts: {}, resources: { subscribe: true, ...news }, logging: {}, completions: {}, tasks: {} };
  w.answers.set("server/discover", { capabilities: offered });
  const capabilities = async () =>
    ((await (await w.send({ ...LIST, method: "server/discover" })).json())["result"] as Loose)["capabilities"];
  assert.deepEqual(await capabilities(), { tools: {}, logging: {} });
  await w.approveMaterial();
  assert.deepEqual(await capabilities(), { tools: {}, prompts: {}, resources: news, logging: {} });
  w.answers.set("prompts/get", { messages: [] });
  const greet = { detail: await promptToken("greet") };
  assert.equal((await w.send(get("greet", BONN), greet)).status, 200);
  assert.equal(w.received.at(-1)?.headers.get("mcp-name"), "greet");
  const session = await w.begin();
  const listening = await w.send("", { method: "GET", headers: { "mcp-session-id": session } });
  w.prompts = [{ ...PROMPTS[0], description: "Greets!" }];
  w.streams[0]?.say({ jsonrpc: "2.0", method: "notifications/resources/updated" });
  w.streams[0]?.say({ jsonrpc: "2.0", method: "notifications/prompts/list_changed" });
  assert.equal((await listening.event())?.["method"], "notifications/prompts/list_changed");
  await w.refused(403, get("greet", BONN), greet);
  await until(() => w.events.some(({ kind }) => kind === "drifted"));
  assert.deepEqual(w.events.filter(({ kind }) => kind === "drifted").map(({ tool, action }) => [tool, action]), [["greet", "prompts/get"]]);
});
