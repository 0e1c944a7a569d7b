// A small MCP server as its author would write it who knows that a guard stands before it. `http` listens on PORT and
// answers whoever brings the secret that it was started with; `stdio` speaks over stdin and stdout. Its one tool tells
// what it learned of the call.
import { createServer } from "node:http";
import { createInterface } from "node:readline";

const tool = {
  name: "tell",
  description: "Tells what the server learned of the call.",
  inputSchema: { type: "object", properties: { note: { type: "string" } }, additionalProperties: false },
};

function answer({ id, method, params }, call) {
  if (id === undefined) return undefined;
  const say = (result) => ({ jsonrpc: "2.0", id, result });
  switch (method) {
    case "initialize":
      return say({
        protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "own", version: "1" },
      });
    case "tools/list":
      return say({ tools: [tool] });
    case "tools/call":
      return say({ content: [], structuredContent: { pid: process.pid, call: call ?? null, meta: params._meta ?? null } });
    default:
      return { jsonrpc: "2.0", id, error: { code: -32601, message: "method not found" } };
  }
}

function http() {
  const secret = process.env.DEPUTIZE_GUARD_SECRET;
  if (!secret) throw new Error("started without a guard");
  createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      if (request.headers["deputize-guard"] !== secret) return response.writeHead(401).end();
      if (request.method !== "POST") return response.writeHead(405).end();
      const said = answer(JSON.parse(body), request.headers["deputize-call"]);
      if (said === undefined) return response.writeHead(202).end();
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(said));
    });
  }).listen(Number(process.env.PORT), "127.0.0.1");
}

function stdio() {
  createInterface({ input: process.stdin }).on("line", (line) => {
    const said = answer(JSON.parse(line));
    if (said !== undefined) process.stdout.write(`${JSON.stringify(said)}\n`);
  });
}

process.argv[2] === "http" ? http() : stdio();
