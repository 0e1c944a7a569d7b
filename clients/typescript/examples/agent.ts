/** An agent that calls an MCP server in alice's name: each call with a token of its own, good for that call, once. */

import { createMcpFetch, DeputizeClient, ExchangeError } from "@deputize/client";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { ready } from "./ready.js";

const { issuer, client, user_tokens: userTokens, servers } = ready();
const deputize = await DeputizeClient.create({ issuer, clientId: client.client_id, privateKey: client.private_jwk });

// The one change to an agent: the `fetch` of its transport.
const fetch = createMcpFetch({ client: deputize, subjectToken: userTokens["alice"] ?? "" });
const url = new URL(process.argv[2] ?? servers[0]?.resource ?? "");
const mcp = new Client({ name: "example-agent", version: "1.0.0" });
await mcp.connect(new StreamableHTTPClientTransport(url, { fetch }));

const { tools } = await mcp.listTools();
console.log("tools:", tools.map((tool) => tool.name).join(", "));
const EXAMPLES: [tool: string, args: Record<string, string>][] = [
  ["get_order", { order_id: "ord_7" }],
  ["restart_instance", { instance_id: "i-0123456789abcdef0" }],
];
const known = EXAMPLES.find(([each]) => tools.some((tool) => tool.name === each));
const [name, args] = known ?? ["lookup_customer", { customer_id: "cus_17" }];
try {
  const { content } = await mcp.callTool({ name, arguments: args });
  console.log(`${name}:`, JSON.stringify(content));
} catch (error) {
  if (!(error instanceof ExchangeError)) throw error;
  console.error(`refused: ${error.error} (decision ${error.decisionId}); ${error.whatToDo}`);
  process.exitCode = 3;
}
await mcp.close();
