/** DPoP proofs (RFC 9449): made by clients, verified by guards. */

import { encodeBase64url, sha256 } from "./bytes.js";
import { JwsError, parseJws, stringClaim, timeClaim, type UnverifiedJws } from "./jws.js";
import { PublicKey } from "./keys.js";

/** `typ` of a proof (RFC 9449 §4.2). */
export const PROOF_TYP = "dpop+jwt";

/** A proof that is well formed; its signature is not yet verified. */
export interface UnverifiedProof {
  readonly jws: UnverifiedJws;
  /** Looked at first, so that a challenge costs no signature. */
  readonly nonce: string | undefined;
}

/** A proof that passed every check of RFC 9449 §4.3 but replay, which is for the caller to ask of a once-only set. */
export interface VerifiedProof {
  /** Thumbprint of the proof's key. */
  readonly jkt: string;
  readonly jti: string;
  readonly iat: number;
  /** 16 bytes, in hexadecimal, that stand for (jkt, jti) in a once-only set. */
  readonly tag: string;
}

/** What a proof must be for. */
export interface ExpectedProof {
  readonly htm: string;
  /** The *configured* public URL; compared without query and fragment. */
  readonly htu: string;
  /** The access token that it accompanies; absent at the token endpoint. */
  readonly accessToken?: string | undefined;
  /** `cnf.jkt` that the key must have, where one is known. */
  readonly jkt?: string | undefined;
  readonly nowSeconds: number;
  /** How far `iat` may be from now, either way. */
  readonly windowSeconds: number;
}

/**
 * Parses the value of the one `DPoP` header (§4.3, checks 2–5: one well-formed JWT of the right type and an asymmetric
 * algorithm, with all required claims; check 1, that there is one header only, is the caller's).
 */
export function parseProof(header: string): UnverifiedProof {
  const jws = parseJws(header, "required");
  if (jws.header.typ !== PROOF_TYP) throw new JwsError("typ");
  stringClaim(jws.claims, "jti", MAX_JTI_BYTES);
  stringClaim(jws.claims, "htm", MAX_HTM_BYTES);
  stringClaim(jws.claims, "htu", MAX_URI_BYTES);
  if (timeClaim(jws.claims, "iat") === undefined) throw new JwsError("claim", "iat", "missing");
  const nonce = jws.claims["nonce"] === undefined ? undefined : stringClaim(jws.claims, "nonce", MAX_NONCE_BYTES);
  return { jws, nonce };
}

/** All remaining checks of §4.3 but nonce (done by the caller, before) and replay (after). */
export async function verifyProof(proof: UnverifiedProof, expected: ExpectedProof): Promise<VerifiedProof> {
  const { claims, header } = proof.jws;
  // Check 8. Methods are case-sensitive (RFC 9110 §9.1).
  if (stringClaim(claims, "htm", MAX_HTM_BYTES) !== expected.htm) throw new JwsError("claim", "htm", "another method");
  // Check 9.
  if (!isSameTarget(stringClaim(claims, "htu", MAX_URI_BYTES), expected.htu)) {
    throw new JwsError("claim", "htu", "another URL");
  }
  // Check 11.
  const iat = timeClaim(claims, "iat") ?? 0;
  if (Math.abs(iat - expected.nowSeconds) > expected.windowSeconds) {
    throw new JwsError("claim", "iat", "outside the window");
  }
  // Check 12, first half: the proof is for this access token.
  if (
    expected.accessToken !== undefined &&
    stringClaim(claims, "ath", MAX_ATH_BYTES) !== (await accessTokenHash(expected.accessToken))
  ) {
    throw new JwsError("claim", "ath", "another access token");
  }
  // Check 7 is in `fromJwk`: a private member refuses the key.
  if (header.jwk === undefined) throw new JwsError("header", "jwk");
  const key = await PublicKey.fromJwk(header.jwk);
  // Check 12, second half: the token is bound to this key.
  if (expected.jkt !== undefined && expected.jkt !== key.thumbprint) {
    throw new JwsError("key", undefined, "not the key that the token is bound to");
  }
  // Check 6, last because dearest.
  await key.verify(proof.jws);
  const jti = stringClaim(claims, "jti", MAX_JTI_BYTES);
  return { jkt: key.thumbprint, jti, iat, tag: await replayTag(key.thumbprint, jti) };
}

/** `ath`: base64url(SHA-256(access token)) (RFC 9449 §4.2). */
export async function accessTokenHash(accessToken: string): Promise<string> {
  return encodeBase64url(await sha256(accessToken));
}

/** A URL as `htu` has it: without query and fragment. */
export function withoutQuery(url: string): string {
  return url.split(/[?#]/, 1)[0] ?? url;
}

/**
 * Whether two URLs name one target, "ignoring any query and fragment parts" (§4.3, check 9).
 *
 * Of RFC 3986 §6.2 only what cannot change the resource: case of scheme and host, the default port, an empty path. Dot
 * segments and percent-encodings are compared as they stand: a server may well tell `/a%2Fb` from `/a/b`.
 */
function isSameTarget(claimed: string, expected: string): boolean {
  const target = targetOf(claimed);
  return target !== undefined && target === targetOf(expected);
}

function targetOf(url: string): string | undefined {
  const parts = TARGET.exec(withoutQuery(url));
  const [, scheme = "", authority = "", path = ""] = parts ?? [];
  if (parts === null) return undefined;
  // The colons of an IPv6 address stand before its closing bracket. User information, if there is any, stays in the
  // host and so matches no configured URL.
  const [, host = "", port = ""] = AUTHORITY.exec(authority) ?? [undefined, authority];
  const isDefault = port === { https: "443", http: "80" }[scheme.toLowerCase()];
  if (host === "") return undefined;
  return JSON.stringify([asciiLower(scheme), asciiLower(host), isDefault ? "" : port, path === "" ? "/" : path]);
}

function asciiLower(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** (jkt, jti) in 16 bytes. A thumbprint is base64url: the zero byte ends it beyond doubt. */
async function replayTag(jkt: string, jti: string): Promise<string> {
  const hash = await sha256(jkt, new Uint8Array([0]), jti);
  return Array.from(hash.subarray(0, 16), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const TARGET = /^([^:/]*):\/\/([^/]*)(.*)$/s;
const AUTHORITY = /^(.*):([^\]:]*)$/s;
const MAX_JTI_BYTES = 256;
const MAX_HTM_BYTES = 32;
const MAX_URI_BYTES = 2048;
const MAX_NONCE_BYTES = 256;
const MAX_ATH_BYTES = 64;
