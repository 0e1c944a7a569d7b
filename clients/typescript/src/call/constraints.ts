/**
 * L2 constraints: JSON Pointers into the arguments, each with the values that it admits.
 *
 * A *leaf* of the arguments is a scalar, or an object or array without members: what stands for itself. Every leaf must
 * lie at or below a constrained pointer, else it is refused; a pointer that resolves to nothing is refused unless its
 * constraint is `optional`. A constraint looks at the whole value at its pointer.
 */

import { byteLength } from "./bytes.js";
import { isEqual } from "./canonical.js";
import { checkValue, isExact, isObject, type Json, type JsonObject, MAX_DEPTH } from "./json.js";

/** Constraints by JSON Pointer (RFC 6901), well formed. */
export type Constraints = ReadonlyMap<string, Constraint>;

/** What one argument may be: exactly one of `enum`, (`minimum` and/or `maximum`), `prefix`. */
export interface Constraint {
  /** The values admitted. Numbers are compared by value: `1.0` is `1`. */
  readonly enum?: readonly Json[];
  /** Smallest number admitted. */
  readonly minimum?: number;
  /** Largest number admitted. */
  readonly maximum?: number;
  /**
   * Path prefix of whole segments: `/data` and `/data/` admit `/data/x`, never `/database`. No value with `..`, `%`,
   * `\` or a control character is admitted. Several must all hold.
   */
  readonly prefix?: string | readonly string[];
  /** Whether the argument may be absent. */
  readonly optional?: boolean;
}

/** Why arguments are outside of their constraints, or constraints are malformed. */
export class ConstraintError extends Error {
  override readonly name = "ConstraintError";

  constructor(
    /** The JSON Pointer concerned. */
    readonly pointer: string,
    /** What is wrong. */
    readonly reason: string,
  ) {
    super(`${shortened(pointer)}: ${reason}`);
  }
}

/** Reads constraints and checks their form; throws {@link ConstraintError}. */
export function readConstraints(value: unknown): Constraints {
  if (!isObject(value)) throw new ConstraintError("", "not an object of constraints");
  const entries = Object.entries(value);
  if (entries.length === 0 || entries.length > MAX_CONSTRAINTS) {
    throw new ConstraintError("", "not between 1 and 64 constraints");
  }
  for (const [pointer, constraint] of entries) {
    if (!isPointer(pointer)) throw new ConstraintError(pointer, "not a JSON Pointer to an argument");
    if (entries.some(([other]) => other.startsWith(`${pointer}/`))) {
      throw new ConstraintError(pointer, "another constraint lies below");
    }
    const problem = malformed(constraint);
    if (problem !== undefined) throw new ConstraintError(pointer, problem);
  }
  return new Map(entries as unknown as [string, Constraint][]);
}

/** Checks that arguments satisfy every constraint and leave nothing unconstrained; throws {@link ConstraintError}. */
export function checkConstraints(constraints: Constraints, args: JsonObject): void {
  const met = new Set<string>();
  admitMembers(constraints, "", args, met);
  for (const [pointer, constraint] of constraints) {
    if (constraint.optional !== true && !met.has(pointer)) {
      throw new ConstraintError(pointer, "required argument is absent");
    }
  }
}

function admitMembers(constraints: Constraints, pointer: string, members: JsonObject, met: Set<string>): void {
  for (const [name, member] of Object.entries(members)) {
    admitValue(constraints, `${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`, member, met);
  }
}

function admitValue(constraints: Constraints, pointer: string, value: Json, met: Set<string>): void {
  const constraint = constraints.get(pointer);
  if (constraint !== undefined) {
    met.add(pointer);
    const problem = refused(constraint, value);
    if (problem !== undefined) throw new ConstraintError(pointer, problem);
  } else if (isObject(value) && Object.keys(value).length > 0) {
    admitMembers(constraints, pointer, value, met);
  } else if (Array.isArray(value) && value.length > 0) {
    value.forEach((item: Json, index) => admitValue(constraints, `${pointer}/${index}`, item, met));
  } else {
    throw new ConstraintError(pointer, "argument without a constraint");
  }
}

/** Why a constraint does not admit a value; `undefined` where it does. */
function refused(constraint: Constraint, value: Json): string | undefined {
  const { minimum, maximum } = constraint;
  if (constraint.enum !== undefined && !constraint.enum.some((admitted) => isEqual(admitted, value))) {
    return "value is not among those admitted";
  }
  if (minimum !== undefined || maximum !== undefined) {
    const isWithin =
      typeof value === "number" && value >= (minimum ?? -Infinity) && value <= (maximum ?? Infinity) && isExact(value);
    if (!isWithin) return "not a number within the range";
  }
  if (!prefixesOf(constraint).every((prefix) => typeof value === "string" && isUnder(prefix, value))) {
    return "not a path under the prefix";
  }
  return undefined;
}

/** What is wrong with the form of a constraint. */
function malformed(value: Json): string | undefined {
  if (!isObject(value) || !Object.keys(value).every((name) => MEMBERS.includes(name))) {
    return "not an object of enum, minimum, maximum, prefix, optional";
  }
  const { enum: values, minimum, maximum, prefix, optional } = value;
  if (optional !== undefined && typeof optional !== "boolean") return "optional is not true or false";
  const prefixes = prefix === undefined ? [] : Array.isArray(prefix) ? prefix : [prefix];
  const isRange = minimum !== undefined || maximum !== undefined;
  if ([values !== undefined, isRange, prefixes.length > 0].filter(Boolean).length !== 1) {
    return "not exactly one of enum, range, prefix";
  }
  if (values !== undefined) return malformedEnum(values);
  for (const bound of [minimum, maximum]) {
    if (bound === undefined) continue;
    if (typeof bound !== "number" || !isExact(bound)) return "number out of the interoperable range";
  }
  if (minimum !== undefined && maximum !== undefined && (minimum as number) > (maximum as number)) {
    return "minimum above maximum";
  }
  if (prefixes.length > MAX_VALUES || !prefixes.every((each) => typeof each === "string" && isPlainPath(each))) {
    return "prefix is empty, too long, or has .. or % or \\ or a control character";
  }
  return undefined;
}

function malformedEnum(values: Json): string | undefined {
  if (!Array.isArray(values) || values.length === 0 || values.length > MAX_VALUES) {
    return "enum is not of 1 to 64 values";
  }
  try {
    for (const each of values) checkValue(each, MAX_DEPTH);
    return undefined;
  } catch {
    return "enum value out of bounds";
  }
}

function prefixesOf({ prefix }: Constraint): readonly string[] {
  if (prefix === undefined) return [];
  return typeof prefix === "string" ? [prefix] : prefix;
}

/** Whether `path` lies under `prefix` by whole segments, and holds nothing that could lead out again. */
function isUnder(prefix: string, path: string): boolean {
  if (!isPlainPath(path) || !path.startsWith(prefix)) return false;
  const rest = path.slice(prefix.length);
  return rest === "" || prefix.endsWith("/") || rest.startsWith("/");
}

/**
 * `..` climbs, `%` may hide what climbs, `\` is a second separator for some, and a control character (NUL) may end the
 * path early for others.
 */
function isPlainPath(path: string): boolean {
  return path !== "" && byteLength(path) <= MAX_PATH_BYTES && !path.includes("..") && !NOT_IN_A_PATH.test(path);
}

/** RFC 6901 §3: `/` before every token, `~` only in `~0` and `~1`. The empty pointer, valid there, is no argument. */
function isPointer(pointer: string): boolean {
  return byteLength(pointer) <= MAX_POINTER_BYTES && pointer.startsWith("/") && !/~(?![01])/.test(pointer);
}

/** A pointer is made of the caller's member names, which may be long. */
function shortened(pointer: string): string {
  return pointer.length > MAX_SHOWN ? `${pointer.slice(0, MAX_SHOWN)}…` : pointer;
}

const MEMBERS = ["enum", "minimum", "maximum", "prefix", "optional"];
const NOT_IN_A_PATH = /[%\\]|\p{Cc}/u;
const MAX_CONSTRAINTS = 64;
const MAX_VALUES = 64;
const MAX_POINTER_BYTES = 1024;
const MAX_PATH_BYTES = 4096;
const MAX_SHOWN = 256;
