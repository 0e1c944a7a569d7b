/**
 * Strict JSON: what two parsers could read differently is refused before anything is digested.
 *
 * `JSON.parse` keeps the last of two members of one name, rounds numbers, and admits lone surrogates and any depth.
 */

/** A JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | JsonObject;

/** A JSON object. What {@link parseObject} returns has no prototype: no name means more than it says. */
export interface JsonObject {
  readonly [name: string]: Json;
}

/** Why a text is not acceptable JSON. */
export type JsonProblem = "syntax" | "duplicate" | "number" | "depth" | "not_object";

/** A text, or a value, that is not acceptable JSON. */
export class JsonError extends Error {
  override readonly name = "JsonError";

  constructor(
    /** What is wrong with it. */
    readonly problem: JsonProblem,
  ) {
    super(PROBLEMS[problem]);
  }
}

/** The deepest nesting accepted; the object itself is level 1. */
export const MAX_DEPTH = 32;

/** Parses a strict JSON object, nested up to {@link MAX_DEPTH} levels. */
export function parseObject(text: Uint8Array | string): JsonObject {
  const value = parseValue(text, MAX_DEPTH);
  if (!isObject(value)) throw new JsonError("not_object");
  return value;
}

/**
 * Parses one strict JSON value, nested at most `maxDepth` levels (a top-level array or object is level 1). Levels
 * beyond 127 are refused whatever `maxDepth` says.
 */
export function parseValue(text: Uint8Array | string, maxDepth: number): Json {
  return new Parser(decode(text), Math.min(maxDepth, MAX_NESTING)).document();
}

/** Whether a value is a JSON object: neither `null` nor an array. */
export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A member, where it is there and an object. */
export function objectAt(object: JsonObject, name: string): JsonObject | undefined {
  const member = object[name];
  return isObject(member) ? member : undefined;
}

/**
 * A member of a parsed object that is a whole number and was written as one: `1`, never `1.0` or `1e0`, which readers
 * in other languages refuse where an integer is due.
 */
export function wholeNumberAt(object: JsonObject, name: string): number | undefined {
  const member = object[name];
  if (typeof member !== "number" || !Number.isSafeInteger(member) || Object.is(member, -0)) return undefined;
  return DECIMALS.get(object)?.has(name) === true ? undefined : member;
}

/** Checks a value that may not come from a strict parse: at most `levels` deep, every number exact. */
export function checkValue(value: unknown, levels: number): asserts value is Json {
  switch (typeof value) {
    case "boolean":
      return;
    case "string":
      if (!isWellFormed(value)) throw new JsonError("syntax");
      return;
    case "number":
      if (!isExact(value)) throw new JsonError("number");
      return;
    case "object":
      if (value === null) return;
      if (levels < 1) throw new JsonError("depth");
      if (Array.isArray(value)) {
        for (const item of value) checkValue(item, levels - 1);
      } else {
        for (const [name, member] of Object.entries(value)) {
          if (!isWellFormed(name)) throw new JsonError("syntax");
          checkValue(member, levels - 1);
        }
      }
      return;
    default:
      throw new JsonError("syntax");
  }
}

/** Whether every language reads this number alike: finite, and not beyond ±(2⁵³−1). */
export function isExact(number: number): boolean {
  return Math.abs(number) <= Number.MAX_SAFE_INTEGER;
}

/** Whether a text has no lone surrogate. */
export function isWellFormed(text: string): boolean {
  return !LONE_SURROGATE.test(text);
}

function decode(text: Uint8Array | string): string {
  if (typeof text === "string") {
    if (!isWellFormed(text)) throw new JsonError("syntax");
    return text;
  }
  try {
    return UTF8.decode(text);
  } catch {
    throw new JsonError("syntax");
  }
}

class Parser {
  private at = 0;

  constructor(
    private readonly text: string,
    private readonly maxDepth: number,
  ) {}

  document(): Json {
    this.space();
    const value = this.value(this.maxDepth, undefined, "");
    this.space();
    if (this.at !== this.text.length) throw new JsonError("syntax");
    return value;
  }

  private value(levelsLeft: number, parent: object | undefined, name: string): Json {
    switch (this.text[this.at]) {
      case "{":
        return this.object(levelsLeft - 1);
      case "[":
        return this.array(levelsLeft - 1);
      case '"':
        return this.string();
      case "t":
        return this.literal("true", true);
      case "f":
        return this.literal("false", false);
      case "n":
        return this.literal("null", null);
      default:
        return this.number(parent, name);
    }
  }

  private object(levelsLeft: number): JsonObject {
    if (levelsLeft < 0) throw new JsonError("depth");
    // No prototype: `__proto__` is a name like any other.
    const object = Object.create(null) as Record<string, Json>;
    this.at += 1;
    this.space();
    if (this.take("}")) return object;
    for (;;) {
      if (this.text[this.at] !== '"') throw new JsonError("syntax");
      const name = this.string();
      if (name in object) throw new JsonError("duplicate");
      this.space();
      if (!this.take(":")) throw new JsonError("syntax");
      this.space();
      object[name] = this.value(levelsLeft, object, name);
      this.space();
      if (this.take("}")) return object;
      if (!this.take(",")) throw new JsonError("syntax");
      this.space();
    }
  }

  private array(levelsLeft: number): Json[] {
    if (levelsLeft < 0) throw new JsonError("depth");
    const array: Json[] = [];
    this.at += 1;
    this.space();
    if (this.take("]")) return array;
    for (;;) {
      array.push(this.value(levelsLeft, array, String(array.length)));
      this.space();
      if (this.take("]")) return array;
      if (!this.take(",")) throw new JsonError("syntax");
      this.space();
    }
  }

  private string(): string {
    let value = "";
    this.at += 1;
    for (;;) {
      value += this.match(PLAIN_CHARACTERS) ?? "";
      const next = this.text[this.at];
      this.at += 1;
      if (next === '"') return value;
      if (next !== "\\") throw new JsonError("syntax"); // a control character, or the end
      value += this.escape();
    }
  }

  private escape(): string {
    const letter = this.text[this.at] ?? "";
    this.at += 1;
    if (letter !== "u") {
      const meaning = ESCAPES.get(letter);
      if (meaning === undefined) throw new JsonError("syntax");
      return meaning;
    }
    const unit = this.unit();
    if (unit < 0xd800 || unit > 0xdfff) return String.fromCharCode(unit);
    // RFC 8259 §8.2: half a pair stands for nothing; languages differ in what they make of it.
    if (unit > 0xdbff || !this.take("\\") || !this.take("u")) throw new JsonError("syntax");
    const second = this.unit();
    if (second < 0xdc00 || second > 0xdfff) throw new JsonError("syntax");
    return String.fromCharCode(unit, second);
  }

  private unit(): number {
    const digits = this.match(FOUR_HEX_DIGITS);
    if (digits === undefined) throw new JsonError("syntax");
    return Number.parseInt(digits, 16);
  }

  private number(parent: object | undefined, name: string): number {
    const written = this.match(NUMBER);
    if (written === undefined) throw new JsonError("syntax");
    const number = Number(written);
    if (!isExact(number)) throw new JsonError("number");
    if (parent !== undefined && NOT_AN_INTEGER.test(written)) {
      const decimals = DECIMALS.get(parent) ?? new Set<string>();
      DECIMALS.set(parent, decimals.add(name));
    }
    return number;
  }

  private literal<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) throw new JsonError("syntax");
    this.at += word.length;
    return value;
  }

  private space(): void {
    this.match(SPACE);
  }

  private take(character: string): boolean {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  private match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }
}

const PROBLEMS: Record<JsonProblem, string> = {
  syntax: "not valid JSON",
  duplicate: "duplicate member name",
  number: "number out of the interoperable range",
  depth: "nested too deeply",
  not_object: "top level is not an object",
};
const ESCAPES = new Map([
  ['"', '"'],
  ["\\", "\\"],
  ["/", "/"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
]);
const MAX_NESTING = 127;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** Members (by object and name) whose number was written with a fraction or an exponent. */
const DECIMALS = new WeakMap<object, Set<string>>();
const SPACE = /[ \t\n\r]*/y;
const PLAIN_CHARACTERS = /[^"\\\u0000-\u001f]*/y;
const FOUR_HEX_DIGITS = /[0-9a-fA-F]{4}/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const NOT_AN_INTEGER = /[.eE]/;
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/;
