/**
 * A guarded MCP server on Express (and everything else that speaks Node's `(request, response, next)`).
 *
 * @packageDocumentation
 */

import type { IncomingMessage, ServerResponse } from "node:http";
import type { McpHandler } from "./serve/context.js";
import { answerNode } from "./serve/node.js";
import { type LinkedGuardLike, protect, type ProtectSettings } from "./serve/protect.js";

export * from "./server.js";

/** An Express middleware. */
export type NodeMiddleware = (
  request: IncomingMessage & { originalUrl?: string },
  response: ServerResponse,
  next: (error?: unknown) => void,
) => void;

/**
 * A middleware that answers the MCP endpoint (the path of `publicUrl`) and the protected resource metadata, and passes
 * every other request on. Mount it before body parsers: `app.use(deputize(guard, createMcpHandler(...)))`.
 */
export function deputize(guard: LinkedGuardLike, handler: McpHandler, settings?: ProtectSettings): NodeMiddleware {
  const answer = protect(guard, handler, settings);
  return (request, response, next) => {
    const [path = "/"] = (request.originalUrl ?? request.url ?? "/").split("?", 1);
    if (path !== answer.path && path !== answer.metadataPath) return next();
    answerNode(answer, request, response, path).catch((error: unknown) => {
      // Who hung up hears nothing any more.
      if (!response.destroyed) next(error);
    });
  };
}
