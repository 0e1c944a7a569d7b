/** Answers that are sealed to this client: whoever ends TLS on the way cannot read them. */

import { base64url, compactDecrypt, type CryptoKey as Key, importJWK, type JWK } from "jose";
import { type JsonObject, objectAt, parseObject } from "../call/json.js";
import { ConfigurationError, ProtocolError } from "../client/errors.js";

/** A private key that answers are sealed to. Its public half is in the client's JWKS at the broker, with `use: "enc"`. */
export class DecryptionKey {
  readonly #key: Key;

  private constructor(
    key: Key,
    readonly algorithm: "ECDH-ES+A256KW" | "RSA-OAEP-256",
    readonly kid: string | undefined,
  ) {
    this.#key = key;
  }

  /** Reads a private JWK of type EC (P-256) or RSA. */
  static async fromJwk(jwk: JWK): Promise<DecryptionKey> {
    const algorithm = algorithmOf(jwk);
    const unusable = () =>
      new ConfigurationError("the encryption key cannot be used", 'give a private JWK with `use: "enc"`: P-256, or RSA');
    if (algorithm === undefined || typeof jwk.d !== "string" || (jwk.use ?? "enc") !== "enc") throw unusable();
    const { kid, ...members } = jwk;
    delete members.alg;
    delete members.key_ops;
    const key = await importJWK(members, algorithm).catch(() => undefined);
    if (key === undefined || key instanceof Uint8Array) throw unusable();
    return new DecryptionKey(key, algorithm, kid);
  }

  /** Opens a compact JWE (RFC 7516 §7.1). Whatever is wrong with it, the words are the same (RFC 7516 §11.5). */
  async open(sealed: Uint8Array): Promise<Uint8Array> {
    const text = new TextDecoder().decode(sealed).trim();
    const opened = this.fits(text) ? await this.decrypted(text) : undefined;
    if (opened === undefined) throw new ProtocolError("the sealed answer cannot be opened with this key");
    return opened;
  }

  private decrypted(text: string): Promise<Uint8Array | undefined> {
    const allowed = { keyManagementAlgorithms: [this.algorithm], contentEncryptionAlgorithms: [CIPHER] };
    return compactDecrypt(text, this.#key, allowed).then(({ plaintext }) => plaintext, () => undefined);
  }

  /** Whether a header is for this key, and has nothing that is not known: no `zip`, no `crit`, no address. */
  private fits(text: string): boolean {
    const header = headerOf(text);
    if (header === undefined || !Object.keys(header).every((name) => MEMBERS.has(name))) return false;
    const { alg, enc, kid, cty = "json" } = header;
    if (alg !== this.algorithm || enc !== CIPHER) return false;
    if (alg === "ECDH-ES+A256KW" && objectAt(header, "epk")?.["crv"] !== "P-256") return false;
    const isNamed = kid === undefined || this.kid === undefined || kid === this.kid;
    return isNamed && (cty === "json" || cty === "application/json");
  }
}

function headerOf(text: string): JsonObject | undefined {
  const [protectedHeader = "", ...others] = text.split(".");
  if (others.length !== 4) return undefined;
  try {
    return parseObject(base64url.decode(protectedHeader));
  } catch {
    return undefined;
  }
}

function algorithmOf({ kty, crv }: JWK): DecryptionKey["algorithm"] | undefined {
  if (kty === "EC" && crv === "P-256") return "ECDH-ES+A256KW";
  return kty === "RSA" ? "RSA-OAEP-256" : undefined;
}

const CIPHER = "A256GCM";
const MEMBERS = new Set(["alg", "enc", "kid", "cty", "typ", "epk", "apu", "apv"]);
