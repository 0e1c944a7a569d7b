/**
 * An MCP server whose tool restarts the EC2 instance that a call names. During that call it can restart no other.
 *
 *     node build/examples/aws-server.js record > operations.json
 *     deputize dev --ready-file ready.json --register operations.json &
 *     DEPUTIZE_READY=ready.json node build/examples/aws-server.js &
 *     DEPUTIZE_READY=ready.json node build/examples/agent.js http://127.0.0.1:8788/mcp
 *
 * The broker needs `aws` in its configuration, and a role template for this tool: see docs/aws.md. Without one the tool
 * fails and says so. This server holds no AWS key.
 */

import { pathToFileURL } from "node:url";
import { EC2Client, RebootInstancesCommand } from "@aws-sdk/client-ec2";
import { deputize } from "@deputize/client/express";
import { linkGuard, registryRecord, verifiedCall } from "@deputize/client/server";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import express from "express";
import * as z from "zod";
import { guardSettings } from "./ready.js";

const RESOURCE = process.env["OPERATIONS_URL"] ?? "http://127.0.0.1:8788/mcp";
const REGION = process.env["AWS_REGION"] ?? "eu-central-1";

/** The server, as the SDK serves it. */
export const operations = createMcpHandler(() => {
  const server = new McpServer({ name: "operations", version: "1.0.0" });
  const inputSchema = z.object({ instance_id: z.string().regex(/^i-[0-9a-f]{17}$/) });
  server.registerTool("restart_instance", { description: "Restarts an EC2 instance.", inputSchema }, async ({ instance_id }, context) => {
    const call = verifiedCall(context);
    // The credentials of this call: for this instance, for five minutes. AWS's log names the user and the decision.
    const ec2 = new EC2Client({ region: REGION, credentials: call.awsCredentials() });
    await ec2.send(new RebootInstancesCommand({ InstanceIds: [instance_id] }));
    return { content: [{ type: "text", text: `${instance_id} restarts for ${call.claims.sub}` }] };
  });
  return server;
});

async function main(command: string | undefined): Promise<void> {
  if (command === "record") {
    const restart = { tier: "medium", effect: "write", exampleArguments: { instance_id: "i-0123456789abcdef0" } } as const;
    const about = { version: "1.0.0", owner: "ops@corp.example", purpose: "Operations", environment: "development" } as const;
    const more = { id: "operations", resource: RESOURCE, dataClass: "internal", tools: { restart_instance: restart } } as const;
    console.log(JSON.stringify(await registryRecord(operations, { ...about, ...more }), null, 2));
    return;
  }
  const app = express();
  app.use(deputize(await linkGuard(guardSettings(RESOURCE)), operations));
  const { hostname, port } = new URL(RESOURCE);
  app.listen(Number(port), hostname, () => console.log(`listening on ${RESOURCE}`));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main(process.argv[2]);
