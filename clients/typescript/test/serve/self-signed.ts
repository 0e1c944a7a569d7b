/** A fresh certificate over a fresh P-256 key, signed by itself (RFC 5280 §4.1), good for an hour. */

import { createHash, createSign, generateKeyPairSync, randomBytes } from "node:crypto";

export interface Certified {
  /** PEM. */
  readonly key: string;
  /** PEM. */
  readonly certificate: string;
  /** `x5t#S256`. */
  readonly thumbprint: string;
}

export function selfSigned(name: string): Certified {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const ecdsaWithSha256 = sequence(oid(0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02));
  const commonName = der(0x0c, Buffer.from(name));
  const subject = sequence(der(0x31, sequence(oid(0x55, 0x04, 0x03), commonName)));
  const now = Date.now();
  const validity = sequence(...[now - 60_000, now + 3_600_000].map(time));
  const serial = der(0x02, Buffer.concat([Buffer.from([1]), randomBytes(8)]));
  const authority = sequence(oid(0x55, 0x1d, 0x13), der(0x01, Buffer.from([0xff])), der(0x04, sequence(der(0x01, Buffer.from([0xff])))));
  const loopback = sequence(oid(0x55, 0x1d, 0x11), der(0x04, sequence(der(0x87, Buffer.from([127, 0, 0, 1])))));
  const extensions = der(0xa3, sequence(authority, loopback));
  const version = der(0xa0, der(0x02, Buffer.from([2])));
  const spki = publicKey.export({ type: "spki", format: "der" });
  const signed = sequence(version, serial, ecdsaWithSha256, subject, validity, subject, spki, extensions);
  const signature = createSign("sha256").update(signed).sign(privateKey);
  const whole = sequence(signed, ecdsaWithSha256, der(0x03, Buffer.concat([Buffer.from([0]), signature])));
  return {
    key: privateKey.export({ type: "pkcs8", format: "pem" }) as string,
    certificate: `-----BEGIN CERTIFICATE-----\n${whole.toString("base64").replace(/(.{64})/g, "$1\n")}\n-----END CERTIFICATE-----\n`,
    thumbprint: createHash("sha256").update(whole).digest("base64url"),
  };
}

function sequence(...parts: Buffer[]): Buffer {
  return der(0x30, Buffer.concat(parts));
}

function oid(...bytes: number[]): Buffer {
  return der(0x06, Buffer.from(bytes));
}

/** UTCTime. */
function time(ms: number): Buffer {
  return der(0x17, Buffer.from(`${new Date(ms).toISOString().slice(2, 19).replace(/[-:T]/g, "")}Z`));
}

function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}
