/** The client certificate that a token may be bound to (RFC 8705 §3). */

import type { TLSSocket } from "node:tls";
import { encodeBase64url, sha256 } from "../call/bytes.js";
import type { Fields } from "../guard/headers.js";
import { Reason } from "../guard/reason.js";

/**
 * Thumbprint (`x5t#S256`) of the certificate that the client proved on a socket of Node; none where the socket is not
 * TLS, or the certificate was not accepted.
 */
export async function certificateOfSocket(socket: unknown): Promise<string | undefined> {
  const { authorized, getPeerCertificate } = (socket ?? {}) as Partial<TLSSocket>;
  if (authorized !== true || getPeerCertificate === undefined) return undefined;
  const { raw } = getPeerCertificate.call(socket as TLSSocket) as { raw?: Uint8Array };
  return raw === undefined ? undefined : thumbprint(raw);
}

/**
 * Thumbprint of the certificate in a header that a trusted proxy sets: as `Client-Cert` of RFC 9440 (base64 between
 * colons), or as percent-encoded PEM, as nginx writes it.
 */
export async function certificateOfHeader(fields: Fields, name: string): Promise<string | undefined> {
  const value = fields.single(name.toLowerCase());
  if (value === undefined || value === "") return undefined;
  const [, base64] = /^:([A-Za-z0-9+/]+=*):$/.exec(value) ?? PEM.exec(decoded(value)) ?? [];
  if (base64 === undefined) throw new Reason("header_mismatch", "client certificate");
  try {
    return await thumbprint(Uint8Array.from(atob(base64.replace(/\s/g, "")), (character) => character.charCodeAt(0)));
  } catch {
    throw new Reason("header_mismatch", "client certificate");
  }
}

function decoded(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    throw new Reason("header_mismatch", "client certificate");
  }
}

async function thumbprint(der: Uint8Array): Promise<string> {
  return encodeBase64url(await sha256(Uint8Array.from(der)));
}

const PEM = /^\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*$/;
