/** Public keys: JWKs of the kinds that are accepted, thumbprints, verification, and sets of them. */

import { calculateJwkThumbprint, compactVerify, importJWK, type CryptoKey as Key, type JWK } from "jose";
import { decodeBase64url } from "./bytes.js";
import { isObject, type JsonObject, parseObject } from "./json.js";
import { type Algorithm, ALGORITHMS, isKeyId, JwsError, type UnverifiedJws } from "./jws.js";

/** One public key. EC keys are on their curve; RSA moduli are 2,048–8,192 bits long with an odd e ≥ 65,537. */
export class PublicKey {
  private constructor(
    /** `kid` of the JWK. */
    readonly kid: string | undefined,
    /** RFC 7638 SHA-256 thumbprint, base64url: the value of `cnf.jkt`. */
    readonly thumbprint: string,
    private readonly alg: Algorithm | undefined,
    private readonly material: Material,
    private readonly keys: Map<Algorithm, Key>,
  ) {}

  /**
   * Reads a public JWK (RFC 7517, RFC 8037). Symmetric keys, private members, weak RSA, unknown curves, `use` other
   * than `sig`, and an `alg` that does not fit are refused.
   */
  static async fromJwk(jwk: JsonObject): Promise<PublicKey> {
    // RFC 7518 §6.2.2, §6.3.2, §6.4.1: whoever shows one of these has given the key away.
    if (["d", "p", "q", "dp", "dq", "qi", "oth", "k"].some((name) => jwk[name] !== undefined)) {
      throw new JwsError("key", undefined, "private member");
    }
    if (jwk["use"] !== undefined && jwk["use"] !== "sig") throw new JwsError("key", undefined, "not for signatures");
    const operations = jwk["key_ops"];
    if (operations !== undefined && !(Array.isArray(operations) && operations.includes("verify"))) {
      throw new JwsError("key", undefined, "not for verification");
    }
    const material = readMaterial(jwk);
    const { alg, kid } = jwk;
    if (alg !== undefined && !ALGORITHMS.includes(alg as Algorithm)) throw new JwsError("algorithm");
    if (alg !== undefined && !material.algorithms.includes(alg as Algorithm)) {
      throw new JwsError("key", undefined, "alg does not fit the key");
    }
    if (kid !== undefined && !isKeyId(kid)) throw new JwsError("key", undefined, "bad kid");
    const key = new PublicKey(
      kid,
      await calculateJwkThumbprint(material.jwk, "sha256"),
      alg as Algorithm | undefined,
      material,
      new Map(),
    );
    // Imported now, so that a point off its curve is refused here and not at the first signature.
    const [first] = material.algorithms;
    if (first !== undefined) await key.held(first);
    return key;
  }

  /** Whether this key may verify `algorithm`: type, curve, and the JWK's own `alg` if it named one. */
  fits(algorithm: Algorithm): boolean {
    return this.material.algorithms.includes(algorithm) && (this.alg === undefined || this.alg === algorithm);
  }

  /** Verifies a parsed token's signature. */
  async verify(jws: UnverifiedJws): Promise<void> {
    const { alg } = jws.header;
    if (!this.fits(alg)) throw new JwsError("algorithm");
    const key = await this.held(alg);
    try {
      await compactVerify(jws.compact, key, { algorithms: [alg] });
    } catch {
      throw new JwsError("signature");
    }
  }

  private async held(algorithm: Algorithm): Promise<Key> {
    const held = this.keys.get(algorithm);
    if (held !== undefined) return held;
    try {
      const key = (await importJWK(this.material.jwk, algorithm)) as Key;
      this.keys.set(algorithm, key);
      return key;
    } catch {
      throw new JwsError("key", undefined, "not acceptable");
    }
  }
}

/** Keys found by `kid`; without a `kid`, by algorithm. Either way exactly one key must fit. */
export class KeySet {
  constructor(private readonly keys: readonly PublicKey[]) {}

  /**
   * Reads a JWKS document: at most 100 keys; keys of kinds that are not accepted are skipped; a set without any is an
   * error.
   */
  static async fromJwks(document: unknown): Promise<KeySet> {
    // Once as text and back: whatever it was made of, what is read is plain JSON.
    const jwks = parseObject(JSON.stringify(document) ?? "")["keys"];
    if (!Array.isArray(jwks)) throw new JwsError("malformed", undefined, "key set without keys");
    if (jwks.length > MAX_JWKS_KEYS) throw new JwsError("malformed", undefined, "too many keys");
    const keys: PublicKey[] = [];
    for (const jwk of jwks.filter(isObject)) {
      try {
        keys.push(await PublicKey.fromJwk(jwk));
      } catch {
        // RFC 7517 §5: implementations should ignore keys that they do not understand.
      }
    }
    if (keys.length === 0) throw new JwsError("malformed", undefined, "no acceptable key in the set");
    return new KeySet(keys);
  }

  /** Finds the key that a token's header points to, and verifies. */
  async verify(jws: UnverifiedJws): Promise<void> {
    const { kid, alg } = jws.header;
    const fitting = this.keys.filter((key) => (kid === undefined || key.kid === kid) && key.fits(alg));
    const [key] = fitting;
    if (key === undefined || fitting.length > 1) throw new JwsError("unknown key");
    await key.verify(jws);
  }
}

/** The members that a thumbprint covers (RFC 7638 §3.2, RFC 8037 §2), and what they can verify. */
interface Material {
  readonly jwk: JWK;
  readonly algorithms: readonly Algorithm[];
}

function readMaterial(jwk: JsonObject): Material {
  const { kty, crv } = jwk;
  if (kty === "EC" && (crv === "P-256" || crv === "P-384")) {
    const length = crv === "P-256" ? 32 : 48;
    const [x, y] = [coordinate(jwk, "x", length), coordinate(jwk, "y", length)];
    return { jwk: { kty, crv, x, y }, algorithms: [crv === "P-256" ? "ES256" : "ES384"] };
  }
  if (kty === "OKP" && crv === "Ed25519") {
    return { jwk: { kty, crv, x: coordinate(jwk, "x", 32) }, algorithms: ["EdDSA"] };
  }
  if (kty === "RSA") {
    const [n, e] = [unsigned(jwk, "n"), unsigned(jwk, "e")];
    checkRsa(n.bytes, e.bytes);
    return { jwk: { kty, n: n.text, e: e.text }, algorithms: RSA_ALGORITHMS };
  }
  throw new JwsError("key", undefined, "type or curve not supported");
}

/** A member of exactly `length` octets (RFC 7518 §6.2.1.2, RFC 8037 §2). */
function coordinate(jwk: JsonObject, name: string, length: number): string {
  const { text, bytes } = octets(jwk, name);
  if (bytes.length !== length) throw new JwsError("key", undefined, "coordinate of the wrong length");
  return text;
}

/** A big-endian unsigned integer in as few octets as possible (RFC 7518 §2): so a key has one thumbprint. */
function unsigned(jwk: JsonObject, name: string): { text: string; bytes: Uint8Array } {
  const value = octets(jwk, name);
  if ((value.bytes[0] ?? 0) === 0) throw new JwsError("key", undefined, "integer not in its shortest form");
  return value;
}

function octets(jwk: JsonObject, name: string): { text: string; bytes: Uint8Array } {
  const text = jwk[name];
  if (typeof text !== "string") throw new JwsError("key", undefined, "missing member");
  const bytes = decodeBase64url(text);
  if (bytes === undefined) throw new JwsError("key", undefined, "not canonical base64url");
  return { text, bytes };
}

function checkRsa(n: Uint8Array, e: Uint8Array): void {
  const bits = n.length * 8 - Math.clz32(n[0] ?? 0) + 24;
  if (bits < 2048 || bits > 8192) throw new JwsError("key", undefined, "RSA modulus too short or too long");
  const exponent = e.reduce((value, byte) => value * 256 + byte, 0);
  if (e.length > 4 || exponent < 65_537 || exponent % 2 === 0) {
    throw new JwsError("key", undefined, "RSA exponent not acceptable");
  }
}

const RSA_ALGORITHMS: readonly Algorithm[] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
const MAX_JWKS_KEYS = 100;
