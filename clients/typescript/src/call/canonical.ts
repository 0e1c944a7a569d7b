/** The JSON Canonicalization Scheme (RFC 8785). */

import { checkValue, type Json } from "./json.js";

/**
 * The canonical form of a value. Numbers outside the range that a strict parse admits are refused: rounding one would
 * give two values the same form.
 */
export function canonicalize(value: unknown): string {
  checkValue(value, MAX_NESTING);
  return write(value);
}

/** Whether two values are equal, numbers by value and members in any order. */
export function isEqual(left: Json, right: Json): boolean {
  return write(left) === write(right);
}

function write(value: Json): string {
  if (typeof value !== "object" || value === null) {
    // RFC 8785 §3.2.2: strings and numbers are written as ECMAScript writes them; -0 is 0.
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map(write).join(",")}]`;
  const object = value as Readonly<Record<string, Json>>;
  // RFC 8785 §3.2.3: sorted by UTF-16 code units, which is how ECMAScript compares strings.
  const names = Object.keys(object).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${write(object[name] as Json)}`).join(",")}}`;
}

const MAX_NESTING = 127;
