/** Private keys: client assertions (RFC 7523) and proofs (RFC 9449) are signed with them. */

import {
  calculateJwkThumbprint, type CryptoKey as Key, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT,
} from "jose";
import { ConfigurationError } from "./errors.js";

/** The algorithms that are signed with. */
export type SigningAlgorithm = "ES256" | "EdDSA" | "RS256";

/** A held private key. */
export class Signer {
  readonly #key: Key;

  private constructor(
    key: Key,
    readonly algorithm: SigningAlgorithm,
    /** The public half, and no other members. */
    readonly publicJwk: JWK,
    readonly kid: string,
    /** RFC 7638 thumbprint: what tokens are bound to. */
    readonly thumbprint: string,
  ) {
    this.#key = key;
  }

  /** Reads a private JWK of type EC (P-256), OKP (Ed25519) or RSA. */
  static async fromJwk(jwk: JWK): Promise<Signer> {
    const algorithm = algorithmOf(jwk);
    const unusable = (cause?: unknown) =>
      new ConfigurationError("the private key cannot be used", "give a private JWK: P-256, Ed25519 or RSA", { cause });
    if (algorithm === undefined || typeof jwk.d !== "string") throw unusable();
    try {
      return await Signer.hold((await importJWK(jwk, algorithm)) as Key, algorithm, publicHalf(jwk), jwk.kid);
    } catch (cause) {
      throw unusable(cause);
    }
  }

  /** A fresh key, which never leaves the process. */
  static async generate(): Promise<Signer> {
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    return Signer.hold(privateKey, "ES256", publicHalf(await exportJWK(publicKey)), undefined);
  }

  /** A compact JWS whose header names the key. */
  sign(typ: string, claims: Record<string, unknown>): Promise<string> {
    return new SignJWT(claims).setProtectedHeader({ alg: this.algorithm, typ, kid: this.kid }).sign(this.#key);
  }

  /** A compact JWS whose header carries the public key (RFC 9449 §4.2). */
  signWithEmbeddedKey(typ: string, claims: Record<string, unknown>): Promise<string> {
    const header = { alg: this.algorithm, typ, jwk: this.publicJwk };
    return new SignJWT(claims).setProtectedHeader(header).sign(this.#key);
  }

  private static async hold(key: Key, algorithm: SigningAlgorithm, jwk: JWK, kid: string | undefined): Promise<Signer> {
    const thumbprint = await calculateJwkThumbprint(jwk, "sha256");
    return new Signer(key, algorithm, jwk, kid ?? thumbprint, thumbprint);
  }
}

function algorithmOf({ kty, crv }: JWK): SigningAlgorithm | undefined {
  if (kty === "EC" && crv === "P-256") return "ES256";
  if (kty === "OKP" && crv === "Ed25519") return "EdDSA";
  return kty === "RSA" ? "RS256" : undefined;
}

/** The members that a thumbprint covers (RFC 7638 §3.2). */
function publicHalf(jwk: JWK): JWK {
  const members = ["kty", "crv", "x", "y", "n", "e"] as const;
  return Object.fromEntries(members.filter((name) => jwk[name] !== undefined).map((name) => [name, jwk[name]])) as JWK;
}
