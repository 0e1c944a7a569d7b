/** The MCP server of the examples: orders that can be looked up and cancelled. Run as a program, it prints its record. */

import { pathToFileURL } from "node:url";
import { registryRecord, verifiedCall } from "@deputize/client/server";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";

/** Where the examples serve it. */
export const RESOURCE = process.env["ORDERS_URL"] ?? "http://127.0.0.1:8787/mcp";

/** The server, as the SDK serves it: nothing in it knows of tokens. */
export const orders = createMcpHandler(() => {
  const server = new McpServer({ name: "orders", version: "1.0.0" });
  const orderId = z.string().regex(/^ord_[0-9]{1,8}$/).max(12);
  server.registerTool(
    "get_order",
    { description: "Returns one order.", inputSchema: z.object({ order_id: orderId }) },
    ({ order_id }) => ({ content: [{ type: "text", text: `${order_id}: 2 chairs, 180.00 EUR` }] }),
  );
  server.registerTool(
    "cancel_order",
    { description: "Cancels an order.", inputSchema: z.object({ order_id: orderId, reason: z.string().max(200) }) },
    ({ order_id }, context) => {
      // Who it is done for, by which agent, in which transaction: verified, for the order's own history.
      const { claims } = verifiedCall(context);
      return { content: [{ type: "text", text: `${order_id} cancelled for ${claims.sub} (${claims.txn})` }] };
    },
  );
  return server;
});

/** What a reviewer reads and a registry holds. */
export function record(): Promise<Record<string, unknown>> {
  return registryRecord(orders, {
    id: "orders",
    resource: RESOURCE,
    version: "1.0.0",
    owner: "shop@corp.example",
    purpose: "Orders of the shop",
    environment: "development",
    dataClass: "internal",
    tools: {
      get_order: { tier: "low", effect: "read", exampleArguments: { order_id: "ord_7" } },
      cancel_order: { tier: "low", effect: "write", exampleArguments: { order_id: "ord_7", reason: "changed my mind" } },
    },
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  console.log(JSON.stringify(await record(), null, 2));
}
