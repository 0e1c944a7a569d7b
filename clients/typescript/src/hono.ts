/**
 * A guarded MCP server on Hono.
 *
 * @packageDocumentation
 */

import type { McpHandler } from "./serve/context.js";
import { type LinkedGuardLike, protect, type ProtectSettings } from "./serve/protect.js";

export * from "./server.js";

/** A Hono middleware. */
export type HonoMiddleware = (
  context: { readonly req: { readonly path: string; readonly raw: Request } },
  next: () => Promise<void>,
) => Promise<Response | void>;

/**
 * A middleware that answers the MCP endpoint (the path of `publicUrl`) and the protected resource metadata, and passes
 * every other request on: `app.use(deputize(guard, createMcpHandler(...)))`.
 */
export function deputize(guard: LinkedGuardLike, handler: McpHandler, settings?: ProtectSettings): HonoMiddleware {
  const answer = protect(guard, handler, settings);
  return async ({ req }, next) => {
    if (req.path !== answer.path && req.path !== answer.metadataPath) return next();
    return answer(req.raw);
  };
}
