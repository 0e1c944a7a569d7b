/** Where the broker's endpoints are (RFC 8414). */

import { ConfigurationError, ProtocolError } from "./errors.js";
import type { Transport } from "./transport.js";

/** The endpoints that a client uses. */
export interface Endpoints {
  readonly token: string;
  readonly introspection: string;
  readonly revocation: string;
  readonly redemption: string;
}

/** Fetches and checks the metadata of `issuer`. */
export async function discover(transport: Transport, issuer: string): Promise<Endpoints> {
  const { status, body } = await transport.get(wellKnown(issuer, "oauth-authorization-server"));
  if (status !== 200) throw new ProtocolError("the broker has no metadata");
  // RFC 8414 §3.3: identical to the issuer that was asked.
  if (body["issuer"] !== issuer) throw new ProtocolError("the metadata is of another issuer");
  const at = (member: string, path: string): string => {
    const url = body[member] ?? `${issuer.replace(/\/$/, "")}/${path}`;
    if (typeof url !== "string" || !isSafeUrl(url)) throw new ProtocolError(`${member} in the metadata is not https`);
    return url;
  };
  return {
    token: at("token_endpoint", "token"),
    introspection: at("introspection_endpoint", "introspect"),
    revocation: at("revocation_endpoint", "revoke"),
    redemption: at("redemption_endpoint", "redeem"),
  };
}

/** RFC 8414 §3.1, RFC 9728 §3.1: the well-known path comes between the host and the identifier's own path. */
export function wellKnown(identifier: string, name: string): string {
  const url = new URL(identifier);
  url.pathname = `/.well-known/${name}${url.pathname.replace(/\/$/, "")}`;
  return url.href;
}

/** Checks an address that an operator gave; throws {@link ConfigurationError}. */
export function checkUrl(url: string, what: string): string {
  if (!isSafeUrl(url)) {
    throw new ConfigurationError(`${what} is not an https URL`, "give an https URL (http is for loopback alone)");
  }
  return url;
}

/** An `https` URL, or `http` on loopback; without user information and fragment. */
function isSafeUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, username, password, hash } = new URL(text);
  const isLoopback = hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
  const isPlain = username === "" && password === "" && hash === "";
  return isPlain && (protocol === "https:" || (protocol === "http:" && isLoopback));
}
