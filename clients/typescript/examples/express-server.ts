/** An MCP server on Express, where only calls run that were granted. */

import { linkGuard } from "@deputize/client/server";
import { deputize } from "@deputize/client/express";
import express from "express";
import { orders, RESOURCE } from "./orders.js";
import { guardSettings } from "./ready.js";

const guard = await linkGuard(guardSettings(RESOURCE));
const app = express();
app.use(deputize(guard, orders));

const { hostname, port } = new URL(RESOURCE);
app.listen(Number(port), hostname, () => console.log(`listening on ${RESOURCE}`));
