/** An SDK server behind the middleware, registered at `deputize dev`, called by the official client. */

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { serve as serveHono } from "@hono/node-server";
import { Client as ClientV2, StreamableHTTPClientTransport as TransportV2 } from "@modelcontextprotocol/client";
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as TransportV1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import express from "express";
import { Hono } from "hono";
import * as z from "zod";
import { deputize as deputizeExpress } from "../../src/express.js";
import { deputize as deputizeHono } from "../../src/hono.js";
import { createMcpFetch, DeputizeClient, type Detail, type FetchLike } from "../../src/index.js";
import { linkGuard, type LinkedGuard, registryRecord, SnapshotError, verifiedCall } from "../../src/server.js";
import { Dev } from "./dev.js";

/** Calls that ran, with what the tool saw of who calls. */
const ran: { tool: string; sub: string; actors: readonly string[]; level: string }[] = [];

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: "orders", version: "1.0.0" });
  const inputSchema = z.object({ order_id: z.string().regex(/^ord_[0-9]{1,8}$/), copies: z.number().optional() });
  for (const name of ["get_order", "print_order"]) {
    server.registerTool(name, { description: `${name} by its id.`, inputSchema }, ({ order_id }, context) => {
      const { claims, level, name: tool } = verifiedCall(context);
      ran.push({ tool, sub: claims.sub, actors: claims.actors, level });
      return { content: [{ type: "text", text: `${tool} ${order_id}` }] };
    });
  }
  return server;
});

const folder = mkdtempSync(join(tmpdir(), "deputize-record-"));
const servers: HttpServer[] = [];
const guards: LinkedGuard[] = [];
const problems: Error[] = [];
let dev: Dev;
/** The same server, on Express and on Hono, each with a registration of its own. */
const resources = { Express: "", Hono: "" };

/** A free port of loopback, taken by the listener that is returned. */
async function listening(server: HttpServer): Promise<string> {
  servers.push(server);
  if (!server.listening) await new Promise((resolve) => server.once("listening", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
}

before(async () => {
  // The servers listen first, so that their addresses can be registered; they are guarded before anybody calls.
  const [app, hono] = [express(), new Hono()];
  resources.Express = await listening(createServer(app).listen(0, "127.0.0.1"));
  resources.Hono = await listening(serveHono({ fetch: hono.fetch, hostname: "127.0.0.1", port: 0 }) as HttpServer);
  const files = [];
  for (const [id, resource] of Object.entries(resources)) {
    const risk = { tier: "low", effect: "read", exampleArguments: { order_id: "ord_7" } } as const;
    const record = await registryRecord(handler, {
      id: `orders-${id.toLowerCase()}`, resource, version: "1.0.0", owner: "shop@corp.example", purpose: "Orders",
      environment: "development", dataClass: "internal", tools: { get_order: risk, print_order: risk },
    });
    files.push(join(folder, `${id}.json`));
    writeFileSync(files.at(-1) ?? "", JSON.stringify(record));
  }
  dev = await Dev.start(files);
  for (const [id, resource] of Object.entries(resources)) {
    const guard = await linkGuard(settingsOf(resource));
    guards.push(guard);
    if (id === "Express") app.use(deputizeExpress(guard, handler));
    else hono.use(deputizeHono(guard, handler));
  }
});
after(async () => {
  for (const guard of guards.splice(0)) await guard.close();
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
  await dev?.stop();
  rmSync(folder, { recursive: true, force: true });
});

function settingsOf(resource: string): Parameters<typeof linkGuard>[0] {
  const server = dev.ready.servers.find((each) => each.resource === resource);
  const { client } = server ?? {};
  if (client === undefined || dev.ready.snapshot_jwks === undefined) throw new Error("the ready file names no guard's client");
  return {
    issuer: dev.ready.issuer, resource, publicUrl: resource, clientId: client.client_id, privateKey: client.private_jwk,
    snapshotKeys: dev.ready.snapshot_jwks, onProblem: (problem) => void problems.push(problem),
  };
}

function platform(): Promise<DeputizeClient> {
  const { client_id: clientId, private_jwk: privateKey } = dev.ready.client;
  return DeputizeClient.create({ issuer: dev.ready.issuer, clientId, privateKey });
}

async function fetchOf(user: string, inner?: FetchLike): Promise<FetchLike> {
  const more = inner === undefined ? {} : { fetch: inner };
  return createMcpFetch({ client: await platform(), subjectToken: dev.userToken(user), ...more });
}

interface Caller {
  connect(transport: unknown): Promise<void>;
  listTools(): Promise<{ tools: { name: string }[] }>;
  callTool(params: { name: string; arguments: Record<string, unknown> }): Promise<unknown>;
  close(): Promise<void>;
}

const CLIENTS: Record<string, (url: URL, fetch: FetchLike) => [Caller, unknown]> = {
  "client v2, protocol of 2026": (url, fetch) => [
    new ClientV2({ name: "agent", version: "1" }, { versionNegotiation: { mode: "auto" } }) as unknown as Caller,
    new TransportV2(url, { fetch }),
  ],
  "client v2, protocols of 2025": (url, fetch) => [
    new ClientV2({ name: "agent", version: "1" }) as unknown as Caller,
    new TransportV2(url, { fetch }),
  ],
  "client v1": (url, fetch) => [
    new ClientV1({ name: "agent", version: "1" }) as unknown as Caller,
    new TransportV1(url, { fetch }),
  ],
};

for (const mount of ["Express", "Hono"] as const) {
  for (const [name, open] of Object.entries(CLIENTS)) {
    test(`${mount}, ${name}: lists, and calls in alice's name`, async () => {
      const [mcp, transport] = open(new URL(resources[mount]), await fetchOf("alice"));
      await mcp.connect(transport);
      const { tools } = await mcp.listTools();
      assert.deepEqual(tools.map((tool) => tool.name).sort(), ["get_order", "print_order"]);
      const before = ran.length;
      const result = await mcp.callTool({ name: "get_order", arguments: { order_id: "ord_7" } });
      assert.match(JSON.stringify(result), /get_order ord_7/);
      assert.equal(ran.length, before + 1);
      const [call] = ran.slice(-1);
      assert.deepEqual([call?.tool, call?.level], ["get_order", "L3"]);
      assert.match(call?.sub ?? "", /alice/);
      assert.equal(call?.actors.length, 1);
      await mcp.close();
    });
  }
}

/** One request of an agent, by hand: what the wrapper sends, piece by piece. */
class Hand {
  private constructor(
    private readonly client: DeputizeClient,
    private readonly resource: string,
    private nonce: string,
  ) {}

  static async at(resource: string): Promise<Hand> {
    const bare = await fetch(resource, { method: "POST", headers: { "content-type": "application/json" }, body: bodyOf({}) });
    assert.equal(bare.status, 401);
    return new Hand(await platform(), resource, bare.headers.get("dpop-nonce") ?? "");
  }

  async token(args: Record<string, string | number>, level: "L1" | "L3" = "L3", tool = "get_order"): Promise<string> {
    const detail: Detail = level === "L1" ? { level, tool } : { level, tool, arguments: args };
    const subjectToken = dev.userToken("alice");
    return (await this.client.exchange({ resource: this.resource, subjectToken, detail })).accessToken;
  }

  proof(token: string): Promise<string> {
    return this.client.proofFor("POST", this.resource, token, this.nonce);
  }

  async send(token: string, body: string, more: Record<string, string> = {}, proof?: string): Promise<Response> {
    const response = await fetch(this.resource, {
      method: "POST",
      headers: {
        "content-type": "application/json", accept: "application/json, text/event-stream",
        authorization: `DPoP ${token}`, dpop: proof ?? (await this.proof(token)), ...more,
      },
      body,
    });
    this.nonce = response.headers.get("dpop-nonce") ?? this.nonce;
    return response;
  }

  revoke(token: string): Promise<void> {
    return this.client.revoke(token);
  }
}

function bodyOf(args: unknown, name = "get_order"): string {
  return JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } });
}

/** Nothing runs; says with which status and error. */
async function refused(response: Promise<Response>): Promise<[number, string]> {
  const before = ran.length;
  const answer = await response;
  const { error } = (await answer.json()) as { error: string };
  assert.ok(answer.status >= 400);
  assert.equal(ran.length, before, "it ran");
  return [answer.status, error];
}

const ORDER = { order_id: "ord_7", copies: 1 };

for (const mount of ["Express", "Hono"] as const) {
  test(`${mount}: a token is good for its call alone, once (H-30)`, async () => {
    const hand = await Hand.at(resources[mount]);
    const wrong = [403, "insufficient_scope"];
    const token = await hand.token(ORDER);
    assert.deepEqual(await refused(hand.send(token, bodyOf({ ...ORDER, order_id: "ord_8" }))), wrong);
    assert.deepEqual(await refused(hand.send(token, bodyOf({ ...ORDER, copies: 2 }))), wrong);
    assert.deepEqual(await refused(hand.send(token, bodyOf({ order_id: "ord_7" }))), wrong);
    assert.deepEqual(await refused(hand.send(token, bodyOf(ORDER, "print_order"))), wrong);
    assert.deepEqual(await refused(hand.send(token, bodyOf({ ...ORDER, extra: true }))), wrong);
    // Nothing of this used it up: reordered and written another way it is still the same call.
    const proof = await hand.proof(token);
    const passed = await hand.send(token, bodyOf({ copies: 1, order_id: "ord_7" }).replace(":1,\"order", ":1.0,\"order"), {}, proof);
    assert.equal(passed.status, 200, await passed.clone().text());
    await passed.body?.cancel();
    assert.deepEqual(await refused(hand.send(token, bodyOf(ORDER), {}, proof)), [401, "invalid_dpop_proof"]);
    assert.deepEqual(await refused(hand.send(token, bodyOf(ORDER))), [401, "invalid_token"], "the second use");
  });

  test(`${mount}: a token of another server, and one that was revoked`, async () => {
    const hand = await Hand.at(resources[mount]);
    const elsewhere = await Hand.at(resources[mount === "Express" ? "Hono" : "Express"]);
    assert.deepEqual(await refused(hand.send(await elsewhere.token(ORDER), bodyOf(ORDER))), [401, "invalid_token"]);
    for (const level of ["L1", "L3"] as const) {
      const token = await hand.token(ORDER, level);
      await hand.revoke(token);
      // An L1 token is not redeemed: the revocation has to have reached the guard.
      const end = performance.now() + 5_000;
      let answer: [number, string] | undefined;
      do answer = await refused(hand.send(token, bodyOf(ORDER))).catch(() => undefined);
      while (answer === undefined && performance.now() < end);
      assert.deepEqual(answer, [401, "invalid_token"], level);
    }
  });

  test(`${mount}: bodies that two readers could read differently (H-31)`, async () => {
    const hand = await Hand.at(resources[mount]);
    const one = bodyOf(ORDER);
    for (const body of [
      `[${one},${one}]`,
      one.replace('"id":1', '"id":{}'),
      one.replace('"method"', '"method":"tools/list","method"'),
      one.replace('"id":1,', ""),
      `${one}{}`,
    ]) {
      assert.deepEqual(await refused(hand.send(await hand.token(ORDER), body)), [400, "invalid_request"], body);
    }
    const token = await hand.token(ORDER);
    assert.deepEqual(await refused(hand.send(token, one, { "mcp-name": "print_order" })), [400, "invalid_request"]);
    assert.deepEqual(await refused(hand.send(token, one, { "content-encoding": "gzip" })), [415, "invalid_request"]);
    assert.deepEqual(await refused(hand.send(token, one, { authorization: `Bearer ${token}` })), [401, "invalid_token"]);
    const passed = await hand.send(token, one, { "mcp-name": "get_order", "mcp-method": "tools/call" });
    assert.equal(passed.status, 200);
    await passed.body?.cancel();
  });
}

test("a guard speaks for its own server alone, and believes configured keys alone", async () => {
  const settings = settingsOf(resources.Express);
  const other = settingsOf(resources.Hono);
  const { resource, publicUrl } = other;
  const foreign = await linkGuard({ ...settings, resource, publicUrl }).catch((error: unknown) => error);
  assert.ok(foreign instanceof SnapshotError && foreign.problem === "other", String(foreign));
  const snapshotKeys = [{ ...(dev.ready.snapshot_jwks?.keys[0] ?? {}), kid: "another" }];
  const unbelieving = await linkGuard({ ...settings, snapshotKeys }).catch((error: unknown) => error);
  assert.ok(unbelieving instanceof SnapshotError && unbelieving.problem === "signature", String(unbelieving));
});

test("the broker took what the guards saw, and their links held", async () => {
  for (const guard of guards.splice(0)) await guard.close();
  assert.deepEqual(problems.map(String), []);
});
