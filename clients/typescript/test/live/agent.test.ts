/** An agent: exchange, and the official MCP clients through the fetch wrapper, against `deputize dev`. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client as ClientV2, StreamableHTTPClientTransport as TransportV2 } from "@modelcontextprotocol/client";
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as TransportV1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  AccessDeniedError, createMcpFetch, DeputizeClient, ExchangeError, type FetchLike, ToolChangedError,
} from "../../src/index.js";
import { Dev } from "./dev.js";

let dev: Dev;
let crm: string;

before(async () => {
  dev = await Dev.start();
  crm = dev.server(0).resource;
});
after(() => dev?.stop());

function platform(fetch?: FetchLike): Promise<DeputizeClient> {
  const { client_id: clientId, private_jwk: privateKey } = dev.ready.client;
  return DeputizeClient.create({
    issuer: dev.ready.issuer, clientId, privateKey, ...(fetch === undefined ? {} : { fetch }),
  });
}

/** Counts the exchanges that really went out. */
async function counted(): Promise<{ client: DeputizeClient; exchanges: () => number }> {
  let exchanges = 0;
  const client = await platform((url, init) => {
    if (String(url).endsWith("/token")) exchanges += 1;
    return fetch(url, init);
  });
  return { client, exchanges: () => exchanges };
}

const lookup = (customer: string) =>
  ({ level: "L3", tool: "lookup_customer", arguments: { customer_id: customer } }) as const;

test("every level is exchanged for, and only what may serve again is cached", async () => {
  const { client, exchanges } = await counted();
  const subjectToken = dev.userToken("alice");
  const constraints = { "/customer_id": { enum: ["cus_17", "cus_18"] } };
  for (const [detail, cached] of [
    [{ level: "L0" }, true],
    [{ level: "L1", tool: "lookup_customer" }, true],
    [{ level: "L2", tool: "lookup_customer", constraints }, false],
    [lookup("cus_17"), false],
  ] as const) {
    const request = { resource: crm, subjectToken, detail };
    await client.exchange({ resource: crm, subjectToken }); // the nonce is known by now
    const first = await client.exchange(request);
    const before = exchanges();
    const second = await client.exchange(request);
    assert.equal(exchanges() > before, !cached && (first.maxUses ?? Infinity) <= 1, detail.level);
    assert.equal(first.transactionId.length > 0 && first.decisionId.length > 0, true);
    assert.equal(second.bindsOneCall, detail.level === "L3");
  }
});

test("what the broker refuses says why, which decision it was, and what to do", async () => {
  const client = await platform();
  const subjectToken = dev.userToken("alice");
  const refused = async (request: Parameters<DeputizeClient["exchange"]>[0]) => {
    const error = await client.exchange(request).then(() => assert.fail("granted"), (error: unknown) => error);
    assert.ok(error instanceof ExchangeError, String(error));
    assert.ok(error.decisionId !== undefined && error.decisionId.length > 30, "a decision's id");
    assert.ok(error.whatToDo.length > 10);
    return error;
  };
  assert.equal((await refused({ resource: `${crm}/other`, subjectToken })).error, "invalid_target");
  assert.equal((await refused({ resource: crm, subjectToken: "a.b.c" })).error, "invalid_request");
  const unknown = { level: "L1", tool: "no_such_tool" } as const;
  assert.equal((await refused({ resource: crm, subjectToken, detail: unknown })).error, "invalid_authorization_details");
  const critical = { level: "L3", tool: "export_customers", arguments: { format: "json" } } as const;
  const denied = await refused({ resource: crm, subjectToken, detail: critical });
  assert.ok(["access_denied", "authorization_pending"].includes(denied.error), denied.error);
  if (denied.error === "access_denied") assert.ok(denied instanceof AccessDeniedError);
});

test("a key that the broker does not know is refused", async () => {
  const { generateKeyPair, exportJWK } = await import("jose");
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  const { client_id: clientId } = dev.ready.client;
  const stranger = await DeputizeClient.create({
    issuer: dev.ready.issuer, clientId, privateKey: await exportJWK(privateKey),
  });
  await assert.rejects(
    stranger.exchange({ resource: crm, subjectToken: dev.userToken("alice") }),
    (error: unknown) => error instanceof ExchangeError && error.error === "invalid_client" && error.status === 401,
  );
});

test("a token is introspected, revoked, and not handed out again", async () => {
  const client = await platform();
  const request = { resource: crm, subjectToken: dev.userToken("alice") };
  const token = await client.exchange(request);
  assert.equal((await client.introspect(token.accessToken)).active, true);
  await client.revoke(token.accessToken);
  assert.equal((await client.introspect(token.accessToken)).active, false);
  assert.notEqual((await client.exchange(request)).accessToken, token.accessToken);
});

test("a token stays out of what is shown", async () => {
  const { inspect } = await import("node:util");
  const client = await platform();
  const token = await client.exchange({ resource: crm, subjectToken: dev.userToken("alice") });
  for (const shown of [inspect(token, { showHidden: true }), JSON.stringify(token), inspect(client, { depth: 9 })]) {
    assert.ok(!shown.includes(token.accessToken));
    assert.ok(!shown.includes(dev.ready.client.private_jwk.d ?? "?"));
  }
});

interface Caller {
  connect(transport: unknown): Promise<void>;
  listTools(): Promise<{ tools: { name: string }[] }>;
  callTool(params: { name: string; arguments: Record<string, unknown> }): Promise<unknown>;
  close(): Promise<void>;
}

/** The official clients: each is handed the wrapper and nothing else. */
const OFFICIAL: Record<string, (fetch: FetchLike) => [Caller, unknown]> = {
  "@modelcontextprotocol/client (v2)": (fetch) => [
    new ClientV2({ name: "agent", version: "1.0.0" }) as unknown as Caller,
    new TransportV2(new URL(crm), { fetch }),
  ],
  "@modelcontextprotocol/sdk (v1)": (fetch) => [
    new ClientV1({ name: "agent", version: "1.0.0" }) as unknown as Caller,
    new TransportV1(new URL(crm), { fetch }),
  ],
};

for (const [name, open] of Object.entries(OFFICIAL)) {
  test(`${name} lists and calls, one token for each call`, async () => {
    const { client, exchanges } = await counted();
    const fetch = createMcpFetch({ client, subjectToken: () => dev.userToken("alice") });
    const [mcp, transport] = open(fetch);
    await mcp.connect(transport);
    const { tools } = await mcp.listTools();
    assert.ok(tools.some((tool) => tool.name === "lookup_customer"));
    const before = exchanges();
    for (const customer of ["cus_17", "cus_17", "cus_18"]) {
      const result = (await mcp.callTool({ name: "lookup_customer", arguments: { customer_id: customer } })) as {
        isError?: boolean;
        structuredContent?: { customer_id: string };
      };
      assert.notEqual(result.isError, true);
      assert.equal(result.structuredContent?.customer_id, customer);
    }
    assert.equal(exchanges() - before, 3);
    await mcp.close();
  });
}

test("tokens of one tool serve again, and a tighter one is fetched where the server wants it", async () => {
  const { client, exchanges } = await counted();
  const fetch = createMcpFetch({ client, subjectToken: dev.userToken("alice"), level: () => "L1" });
  const mcp = new ClientV2({ name: "agent", version: "1.0.0" });
  await mcp.connect(new TransportV2(new URL(crm), { fetch }));
  const before = exchanges();
  await mcp.callTool({ name: "lookup_customer", arguments: { customer_id: "cus_17" } });
  await mcp.callTool({ name: "lookup_customer", arguments: { customer_id: "cus_18" } });
  assert.equal(exchanges() - before, 1);
  await mcp.close();
});

test("a tool whose live definition is not the approved one is not called", async () => {
  const client = await platform();
  let called = 0;
  /** What stands between: it changes one character of a description. */
  const altering: FetchLike = async (url, init) => {
    if (String(init?.body).includes("tools/call")) called += 1;
    const response = await fetch(url, init);
    if (!String(init?.body).includes("tools/list") || !response.ok) return response;
    const text = (await response.text()).replace("payments of one customer.", "payments of one customer!");
    return new Response(text, { status: response.status, headers: response.headers });
  };
  const mcp = new ClientV2({ name: "agent", version: "1.0.0" });
  const wrapped = createMcpFetch({ client, subjectToken: dev.userToken("alice"), fetch: altering });
  await mcp.connect(new TransportV2(new URL(crm), { fetch: wrapped }));
  await mcp.listTools();
  await assert.rejects(
    mcp.callTool({ name: "lookup_customer", arguments: { customer_id: "cus_17" } }),
    (error: unknown) => error instanceof ToolChangedError && error.tool === "lookup_customer",
  );
  assert.equal(called, 0);
  await mcp.close();
});

test("a call that the broker refuses rejects with its error, and nothing is sent", async () => {
  const client = await platform();
  let called = 0;
  const counting: FetchLike = (url, init) => {
    if (String(init?.body).includes("tools/call")) called += 1;
    return fetch(url, init);
  };
  const mcp = new ClientV2({ name: "agent", version: "1.0.0" });
  const wrapped = createMcpFetch({ client, subjectToken: dev.userToken("alice"), fetch: counting });
  await mcp.connect(new TransportV2(new URL(crm), { fetch: wrapped }));
  await assert.rejects(
    mcp.callTool({ name: "export_customers", arguments: { format: "json" } }),
    (error: unknown) => error instanceof ExchangeError && error.decisionId !== undefined,
  );
  assert.equal(called, 0);
  await mcp.close();
});
