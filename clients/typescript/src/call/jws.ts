/** Compact JWS, read strictly: one serialization, canonical base64url, no header that would fetch or switch anything. */

import { byteLength, decodeBase64url } from "./bytes.js";
import { isObject, type Json, type JsonObject, parseObject, wholeNumberAt } from "./json.js";

/** The asymmetric JWS algorithms that are verified (RFC 8725 §3.1: an allow-list). */
export const ALGORITHMS = [
  "ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA",
] as const;

/** One of {@link ALGORITHMS}. */
export type Algorithm = (typeof ALGORITHMS)[number];

/** What of a token is not acceptable. */
export type JwsProblem =
  | "too long" | "malformed" | "typ" | "algorithm" | "header" | "key" | "unknown key" | "signature" | "claim" | "shape";

/** Why a token or a proof is refused. Its text names no value of the token. */
export class JwsError extends Error {
  override readonly name = "JwsError";

  constructor(
    /** What is wrong. */
    readonly problem: JwsProblem,
    /** Which member it is about, where it is about one. */
    readonly member?: string,
    detail?: string,
  ) {
    super([problem, member, detail].filter((part) => part !== undefined).join(": "));
  }
}

/** A compact JWS that is well formed; its signature is *not* yet verified. */
export interface UnverifiedJws {
  /** The token as it came. */
  readonly compact: string;
  readonly header: JwsHeader;
  /** The claims, strictly parsed, at most 256. */
  readonly claims: JsonObject;
}

/** The members of a protected header that are read. `jku`, `x5u`, `x5c` are never used or fetched. */
export interface JwsHeader {
  readonly alg: Algorithm;
  /** Media type, in lower case, without a leading `application/`. */
  readonly typ: string | undefined;
  readonly kid: string | undefined;
  /** The embedded public key of a DPoP proof. */
  readonly jwk: JsonObject | undefined;
}

/** Parses a compact JWS. An embedded key is expected in proofs (RFC 9449), and refused everywhere else. */
export function parseJws(compact: string, embeddedKey: "required" | "refused"): UnverifiedJws {
  if (compact.length > MAX_TOKEN_LENGTH) throw new JwsError("too long");
  const parts = compact.split(".", 4);
  const [header, payload, signature] = parts;
  if (parts.length !== 3 || header === undefined || payload === undefined || signature === undefined) {
    throw new JwsError("malformed", undefined, "not three parts");
  }
  const read = readHeader(strictObject(header), embeddedKey);
  const claims = strictObject(payload);
  if (Object.keys(claims).length > MAX_CLAIMS) throw new JwsError("malformed", undefined, "too many claims");
  if (decodeBase64url(signature) === undefined) throw NOT_BASE64URL();
  return { compact, header: read, claims };
}

/** Times of a token, in seconds since the epoch. */
export interface Times {
  readonly exp: number;
  readonly nbf: number | undefined;
  readonly iat: number | undefined;
}

/** Reads and checks `exp` (required), `nbf`, `iat` against `nowSeconds`, with `leewaySeconds` of grace either way. */
export function checkTimes(claims: JsonObject, nowSeconds: number, leewaySeconds: number): Times {
  const exp = timeClaim(claims, "exp");
  const [nbf, iat] = [timeClaim(claims, "nbf"), timeClaim(claims, "iat")];
  if (exp === undefined) throw new JwsError("claim", "exp", "missing");
  // RFC 7519 §4.1.4: now must be *before* `exp`.
  if (nowSeconds >= exp + leewaySeconds) throw new JwsError("claim", "exp", "expired");
  const latest = nowSeconds + leewaySeconds;
  if (nbf !== undefined && nbf > latest) throw new JwsError("claim", "nbf", "not yet valid");
  if (iat !== undefined && iat > latest) throw new JwsError("claim", "iat", "in the future");
  return { exp, nbf, iat };
}

/** A required string claim, 1–`max` bytes long, without control characters. */
export function stringClaim(claims: JsonObject, name: string, max: number): string {
  const value = claims[name];
  if (value === undefined) throw new JwsError("claim", name, "missing");
  if (!isPlainString(value, max)) throw new JwsError("claim", name, "not an acceptable string");
  return value;
}

/** A time claim: absent, or a non-negative integer below 2⁵³. */
export function timeClaim(claims: JsonObject, name: string): number | undefined {
  if (claims[name] === undefined) return undefined;
  const value = wholeNumberAt(claims, name);
  if (value === undefined || value < 0) throw new JwsError("claim", name, "not a whole number");
  return value;
}

/** Whether this may be a key id: 1–256 printable ASCII characters. */
export function isKeyId(kid: unknown): kid is string {
  return typeof kid === "string" && KEY_ID.test(kid);
}

function strictObject(part: string): JsonObject {
  const bytes = decodeBase64url(part);
  if (bytes === undefined) throw NOT_BASE64URL();
  try {
    return parseObject(bytes);
  } catch {
    throw new JwsError("malformed", undefined, "not a strict JSON object");
  }
}

function readHeader(header: JsonObject, embeddedKey: "required" | "refused"): JwsHeader {
  // `crit`: we understand no extension (RFC 7515 §4.1.11). `b64`: RFC 7797 would change what is signed.
  // The rest would let the token choose its own key (RFC 8725 §3.10).
  for (const name of ["crit", "b64", "jku", "x5u", "x5c"]) {
    if (name in header) throw new JwsError("header", name);
  }
  const { alg, typ, kid, jwk } = header;
  const expectsKey = embeddedKey === "required";
  if (expectsKey !== isObject(jwk) || (!expectsKey && jwk !== undefined)) throw new JwsError("header", "jwk");
  if (!ALGORITHMS.includes(alg as Algorithm)) throw new JwsError("algorithm");
  if (kid !== undefined && !isKeyId(kid)) throw new JwsError("malformed", "kid");
  return {
    alg: alg as Algorithm,
    typ: typ === undefined ? undefined : mediaType(typ),
    kid,
    jwk: isObject(jwk) ? jwk : undefined,
  };
}

function mediaType(typ: Json): string {
  if (!isPlainString(typ, MAX_TYP_BYTES)) throw new JwsError("typ");
  const lower = typ.toLowerCase();
  // RFC 7515 §4.1.9: the prefix may be left out where no other slash follows.
  const rest = lower.startsWith("application/") ? lower.slice("application/".length) : undefined;
  return rest !== undefined && !rest.includes("/") ? rest : lower;
}

function isPlainString(value: Json, max: number): value is string {
  return typeof value === "string" && value !== "" && byteLength(value) <= max && !CONTROL.test(value);
}

const NOT_BASE64URL = (): JwsError => new JwsError("malformed", undefined, "not canonical base64url");
const MAX_TOKEN_LENGTH = 16 * 1024;
const MAX_CLAIMS = 256;
const MAX_TYP_BYTES = 128;
const KEY_ID = /^[ -~]{1,256}$/;
const CONTROL = /\p{Cc}/u;
