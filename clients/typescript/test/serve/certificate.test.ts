/** Tokens bound to a certificate (RFC 8705), over TLS on the mounts that have a socket. */

import assert from "node:assert/strict";
import { createServer as createTlsServer, request as tlsRequest, type ServerOptions } from "node:https";
import type { Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { createAdaptorServer } from "@hono/node-server";
import express from "express";
import { Hono } from "hono";
import { deputize as deputizeExpress } from "../../src/express.js";
import { deputize as deputizeHono } from "../../src/hono.js";
import { call, l3 } from "../guard/fixture.js";
import { World } from "./mounted.js";
import { type Certified, selfSigned } from "./self-signed.js";

const REFUND = JSON.stringify(call("refund", {}));

for (const kind of ["Express", "Hono"] as const) {
  test(`${kind}: a token bound to a certificate needs the connection that proved it`, async () => {
    const world = await World.create();
    const [own, client, other, stranger] = ["server", "client", "other", "stranger"].map(selfSigned) as [Certified, Certified, Certified, Certified];
    const tls: ServerOptions = {
      key: own.key, cert: own.certificate, requestCert: true, rejectUnauthorized: false,
      ca: [client.certificate, other.certificate],
    };
    const server = listening(kind, world, tls);
    await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
    const { port } = server.address() as AddressInfo;
    const bound = async (certified: Certified, scheme = "Bearer") => {
      const cnf = { "x5t#S256": certified.thumbprint };
      return `${scheme} ${await world.fixture.sign({ ...world.fixture.claims(await l3("refund", {})), cnf })}`;
    };
    const send = (authorization: string, certified?: Certified) => statusOf(port, own, authorization, certified);
    try {
      assert.equal(await send(await bound(client)), 401, "no certificate");
      assert.equal(await send(await bound(client), other), 401, "another");
      assert.equal(await send(await bound(client, "DPoP"), client), 401, "another scheme");
      assert.equal(await send(await bound(stranger), stranger), 401, "one that the server does not accept");
      assert.equal(world.ran.length, 0);
      assert.equal(world.fixture.outside.redeemed.size, 0);
      assert.equal(await send(await bound(client), client), 200);
      assert.equal(world.ran.length, 1);
    } finally {
      server.close();
      server.closeAllConnections();
    }
  });
}

function listening(kind: "Express" | "Hono", world: World, tls: ServerOptions): HttpServer {
  const onError = (error: unknown) => void world.errors.push(error);
  if (kind === "Express") {
    const app = express();
    app.use(deputizeExpress(world.link, world.handler(), { onError }));
    return createTlsServer(tls, app);
  }
  const app = new Hono();
  app.use(deputizeHono(world.link, world.handler(), { onError }));
  return createAdaptorServer({ fetch: app.fetch, createServer: createTlsServer, serverOptions: tls }) as HttpServer;
}

function statusOf(port: number, server: Certified, authorization: string, client?: Certified): Promise<number> {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization, "content-type": "application/json", accept: "application/json, text/event-stream",
      "content-length": String(REFUND.length),
    };
    const identity = client === undefined ? {} : { key: client.key, cert: client.certificate };
    const options = { port, host: "127.0.0.1", path: "/mcp", method: "POST", headers, agent: false, ca: server.certificate, ...identity };
    const request = tlsRequest(options, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode ?? 0));
    });
    request.once("error", reject);
    request.end(REFUND);
  });
}
