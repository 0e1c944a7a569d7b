// The reference server of MCP, with a tool of every kind, over Streamable HTTP on a free port. Prints {"url"} once it
// listens; ends with its parent.
import { connect, createServer } from "node:net";

const freePort = () =>
  new Promise((resolve) => {
    const probe = createServer().listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });

const listens = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(socket.destroy() && true));
    socket.once("error", () => resolve(false));
  });

const port = await freePort();
process.env.PORT = String(port);
await import("./node_modules/@modelcontextprotocol/server-everything/dist/transports/streamableHttp.js");
while (!(await listens(port))) await new Promise((resolve) => setImmediate(resolve));
console.log(JSON.stringify({ url: `http://127.0.0.1:${port}/mcp` }));
