/**
 * A guarded MCP server on Hono.
 *
 * @packageDocumentation
 */

import { certificateOfSocket } from "./serve/certificate.js";
import type { McpHandler } from "./serve/context.js";
import { fieldsOf } from "./serve/node.js";
import { type LinkedGuardLike, protect, type ProtectSettings } from "./serve/protect.js";

export * from "./server.js";

/** A Hono middleware. */
export type HonoMiddleware = (
  context: { readonly req: { readonly path: string; readonly raw: Request }; readonly env?: unknown },
  next: () => Promise<void>,
) => Promise<Response | void>;

/**
 * A middleware that answers the MCP endpoint (the path of `publicUrl`) and the protected resource metadata, and passes
 * every other request on: `app.use(deputize(guard, createMcpHandler(...)))`.
 */
export function deputize(guard: LinkedGuardLike, handler: McpHandler, settings?: ProtectSettings): HonoMiddleware {
  const answer = protect(guard, handler, settings);
  return async ({ req, env }, next) => {
    if (req.path !== answer.path && req.path !== answer.metadataPath) return next();
    // On Node, `@hono/node-server` hands on the request that it got.
    const incoming = (env as { incoming?: { socket?: unknown; rawHeaders?: readonly string[] } } | undefined)?.incoming;
    const { rawHeaders } = incoming ?? {};
    const headers = rawHeaders === undefined ? {} : { headers: fieldsOf(rawHeaders) };
    return answer(req.raw, { ...headers, clientCertificate: await certificateOfSocket(incoming?.socket) });
  };
}
