/** The `fetch` for MCP clients, against a server that says what a test wants. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeJwt, exportJWK, generateKeyPair } from "jose";
import { accessTokenHash } from "../../src/call/dpop.js";
import { toolDigest } from "../../src/call/digest.js";
import { createMcpFetch, DeputizeClient, DeputizeError, type FetchLike, type McpFetchSettings, ToolChangedError } from "../../src/index.js";

const ISSUER = "https://deputize.example.com";
const RESOURCE = "https://crm.example.com/mcp";
const DEFINITION = { name: "refund", description: "Refunds.", inputSchema: { type: "object" } };

interface Seen {
  readonly url: string;
  readonly init: RequestInit;
  readonly token: string;
  readonly proof: Record<string, unknown>;
}

/** An agent: its wrapped fetch, what the server saw, and what the broker was asked. */
async function agent(
  serve: (seen: Seen, nth: number) => Response | Promise<Response>,
  settings: Partial<McpFetchSettings> = {},
  looks: "answered" | "served" = "answered",
): Promise<{ fetch: FetchLike; seen: Seen[]; asked: Record<string, unknown>[] }> {
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const asked: Record<string, unknown>[] = [];
  const broker: FetchLike = async (url, init) => {
    if (String(url).includes("/.well-known/")) return Response.json({ issuer: ISSUER, token_endpoint: `${ISSUER}/token` });
    const form = new URLSearchParams(String(init?.body));
    const [detail = {}] = JSON.parse(form.get("authorization_details") ?? "[]") as Record<string, unknown>[];
    asked.push({ resource: form.get("resource"), ...detail });
    const { identifier, arguments: args } = detail;
    return Response.json({
      access_token: `token-${asked.length}`, token_type: "DPoP", expires_in: 60, scope: "x", transaction_id: "t", decision_id: "d",
      authorization_details: [{
        ...(identifier === undefined ? {} : { tool_digest: await toolDigest(DEFINITION) }),
        ...(args === undefined ? {} : { call_digest: "d", max_uses: 1 }),
      }],
    });
  };
  const client = await DeputizeClient.create({ issuer: ISSUER, clientId: "p", privateKey: await exportJWK(privateKey), fetch: broker });
  const seen: Seen[] = [];
  const server: FetchLike = async (url, init = {}) => {
    const headers = new Headers(init.headers);
    // The look at the tools before a call is not what most tests are about.
    if (looks === "answered" && String(init.body).includes('"deputize-list-')) return listed([DEFINITION]);
    const proof = headers.has("dpop") ? decodeJwt(headers.get("dpop") ?? "") : {};
    seen.push({ url: String(url), init, token: headers.get("authorization") ?? "", proof });
    return serve(seen.at(-1) ?? assert.fail(), seen.length);
  };
  return { fetch: createMcpFetch({ client, subjectToken: "user.jwt", fetch: server, ...settings }), seen, asked };
}

const post = (fetch: FetchLike, message: unknown, url = RESOURCE) =>
  fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: typeof message === "string" ? message : JSON.stringify(message) });
const call = (args: unknown = {}, more: Record<string, unknown> = {}) =>
  ({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "refund", arguments: args, ...more } });
const listed = (tools: unknown[], more: Record<string, unknown> = {}) => Response.json({ jsonrpc: "2.0", id: 0, result: { tools, ...more } });
const list = { jsonrpc: "2.0", id: 2, method: "tools/list" };
const challenge = (error: string, status = 401, nonce?: string) =>
  new Response("{}", {
    status,
    headers: { "www-authenticate": `DPoP error="${error}"`, ...(nonce === undefined ? {} : { "dpop-nonce": nonce }) },
  });

test("each call has a token of its own, made out of its body, and a proof for it", async () => {
  const { fetch, seen, asked } = await agent(() => new Response("{}"));
  const steering = { inputResponses: { ok: true }, requestState: "s", _meta: { progressToken: 1 } };
  await post(fetch, call({ amount: 1 }));
  await post(fetch, call({ amount: 1 }, steering));
  await post(fetch, list);
  await post(fetch, { jsonrpc: "2.0", method: "notifications/initialized" });
  await fetch(RESOURCE, { method: "GET" });
  const base = { resource: RESOURCE, type: "mcp_tool_call", locations: [RESOURCE], actions: ["tools/call"], identifier: "refund" };
  assert.deepEqual(asked, [
    { resource: RESOURCE },
    { ...base, arguments: { amount: 1 } },
    { ...base, arguments: { amount: 1 }, inputResponses: { ok: true }, requestState: "s" },
  ]);
  assert.deepEqual(seen.map(({ token }) => token), ["DPoP token-2", "DPoP token-3", "DPoP token-1", "DPoP token-1", "DPoP token-1"]);
  for (const { proof, token, init } of seen) {
    assert.deepEqual([proof["htm"], proof["htu"]], [init.method, RESOURCE]);
    assert.equal(proof["ath"], await accessTokenHash(token.slice(5)));
  }
  assert.equal(new Set(seen.map(({ proof }) => proof["jti"])).size, seen.length);
});

test("prompts and resources have tokens of their own", async () => {
  const { fetch, asked } = await agent(() => new Response("{}"));
  await post(fetch, { jsonrpc: "2.0", id: 1, method: "prompts/get", params: { name: "greet", arguments: { city: "Bonn" } } });
  await post(fetch, { jsonrpc: "2.0", id: 1, method: "resources/read", params: { uri: "demo://docs/a" } });
  assert.deepEqual(asked.map(({ actions, identifier, arguments: args }) => [actions, identifier, args]), [
    [["prompts/get"], "greet", { city: "Bonn" }], [["resources/read"], "demo://docs/a", {}],
  ]);
  await assert.rejects(post(fetch, { jsonrpc: "2.0", id: 1, method: "resources/read", params: { name: "a" } }), DeputizeError);
});

test("a nonce is answered once with the same token, and kept", async () => {
  const { fetch, seen } = await agent((_, nth) => (nth === 1 ? challenge("use_dpop_nonce", 401, "n-1") : new Response("{}", { headers: { "dpop-nonce": "n-2" } })));
  assert.equal((await post(fetch, call())).status, 200);
  await post(fetch, list);
  assert.deepEqual(seen.map(({ token }) => token), ["DPoP token-2", "DPoP token-2", "DPoP token-1"]);
  assert.deepEqual(seen.map(({ proof }) => proof["nonce"]), [undefined, "n-1", "n-2"]);

  const insisting = await agent((_, nth) => challenge("use_dpop_nonce", 401, `n-${nth}`));
  assert.equal((await post(insisting.fetch, call())).status, 401);
  assert.equal(insisting.seen.length, 2, "one retry");
});

test("a stale token that serves again is renewed once; one call's token is not", async () => {
  const { fetch, seen } = await agent((_, nth) => (nth === 1 ? challenge("invalid_token") : new Response("{}")));
  assert.equal((await post(fetch, list)).status, 200);
  assert.deepEqual(seen.map(({ token }) => token), ["DPoP token-1", "DPoP token-2"]);
  const refusing = await agent(() => challenge("invalid_token"));
  assert.equal((await post(refusing.fetch, list)).status, 401);
  assert.equal(refusing.seen.length, 2);
  const once = await agent(() => challenge("invalid_token"));
  assert.equal((await post(once.fetch, call())).status, 401);
  assert.equal(once.seen.length, 1);
});

test("where one tool's token is too loose, the call gets one of its own", async () => {
  const { fetch, asked } = await agent((_, nth) => (nth === 1 ? challenge("insufficient_scope", 403) : new Response("{}")), { level: () => "L1" });
  assert.equal((await post(fetch, call({ a: 1 }))).status, 200);
  assert.deepEqual(asked.map((each) => each["arguments"]), [undefined, undefined, { a: 1 }]);
  const refusing = await agent(() => challenge("insufficient_scope", 403));
  assert.equal((await post(refusing.fetch, call())).status, 403);
  assert.equal(refusing.seen.length, 1, "there is nothing tighter");
});

test("a token goes to its server alone, and no redirect carries a proof elsewhere", async () => {
  const { fetch, seen, asked } = await agent(() => new Response("{}"), { resource: RESOURCE });
  await post(fetch, call(), "https://evil.example.com/mcp");
  assert.deepEqual([seen[0]?.token, asked.length], ["", 0]);
  await post(fetch, call());
  assert.equal(seen[1]?.init.redirect, "error");
  await fetch(RESOURCE, { method: "POST", body: JSON.stringify(list), redirect: "follow" });
  assert.equal(seen[2]?.init.redirect, "error");
  await fetch(RESOURCE, { method: "POST", body: JSON.stringify(list), redirect: "manual" });
  assert.equal(seen[3]?.init.redirect, "manual");
  await assert.rejects(post((await agent(() => new Response())).fetch, call(), "http://crm.example.com/mcp"), DeputizeError);
});

test("what the server would refuse as ambiguous is not sent", async () => {
  const { fetch, seen } = await agent(() => new Response("{}"));
  const one = JSON.stringify(call({ amount: 1 }));
  for (const body of [
    one.replace("1}}}", "9007199254740993}}}"), one.replace('"id"', '"id":1,"id"'), `[${one}]`, `${one}x`, one.replace('"name":"refund",', ""),
  ]) {
    await assert.rejects(post(fetch, body), DeputizeError, body);
  }
  assert.equal(seen.length, 0);
});

const STREAMED = (text: string) => new Response(`event: message\ndata: ${text}\n\n`, { headers: { "content-type": "text/event-stream; charset=utf-8" } });
for (const [how, answer] of [["JSON", (text: string) => new Response(text, { headers: { "content-type": "application/json" } })], ["a stream", STREAMED]] as const) {
  test(`a tool that is listed (${how}) as something else than was approved is not called`, async () => {
    const listing = (tools: unknown[]) => JSON.stringify({ jsonrpc: "2.0", id: 2, result: { tools } });
    let tools: unknown[] = [{ ...DEFINITION, description: "Refunds!" }];
    const { fetch, seen } = await agent(({ init }) => (String(init.body).includes("tools/list") ? answer(listing(tools)) : new Response("{}")));
    const text = await (await post(fetch, list)).text();
    assert.ok(text.includes("Refunds!"), "it is passed on as it came");
    await assert.rejects(post(fetch, call()), ToolChangedError);
    assert.equal(seen.length, 1);
    tools = [DEFINITION, DEFINITION];
    await (await post(fetch, list)).text();
    await assert.rejects(post(fetch, call()), ToolChangedError, "a name that stands twice");
    tools = [DEFINITION];
    await (await post(fetch, list)).text();
    assert.equal((await post(fetch, call())).status, 200);
  });

  test(`a listing (${how}) that two readers could read differently is not shown`, async () => {
    const { fetch } = await agent(() => answer('{"result":{"tools":[]},"result":{"tools":[]}}'));
    await assert.rejects(post(fetch, list).then((response) => response.text()));
  });
}

test("a tool that was not listed of late is looked at before it is called, in the same session", async () => {
  let pages: unknown[][] = [[{ name: "other", inputSchema: {} }], [DEFINITION]];
  const serve = ({ init }: Seen) => {
    const { method, params } = JSON.parse(String(init.body)) as { method: string; params?: { cursor?: string } };
    if (method !== "tools/list") return new Response("{}");
    const at = Number(params?.cursor ?? 0);
    return listed(pages[at] ?? [], at + 1 < pages.length ? { nextCursor: String(at + 1) } : {});
  };
  const { fetch, seen } = await agent(serve, {}, "served");
  const asked = (headers: Record<string, string> = {}) =>
    fetch(RESOURCE, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(call()) });
  const stated = { "mcp-session-id": "s-1", "mcp-protocol-version": "2025-11-25", "mcp-method": "tools/call", "mcp-name": "refund", "x-mine": "1" };
  assert.equal((await asked(stated)).status, 200);
  const methods = () => seen.map(({ init }) => (JSON.parse(String(init.body)) as { method: string }).method);
  assert.deepEqual(methods(), ["tools/list", "tools/list", "tools/call"]);
  const looked = new Headers(seen[0]?.init.headers);
  assert.deepEqual(
    ["mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "x-mine"].map((name) => looked.get(name)),
    ["s-1", "2025-11-25", "tools/list", null, null],
  );
  const ids = seen.slice(0, 2).map(({ init }) => (JSON.parse(String(init.body)) as { id: string }).id);
  assert.notEqual(ids[0], ids[1]);
  await asked();
  assert.deepEqual(methods().slice(3), ["tools/call"], "once");

  pages = [[{ name: "other", inputSchema: {} }]];
  await (await post(fetch, list)).text();
  await assert.rejects(asked(), ToolChangedError, "what vanished is not called");
  assert.deepEqual(methods().slice(4), ["tools/list", "tools/list"]);
  pages = [[{ ...DEFINITION, description: "another" }]];
  const drifted = await agent(serve, {}, "served");
  await assert.rejects(post(drifted.fetch, call()), ToolChangedError);
  assert.equal(drifted.seen.length, 1, "only the list was sent");
  const silent = await agent(() => new Response(null, { status: 500 }), {}, "served");
  await assert.rejects(post(silent.fetch, call()), /does not list its tools/);
});
