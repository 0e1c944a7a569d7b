/** Verification of a tool-call token: signature, `typ`, `iss`, `aud`, times, and the shape of every claim. */

import { readClaims, TOKEN_TYP, type ToolCallClaims } from "./claims.js";
import { checkTimes, JwsError, parseJws, stringClaim } from "./jws.js";
import type { KeySet } from "./keys.js";

/** What a token must be. */
export interface ExpectedToken {
  /** The broker. */
  readonly issuer: string;
  /** The server that looks; absent where a token made for anyone is looked at. */
  readonly audience?: string | undefined;
  readonly nowSeconds: number;
  /** Grace on `exp`, `nbf`, `iat`. */
  readonly leewaySeconds: number;
}

/** Verifies a tool-call token. Binding, call and revocation are checked by who holds the call. */
export async function verifyToken(token: string, keys: KeySet, expected: ExpectedToken): Promise<ToolCallClaims> {
  const jws = parseJws(token, "refused");
  // RFC 9068 §4: `typ` first, so that no other kind of token of this issuer passes for one.
  if (jws.header.typ !== TOKEN_TYP) throw new JwsError("typ");
  if (stringClaim(jws.claims, "iss", MAX_URI_BYTES) !== expected.issuer) {
    throw new JwsError("claim", "iss", "another issuer");
  }
  // One audience, as a string: an array of one would be another spelling of the same token.
  const audience = stringClaim(jws.claims, "aud", MAX_URI_BYTES);
  if (expected.audience !== undefined && audience !== expected.audience) {
    throw new JwsError("claim", "aud", "another audience");
  }
  checkTimes(jws.claims, expected.nowSeconds, expected.leewaySeconds);
  await keys.verify(jws);
  return readClaims(jws.claims);
}

const MAX_URI_BYTES = 2048;
