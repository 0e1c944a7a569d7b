/** An MCP server on Hono, where only calls run that were granted. */

import { linkGuard } from "@deputize/client/server";
import { deputize } from "@deputize/client/hono";
import { serve } from "@hono/node-server";
import { Hono } from "hono";
import { orders, RESOURCE } from "./orders.js";
import { guardSettings } from "./ready.js";

const guard = await linkGuard(guardSettings(RESOURCE));
const app = new Hono();
app.use(deputize(guard, orders));

const { hostname, port } = new URL(RESOURCE);
serve({ fetch: app.fetch, hostname, port: Number(port) }, () => console.log(`listening on ${RESOURCE}`));
