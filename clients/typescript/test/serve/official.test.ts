/** A server of the official SDK with sessions behind the middleware on Express, called by the official client. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CreateMessageRequestSchema, ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { Server, WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/server";
import { exportJWK, generateKeyPair } from "jose";
import { createMcpFetch, DeputizeClient, type FetchLike, type McpFetchSettings } from "../../src/index.js";
import type { McpHandler } from "../../src/server.js";
import { DEFINITIONS, ISSUER, l0, l1, l3, type Loose, RESOURCE } from "../guard/fixture.js";
import { World } from "./mounted.js";

const open: World[] = [];
afterEach(async () => {
  for (const world of open.splice(0)) await world.close();
});

/** As the SDK's documentation has it: a transport for each session. */
function handlerWithSessions(): McpHandler {
  const transports = new Map<string, WebStandardStreamableHTTPServerTransport>();
  return async (request, { authInfo, parsedBody }) => {
    let transport = transports.get(request.headers.get("mcp-session-id") ?? "");
    if (transport === undefined) {
      const opened = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: () => crypto.randomUUID(),
        onsessioninitialized: (id) => void transports.set(id, opened),
      });
      await newServer().connect(opened);
      transport = opened;
    }
    const options = { ...(authInfo === undefined ? {} : { authInfo }), ...(parsedBody === undefined ? {} : { parsedBody }) };
    return transport.handleRequest(request, options);
  };
}

function newServer(): Server {
  const server = new Server({ name: "pay", version: "1.0.0" }, { capabilities: { tools: {} } });
  server.setRequestHandler("tools/list", () => ({ tools: DEFINITIONS as never[] }));
  server.setRequestHandler("tools/call", async ({ params }, context) => {
    const wanted = params.arguments?.["note"] === "think"
      ? () => server.createMessage({ messages: [], maxTokens: 5 })
      : () => context.mcpReq.elicitInput({ message: "which?", requestedSchema: { type: "object", properties: {} } });
    const text = await wanted().then((answer) => JSON.stringify(answer), (error: unknown) => `refused: ${String(error)}`);
    return { content: [{ type: "text", text }] };
  });
  return server;
}

/** The official client, and what it was asked. */
async function connected(level: NonNullable<McpFetchSettings["level"]>): Promise<{ mcp: Client; asked: string[] }> {
  const world = await World.create();
  open.push(world);
  const f = world.fixture;
  const port = await world.listen("Express", handlerWithSessions());
  const { privateKey } = await generateKeyPair("ES256", { extractable: true });
  let thumbprint = "";
  const broker: FetchLike = async (url, init) => {
    if (String(url).includes("/.well-known/")) return Response.json({ issuer: ISSUER, token_endpoint: `${ISSUER}/token` });
    const form = new URLSearchParams(String(init?.body));
    const [asked = {}] = JSON.parse(form.get("authorization_details") ?? "[]") as Loose[];
    const name = asked["identifier"] as string | undefined;
    const detail = name === undefined ? l0() : asked["arguments"] === undefined ? await l1(name) : await l3(name, asked["arguments"]);
    return Response.json({
      access_token: await f.sign({ ...f.claims(detail), cnf: { jkt: thumbprint } }), authorization_details: [detail],
      token_type: "DPoP", expires_in: 60, scope: "tool", transaction_id: "t", decision_id: "d",
    });
  };
  const clock = { nowMs: () => f.now * 1000, uptimeMs: () => f.uptimeMs, uniqueId: () => crypto.randomUUID() };
  const jwk = await exportJWK(privateKey);
  const client = await DeputizeClient.create({ issuer: ISSUER, clientId: "p", privateKey: jwk, fetch: broker, clock });
  thumbprint = client.thumbprint;
  // The server's public URL leads to the port.
  const wire: FetchLike = (url, init) => fetch(String(url).replace("https://pay.example.com", `http://127.0.0.1:${port}`), init);
  const mcp = new Client({ name: "agent", version: "1" }, { capabilities: { elicitation: {}, sampling: {} } });
  const asked: string[] = [];
  mcp.setRequestHandler(ElicitRequestSchema, ({ params }) => {
    asked.push(params.message);
    return { action: "accept", content: {} };
  });
  mcp.setRequestHandler(CreateMessageRequestSchema, () => assert.fail("the client was asked for its model"));
  const wrapped = createMcpFetch({ client, subjectToken: "user", fetch: wire, level });
  await mcp.connect(new StreamableHTTPClientTransport(new URL(RESOURCE), { fetch: wrapped }));
  return { mcp, asked };
}

const textOf = async (called: Promise<unknown>) => ((await called) as { content: { text: string }[] }).content[0]?.text ?? "";

test("a loose call may ask its user, and no call the model", async () => {
  const { mcp, asked } = await connected(() => "L1");
  assert.match(await textOf(mcp.callTool({ name: "lookup", arguments: {} })), /accept/);
  assert.deepEqual(asked, ["which?"]);
  assert.match(await textOf(mcp.callTool({ name: "lookup", arguments: { note: "think" } })), /refused: /);
  await mcp.close();
});

test("a call that was decided as it stands asks nobody, and the session goes on", async () => {
  const { mcp, asked } = await connected(() => "L3");
  assert.match(await textOf(mcp.callTool({ name: "refund", arguments: {} })), /refused: .*fixes it/);
  assert.deepEqual(asked, []);
  assert.deepEqual((await mcp.listTools()).tools.map(({ name }) => name), DEFINITIONS.map(({ name }) => name));
  await mcp.close();
});
