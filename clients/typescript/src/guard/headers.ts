/** Header fields of a request: each that decides something stands once, or not at all, and says what the body says. */

import { isObject, type Json, type JsonObject } from "../call/json.js";
import type { Message } from "./message.js";
import { Reason } from "./reason.js";

/** One HTTP request as it came in. */
export interface IncomingCall {
  /** HTTP method. */
  readonly method: string;
  /** Header fields in their order: name (in any case) and value. */
  readonly headers: Iterable<readonly [name: string, value: string]>;
  /** The whole body. */
  readonly body: Uint8Array;
  /** SHA-256 thumbprint of the verified client certificate (`x5t#S256`), where the transport has one. */
  readonly clientCertificate?: string | undefined;
}

/** Header fields by lower-case name. */
export class Fields {
  private readonly fields = new Map<string, string[]>();

  constructor(headers: IncomingCall["headers"]) {
    for (const [name, value] of headers) {
      const lower = name.toLowerCase();
      this.fields.set(lower, [...(this.fields.get(lower) ?? []), value]);
    }
  }

  /** The value of a header that may stand at most once. */
  single(name: string): string | undefined {
    const values = this.fields.get(name);
    if (values !== undefined && values.length > 1) throw new Reason("repeated_header", name);
    return values?.[0];
  }

  /** All values of a header, in their order. */
  all(name: string): readonly string[] {
    return this.fields.get(name) ?? [];
  }

  /** Names and values of the headers whose name begins so. */
  *beginningWith(prefix: string): Iterable<[name: string, values: readonly string[]]> {
    for (const [name, values] of this.fields) if (name.startsWith(prefix)) yield [name, values];
  }
}

/** Only plain JSON: what is compressed or labelled otherwise could be read differently behind us. */
export function checkMediaType(fields: Fields): void {
  const encoding = fields.single("content-encoding");
  if (encoding !== undefined && encoding.trim().toLowerCase() !== "identity") throw new Reason("media_type");
  const [media = "", ...parameters] = (fields.single("content-type") ?? "").split(";").map((part) => part.trim());
  const isUtf8 = parameters.every((parameter) => UTF8_PARAMETERS.includes(parameter.toLowerCase()));
  if (media.toLowerCase() !== "application/json" || !isUtf8) throw new Reason("media_type");
}

/** `Mcp-Method` and `Mcp-Name`, which routers before us may have acted on, say what the body says. */
export function checkAgreement(fields: Fields, message: Message): void {
  const method = fields.single("mcp-method");
  if (method !== undefined && method !== message.method) throw new Reason("header_mismatch", "Mcp-Method");
  const name = fields.single("mcp-name");
  if (name !== undefined && (message.call === undefined || decodeValue(name) !== message.call.name)) {
    throw new Reason("header_mismatch", "Mcp-Name");
  }
  // Which rules the server behind us applies must not depend on which of two it reads.
  fields.single("mcp-protocol-version");
  fields.single("mcp-session-id");
}

/**
 * `Mcp-Param-*` mirror arguments whose schema says `x-mcp-header`; one that mirrors nothing is refused, and so is a
 * request without one that is due.
 */
export function checkMirroredParams(fields: Fields, inputSchema: Json | undefined, args: JsonObject): void {
  const expected = new Map(mirrors(inputSchema, args));
  for (const [name, [value = "", ...others]] of fields.beginningWith("mcp-param-")) {
    const said = decodeValue(value);
    if (others.length > 0 || said === undefined || !says(said, expected.get(name))) {
      throw new Reason("header_mismatch", "Mcp-Param");
    }
    expected.delete(name);
  }
  // Earlier versions know no such headers; since this one they are due.
  if (expected.size > 0 && fields.single("mcp-protocol-version") === STATELESS) {
    throw new Reason("header_mismatch", "Mcp-Param");
  }
}

/** The `Mcp-Param-*` fields that say these arguments: made anew, whatever came in. */
export function mirroredHeaders(inputSchema: Json | undefined, args: JsonObject): [name: string, value: string][] {
  return mirrors(inputSchema, args).map(([name, argument]) => [name, encodeValue(String(argument))]);
}

/** Header names and the arguments that they say: reached by `properties` alone, at any depth. */
function mirrors(schema: Json | undefined, args: JsonObject): [name: string, argument: string | number | boolean][] {
  const properties = isObject(schema) ? schema["properties"] : undefined;
  if (!isObject(properties)) return [];
  return Object.entries(properties).flatMap(([name, property]): [string, string | number | boolean][] => {
    const argument = args[name];
    if (argument === undefined || !isObject(property)) return [];
    if (isObject(argument)) return mirrors(property, argument);
    const header = property["x-mcp-header"];
    if (typeof header !== "string" || !TOKEN.test(header)) return [];
    const isSaid = typeof argument === "string" || typeof argument === "number" || typeof argument === "boolean";
    return isSaid ? [[`mcp-param-${header.toLowerCase()}`, argument]] : [];
  });
}

function says(said: string, argument: Json | undefined): boolean {
  switch (typeof argument) {
    case "string":
    case "boolean":
      return said === String(argument);
    case "number":
      // Numbers are compared as numbers: 42.0 is 42.
      return NUMBER.test(said) && Object.is(Number(said), argument);
    default:
      return false;
  }
}

/**
 * A value that no plain field can carry stands as `=?base64?…?=` (MCP 2026-07-28, value encoding). `undefined` where the
 * encoding is broken.
 */
function decodeValue(value: string): string | undefined {
  if (value.length < ENCODED.length || !value.startsWith("=?base64?") || !value.endsWith("?=")) return value;
  const encoded = value.slice("=?base64?".length, -"?=".length);
  try {
    const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    // One text has one encoding.
    if (btoa(String.fromCharCode(...bytes)) !== encoded) return undefined;
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** A header value that says `text`: itself where a field can carry it, else encoded. */
export function encodeValue(text: string): string {
  const looksEncoded = text.startsWith("=?base64?") && text.endsWith("?=");
  if (/^[ -~]*$/.test(text) && text === text.trim() && !looksEncoded) return text;
  const bytes = new TextEncoder().encode(text);
  return `=?base64?${btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""))}?=`;
}

/** The version of MCP since which there are no sessions. */
export const STATELESS = "2026-07-28";
const ENCODED = "=?base64??=";
const NUMBER = /^-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?$/;
/** RFC 9110 §5.6.2. */
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
const UTF8_PARAMETERS = ["", "charset=utf-8", 'charset="utf-8"'];
