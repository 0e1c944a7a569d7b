/**
 * DPoP nonces (RFC 9449 §8) that name their maker and are sealed with a key which lives only in its process.
 *
 * A nonce is base64url(maker ‖ AEAD nonce ‖ sealed age): 44 bytes, 59 characters. Who reads it learns who made it, and
 * nothing of when.
 */

import { decodeBase64url, encodeBase64url, sha256 } from "../call/bytes.js";

/** What a nonce turned out to be: made here and young enough, made here and too old, or not made here. */
export type NonceAge = "fresh" | "stale" | "foreign";

/**
 * Makes and checks nonces. The key is random, never leaves the process, and dies with it: after a restart every earlier
 * nonce is foreign, so that no proof from before can pass.
 */
export class NonceMaker {
  private constructor(
    private readonly maker: Uint8Array<ArrayBuffer>,
    private readonly lifetimeMs: number,
    private readonly key: CryptoKey,
  ) {}

  /** `name` names the process; `lifetimeMs` is how long a nonce is good for. */
  static async create(name: string, lifetimeMs: number): Promise<NonceMaker> {
    const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
    return new NonceMaker((await sha256(name)).slice(0, MAKER_BYTES), lifetimeMs, key);
  }

  /** A nonce; `uptimeMs` is monotonic time since any fixed instant of this process. */
  async make(uptimeMs: number): Promise<string> {
    const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES));
    const age = new DataView(new ArrayBuffer(8));
    age.setFloat64(0, uptimeMs);
    const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv, additionalData: this.maker }, this.key, age);
    const nonce = new Uint8Array(NONCE_BYTES);
    nonce.set(this.maker);
    nonce.set(iv, MAKER_BYTES);
    nonce.set(new Uint8Array(sealed), MAKER_BYTES + IV_BYTES);
    return encodeBase64url(nonce);
  }

  /** Checks a nonce. */
  async check(nonce: string, uptimeMs: number): Promise<NonceAge> {
    const made = await this.open(nonce);
    if (made === undefined) return "foreign";
    return uptimeMs - made <= this.lifetimeMs ? "fresh" : "stale";
  }

  private async open(nonce: string): Promise<number | undefined> {
    const bytes = nonce.length === NONCE_CHARACTERS ? decodeBase64url(nonce) : undefined;
    if (bytes === undefined || !this.maker.every((byte, at) => bytes[at] === byte)) return undefined;
    const iv = bytes.slice(MAKER_BYTES, MAKER_BYTES + IV_BYTES);
    const sealed = bytes.slice(MAKER_BYTES + IV_BYTES);
    try {
      const age = await crypto.subtle.decrypt({ name: "AES-GCM", iv, additionalData: this.maker }, this.key, sealed);
      return new DataView(age).getFloat64(0);
    } catch {
      return undefined;
    }
  }
}

const MAKER_BYTES = 8;
const IV_BYTES = 12;
const NONCE_BYTES = 44;
const NONCE_CHARACTERS = 59;
