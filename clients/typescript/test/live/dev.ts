/** A running `deputize dev`, and what its ready file says. */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, watch } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { JWK } from "jose";

/** A client of the broker. */
export interface ReadyClient {
  client_id: string;
  private_jwk: JWK;
}

/** An MCP server. */
export interface ReadyServer {
  resource: string;
  tools: { name: string; level: string; example_arguments: Record<string, unknown> }[];
  client?: ReadyClient;
}

/** What the ready file says. */
export interface Ready {
  issuer: string;
  admin_url: string;
  user_tokens: Record<string, string>;
  client: ReadyClient;
  servers: ReadyServer[];
  snapshot_jwks?: { keys: JWK[] };
}

/** A development environment of the program that `DEPUTIZE_BIN` names; by default the repository's debug build. */
export class Dev {
  private constructor(
    readonly ready: Ready,
    private readonly end: () => Promise<void>,
  ) {}

  /** Starts one on free ports and waits until it answers. `register` are files with records of further MCP servers. */
  static async start(register: readonly string[] = []): Promise<Dev> {
    const binary = process.env["DEPUTIZE_BIN"] ?? fileURLToPath(new URL(DEFAULT_BINARY, import.meta.url));
    if (!existsSync(binary)) {
      throw new Error(`${binary} is not there: build it (cargo build), or name another with DEPUTIZE_BIN`);
    }
    const folder = mkdtempSync(join(tmpdir(), "deputize-typescript-"));
    const file = join(folder, "ready.json");
    const args = ["dev", "--port", "0", "--ready-file", file, ...register.flatMap((record) => ["--register", record])];
    const child = spawn(binary, args, { stdio: ["ignore", "pipe", "pipe"] });
    let said = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-20_000)));
    }
    const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
    const end = async () => {
      // By its own handle: nothing else is ended.
      child.kill("SIGTERM");
      await ended;
      rmSync(folder, { recursive: true, force: true });
    };
    try {
      await appearance(folder, file, ended);
      return new Dev(JSON.parse(readFileSync(file, "utf8")) as Ready, end);
    } catch (error) {
      await end();
      throw new Error(`deputize dev is not ready: ${String(error)}\n${said}`);
    }
  }

  /** Ends it and waits until it has. */
  stop(): Promise<void> {
    return this.end();
  }

  /** A user's token. */
  userToken(name: string): string {
    const token = this.ready.user_tokens[name];
    if (token === undefined) throw new Error(`no user ${name} in the ready file`);
    return token;
  }

  /** The server at this index. */
  server(index: number): ReadyServer {
    const server = this.ready.servers[index];
    if (server === undefined) throw new Error(`no server ${index} in the ready file`);
    return server;
  }
}

/** The file appears complete or not at all. */
function appearance(folder: string, file: string, ended: Promise<void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const finish = (error?: Error) => {
      clearTimeout(timer);
      watcher.close();
      if (error === undefined) resolve();
      else reject(error);
    };
    const watcher = watch(folder, () => existsSync(file) && finish());
    const timer = setTimeout(() => finish(new Error(`no ready file within ${READY_WITHIN_MS} ms`)), READY_WITHIN_MS);
    void ended.then(() => finish(new Error("it ended")));
    if (existsSync(file)) finish();
  });
}

const DEFAULT_BINARY = "../../../../../target/debug/deputize";
const READY_WITHIN_MS = 120_000;
