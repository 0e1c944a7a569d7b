/**
 * What a server says ends before people and models. Characters that steer a terminal, turn the direction of text so that
 * a person reads something else than stands there, or spell what a model reads and no person sees, are put in plain
 * sight.
 */

import { isObject, type Json, type JsonObject } from "../call/json.js";

/** The value with U+FFFD in the place of each such character. */
export function legible(value: Json): Json {
  if (typeof value === "string") return value.replace(STEERING, "\ufffd");
  if (Array.isArray(value)) return value.map((each: Json) => legible(each));
  return isObject(value) ? legibleMembers(value) : value;
}

/** The same for an object's members, and their names. */
export function legibleMembers(members: JsonObject): JsonObject {
  const entries = Object.entries(members).map(([name, value]): [string, Json] => [
    name.replace(STEERING, "\ufffd"), legible(value),
  ]);
  return Object.fromEntries(entries);
}

/**
 * Controls but those that lay out text (ISO 6429: escape sequences begin with one), and the embeddings, overrides and
 * isolates of UAX 9; tag characters, which spell ASCII unseen, and the operators of mathematics that nobody sees. The
 * marks of UAX 9 and what joins or parts letters stay: there are scripts that need them.
 */
const STEERING =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2060-\u2069\u{e0000}-\u{e007f}]/gu;
