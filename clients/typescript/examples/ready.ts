/** What the ready file of `deputize dev` says, as far as the examples need it. */

import { readFileSync } from "node:fs";
import type { LinkedGuardSettings } from "@deputize/client/server";

interface ReadyClient {
  client_id: string;
  private_jwk: LinkedGuardSettings["privateKey"];
}

/** The file that the environment variable `DEPUTIZE_READY` names. */
export interface Ready {
  issuer: string;
  user_tokens: Record<string, string>;
  client: ReadyClient;
  servers: { resource: string; client: ReadyClient }[];
  snapshot_jwks: { keys: LinkedGuardSettings["privateKey"][] };
}

/** Reads it. */
export function ready(): Ready {
  return JSON.parse(readFileSync(process.env["DEPUTIZE_READY"] ?? "ready.json", "utf8")) as Ready;
}

/** The settings of the guard in front of a server. In production they come from the server's own configuration. */
export function guardSettings(resource: string): LinkedGuardSettings {
  const { issuer, servers, snapshot_jwks: snapshotKeys } = ready();
  const server = servers.find((each) => each.resource === resource);
  if (server === undefined) throw new Error(`${resource} is not registered: start dev with --register`);
  const { client_id: clientId, private_jwk: privateKey } = server.client;
  return { issuer, resource, publicUrl: resource, clientId, privateKey, snapshotKeys };
}
