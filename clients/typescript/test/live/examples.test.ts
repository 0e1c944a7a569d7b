/** The examples, run as their readers run them. */

import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Dev } from "./dev.js";

const run = promisify(execFile);
const folder = mkdtempSync(join(tmpdir(), "deputize-examples-"));
const ready = join(folder, "ready.json");
let dev: Dev;
let resource: string;

before(async () => {
  const record = join(folder, "orders.json");
  resource = `http://127.0.0.1:${await freePort()}/mcp`;
  const { stdout } = await run(process.execPath, [example("orders")], { env: environment() });
  writeFileSync(record, stdout);
  dev = await Dev.start([record]);
  writeFileSync(ready, JSON.stringify(dev.ready), { mode: 0o600 });
});
after(async () => {
  await dev?.stop();
  rmSync(folder, { recursive: true, force: true });
});

test("the agent calls the server of the development environment", async () => {
  const { stdout } = await agent();
  assert.match(stdout, /tools: lookup_customer/);
  assert.match(stdout, /Grace Gray/);
});

for (const name of ["express-server", "hono-server"]) {
  test(`the agent calls ${name}`, async () => {
    const server = spawn(process.execPath, [example(name)], { env: environment(), stdio: ["ignore", "pipe", "inherit"] });
    try {
      await said(server, "listening");
      const { stdout } = await agent(resource);
      assert.match(stdout, /tools: get_order, cancel_order/);
      assert.match(stdout, /ord_7: 2 chairs/);
    } finally {
      server.kill();
      await new Promise((resolve) => (server.exitCode === null && server.signalCode === null ? server.once("exit", resolve) : resolve(null)));
    }
  });
}

/** A port that was free just now: the server's address has to be known before it is registered. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function example(name: string): string {
  return fileURLToPath(new URL(`../../examples/${name}.js`, import.meta.url));
}

function environment(): NodeJS.ProcessEnv {
  return { ...process.env, DEPUTIZE_READY: ready, ORDERS_URL: resource };
}

function agent(...args: string[]): Promise<{ stdout: string }> {
  return run(process.execPath, [example("agent"), ...args], { env: environment() });
}

function said(server: ChildProcess, word: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = "";
    server.stdout?.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
      if (text.includes(word)) resolve();
    });
    server.once("exit", () => reject(new Error(`it ended: ${text}`)));
  });
}
