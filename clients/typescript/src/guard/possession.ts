/** Who sends the request: a token for this server, and the proof that its sender holds the token's key. */

import type { ToolCallClaims } from "../call/claims.js";
import { parseProof, verifyProof } from "../call/dpop.js";
import { JwsError } from "../call/jws.js";
import type { KeySet } from "../call/keys.js";
import { verifyToken } from "../call/token.js";
import type { GuardConfig } from "./config.js";
import type { Fields } from "./headers.js";
import type { NonceMaker } from "./nonce.js";
import type { OnceSet } from "./once.js";
import { Reason, type ReasonKind } from "./reason.js";

/** A token whose sender holds its key. */
export interface Possessed {
  readonly token: string;
  readonly claims: ToolCallClaims;
}

/** What proofs are held against. */
export interface Proofs {
  readonly nonces: NonceMaker;
  readonly seen: OnceSet;
}

/** What is asked of a request's sender. */
export interface Sender {
  readonly method: string;
  readonly fields: Fields;
  readonly clientCertificate: string | undefined;
  readonly nowSeconds: number;
  readonly uptimeMs: number;
}

/** Verifies the one token of a request, then its binding. */
export async function verifyPossession(
  sender: Sender,
  config: GuardConfig,
  keys: KeySet,
  proofs: Proofs,
): Promise<Possessed> {
  const header = sender.fields.single("authorization");
  if (header === undefined) throw new Reason("no_token");
  const [, scheme = "", token = ""] = /^([^ ]*) (.*)$/s.exec(header) ?? [];
  const { nowSeconds } = sender;
  const { issuer, resource: audience, leewaySeconds } = config;
  const claims = await as("token", verifyToken(token, keys, { issuer, audience, nowSeconds, leewaySeconds }));
  if (claims.cnf.kind === "jkt") {
    // RFC 9449 §7.1: a bound token is never accepted as a bearer token.
    if (scheme.toLowerCase() !== "dpop") throw new Reason("token", "a bound token needs the scheme DPoP");
    await verifyBinding(sender, config, { token, claims }, proofs);
  } else {
    if (scheme.toLowerCase() !== "bearer") throw new Reason("token", "certificate-bound: the scheme is Bearer");
    // RFC 8705 §3.
    if (sender.clientCertificate !== claims.cnf.thumbprint) throw new Reason("token", "another client certificate");
  }
  return { token, claims };
}

/** All checks of RFC 9449 §4.3, the cheapest first; the proof is used up last. */
async function verifyBinding(
  sender: Sender,
  config: GuardConfig,
  { token, claims }: Possessed,
  { nonces, seen }: Proofs,
): Promise<void> {
  // Check 1: not more than one DPoP header.
  const header = sender.fields.single("dpop");
  if (header === undefined) throw new Reason("proof", "none");
  const proof = await as("proof", (async () => parseProof(header))());
  // Check 10. A challenge consumes nothing.
  const age = proof.nonce === undefined ? "foreign" : await nonces.check(proof.nonce, sender.uptimeMs);
  if (age !== "fresh") throw new Reason("nonce", age);
  const expected = {
    htm: sender.method,
    htu: config.publicUrl,
    accessToken: token,
    jkt: claims.cnf.thumbprint,
    nowSeconds: sender.nowSeconds,
    windowSeconds: config.proofWindowSeconds,
  };
  const { tag } = await as("proof", verifyProof(proof, expected));
  // INVARIANT: proofs are remembered for longer than the nonces in them are good. The room for them is shared out among
  // the broker's clients: one that sends very many leaves room for the others.
  const once = seen.take(claims.clientId, tag, sender.uptimeMs);
  if (once === "seen") throw new Reason("proof", "seen before");
  if (once === "full") throw new Reason("unavailable", "too many proofs");
}

async function as<T>(kind: ReasonKind, verified: Promise<T>): Promise<T> {
  try {
    return await verified;
  } catch (error) {
    throw error instanceof JwsError ? new Reason(kind, error.message) : error;
  }
}
