/** An MCP server of the official SDK behind the middleware, on each of its mounts, and raw requests to it. */

import { createServer, request as httpRequest, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { serve as serveHono } from "@hono/node-server";
import { createMcpHandler, Server } from "@modelcontextprotocol/server";
import express from "express";
import { Hono } from "hono";
import { deputize as deputizeExpress } from "../../src/express.js";
import { deputize as deputizeHono } from "../../src/hono.js";
import type { GuardEvent } from "../../src/link/reporter.js";
import { type LinkedGuardLike, type McpHandler, protect, type ProtectSettings, verifiedCall } from "../../src/server.js";
import type { VerifiedCall } from "../../src/guard/verified.js";
import { DEFINITIONS, type Draft, Fixture } from "../guard/fixture.js";

/** An answer, received whole. */
export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

/** Ways to stand in front of a server. */
export const MOUNTS = ["web-standard", "Express", "Hono"] as const;
export type Mount = (typeof MOUNTS)[number];

/** A link that is a class of its own, as the real one is. */
class FakeLink implements LinkedGuardLike {
  constructor(
    readonly guard: LinkedGuardLike["guard"],
    private readonly events: GuardEvent[],
  ) {}

  report(event: GuardEvent): void {
    this.events.push(event);
  }
}

/** What runs when a call passes, and what it saw. */
export class World {
  readonly ran: VerifiedCall[] = [];
  readonly seenHeaders: Headers[] = [];
  readonly events: GuardEvent[] = [];
  readonly errors: unknown[] = [];
  /** What the server lists; may be changed. */
  definitions: object[] = [...DEFINITIONS];
  private readonly ends: (() => Promise<unknown>)[] = [];

  private constructor(readonly fixture: Fixture) {}

  static async create(settings: Parameters<typeof Fixture.create>[0] = {}): Promise<World> {
    return new World(await Fixture.create(settings));
  }

  get link(): LinkedGuardLike {
    return new FakeLink(this.fixture.guard, this.events);
  }

  /** The server: low-level, so that it lists exactly what it is told. */
  handler(): McpHandler {
    return createMcpHandler(({ requestInfo }) => {
      const server = new Server({ name: "pay", version: "1.0.0" }, { capabilities: { tools: {} } });
      server.setRequestHandler("tools/list", () => ({ tools: this.definitions as never[] }));
      server.setRequestHandler("tools/call", (request, context) => {
        this.ran.push(verifiedCall(context));
        this.seenHeaders.push(requestInfo?.headers ?? new Headers());
        return { content: [{ type: "text", text: `ran ${request.params.name}` }] };
      });
      return server;
    });
  }

  /** Mounts a handler, and says how to send to it. */
  async mount(kind: Mount, handler = this.handler(), more: ProtectSettings = {}): Promise<(draft: Draft) => Promise<Answer>> {
    const settings: ProtectSettings = { onError: (error) => void this.errors.push(error), ...more };
    if (kind === "web-standard") {
      const answer = protect(this.link, handler, settings);
      return (draft) => sendTo(answer, draft);
    }
    const port = await this.listen(kind, handler, settings);
    return (draft) => sendOver(port, draft);
  }

  /** Listens on a free port of loopback. */
  async listen(kind: "Express" | "Hono", handler = this.handler(), settings: ProtectSettings = {}): Promise<number> {
    let server: HttpServer;
    if (kind === "Express") {
      const app = express();
      app.use(deputizeExpress(this.link, handler, settings));
      app.get("/health", (_, response) => void response.send("well"));
      server = createServer(app).listen(0, "127.0.0.1");
    } else {
      const app = new Hono();
      app.use(deputizeHono(this.link, handler, settings));
      app.get("/health", (context) => context.text("well"));
      server = serveHono({ fetch: app.fetch, hostname: "127.0.0.1", port: 0 }) as HttpServer;
    }
    await new Promise((resolve) => (server.listening ? resolve(null) : server.once("listening", resolve)));
    this.ends.push(
      () =>
        new Promise((resolve) => {
          server.close(resolve);
          server.closeAllConnections();
        }),
    );
    return (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    for (const end of this.ends.splice(0)) await end();
  }
}

async function sendTo(answer: ReturnType<typeof protect>, draft: Draft): Promise<Answer> {
  const headers = new Headers();
  for (const [name, value] of draft.headers) headers.append(name, value);
  const body = isBare(draft) ? {} : { body: draft.body.slice() };
  const request = new Request(`https://pay.example.com${draft.path}`, { method: draft.method, headers, ...body });
  const response = await answer(request, { headers: draft.headers, clientCertificate: draft.certificate });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

function isBare({ method }: Draft): boolean {
  return method === "GET" || method === "DELETE";
}

/** Over a socket, header fields as they stand. */
function sendOver(port: number, draft: Draft): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers = [["Host", "pay.example.com"], ...draft.headers].flat();
    if (!isBare(draft)) headers.push("Content-Length", String(draft.body.length));
    const { method, path } = draft;
    const request = httpRequest({ port, host: "127.0.0.1", method, path, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("end", () => {
        const fields = new Headers();
        for (let at = 0; at + 1 < response.rawHeaders.length; at += 2) {
          fields.append(response.rawHeaders[at] ?? "", response.rawHeaders[at + 1] ?? "");
        }
        resolve({ status: response.statusCode ?? 0, headers: fields, text: Buffer.concat(chunks).toString() });
      });
    });
    request.once("error", reject);
    request.end(isBare(draft) ? undefined : draft.body);
  });
}
