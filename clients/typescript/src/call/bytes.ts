/** Bytes and texts of bytes. */

import { base64url } from "jose";

/** Encodes as base64url without padding. */
export function encodeBase64url(bytes: Uint8Array): string {
  return base64url.encode(bytes);
}

/** Decodes canonical base64url: no padding, no white space, zero trailing bits (RFC 7515 §2). One value has one text. */
export function decodeBase64url(text: string): Uint8Array | undefined {
  if (!BASE64URL.test(text) || text.length % 4 === 1) return undefined;
  const bytes = base64url.decode(text);
  return base64url.encode(bytes) === text ? bytes : undefined;
}

/** SHA-256 of all parts, one after the other. */
export async function sha256(...parts: readonly (Uint8Array | string)[]): Promise<Uint8Array> {
  const whole = joined(parts.map((part) => (typeof part === "string" ? utf8(part) : part)));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

/** All parts, one after the other. */
export function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** The UTF-8 form of a text. */
export function utf8(text: string): Uint8Array<ArrayBuffer> {
  return ENCODER.encode(text);
}

/** How long a text is in UTF-8. */
export function byteLength(text: string): number {
  return text.length > 0 ? ENCODER.encode(text).length : 0;
}

const ENCODER = new TextEncoder();
const BASE64URL = /^[A-Za-z0-9_-]*$/;
