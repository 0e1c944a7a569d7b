/** The protected handler on Node's own HTTP server, and so in every framework that stands on it. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { certificateOfSocket } from "./certificate.js";
import type { Protected } from "./protect.js";

/** Answers a request of Node's HTTP server. `path` is what the framework took away of its path. */
export async function answerNode(answer: Protected, request: IncomingMessage, response: ServerResponse, path: string): Promise<void> {
  const ended = new AbortController();
  response.once("close", () => ended.abort());
  const fields = fieldsOf(request.rawHeaders);
  const body = bodyOf(request);
  const web = new Request(new URL(path, answer.publicUrl), {
    method: request.method ?? "GET",
    headers: joined(fields),
    signal: ended.signal,
    ...(body === undefined ? {} : { body: body.stream, duplex: "half" }),
  } as RequestInit);
  const clientCertificate = await certificateOfSocket(request.socket);
  const answered = await answer(web, { headers: fields, clientCertificate });
  // What was not read of a body is not read any more.
  if (body !== undefined && !body.isWhole()) response.setHeader("connection", "close");
  await write(answered, response);
}

/** Fields as they came: what stands twice is seen twice. */
export function fieldsOf(rawHeaders: readonly string[]): [string, string][] {
  const fields: [string, string][] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name, value] = rawHeaders.slice(at, at + 2);
    if (name !== undefined && value !== undefined) fields.push([name, value]);
  }
  return fields;
}

function joined(fields: [string, string][]): Headers {
  const headers = new Headers();
  for (const [name, value] of fields) headers.append(name, value);
  return headers;
}

/** The body as it comes, for who bounds its size and time. Reading may stop at any point, and the answer still be sent. */
function bodyOf(request: IncomingMessage): { stream: ReadableStream<Uint8Array>; isWhole: () => boolean } | undefined {
  if (request.method === "GET" || request.method === "HEAD" || request.method === "DELETE") return undefined;
  if (request.readableEnded || ("body" in request && request.body !== undefined)) {
    throw new Error("the body was read already: mount the guard before express.json() and other body parsers");
  }
  const chunks = request.iterator({ destroyOnReturn: false }) as AsyncIterableIterator<Buffer>;
  let isWhole = false;
  const stream = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done === true) {
        isWhole = true;
        controller.close();
      } else {
        controller.enqueue(value);
      }
    },
  });
  return { stream, isWhole: () => isWhole };
}

async function write(from: Response, to: ServerResponse): Promise<void> {
  to.statusCode = from.status;
  for (const [name, value] of from.headers) to.appendHeader(name, value);
  if (from.body === null) {
    to.end();
    return;
  }
  to.flushHeaders();
  const reader = from.body.getReader();
  to.once("close", () => void reader.cancel().catch(() => undefined));
  for (;;) {
    const { done, value } = await reader.read();
    if (done || to.destroyed) break;
    if (!to.write(value)) await drained(to);
  }
  to.end();
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.once("drain", done);
    response.once("close", done);
  });
}
