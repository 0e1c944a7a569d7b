/** A tool's pinned input schema: compiled once, closed against unknown members, bounded. */

import { Ajv, type ErrorObject, type Options, type ValidateFunction } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { RE2JS } from "re2js";
import { canonicalize } from "./canonical.js";
import { closeSchema, type Draft } from "./closing.js";
import { utf8 } from "./bytes.js";
import { isObject, type Json, type JsonObject } from "./json.js";
import { SchemaError } from "./schema-error.js";

export { SchemaError } from "./schema-error.js";

/** A compiled JSON Schema that refuses what it does not name. */
export class PinnedSchema {
  private constructor(
    /** The schema as its author wrote it. */
    private readonly original: ValidateFunction,
    /** The same, closed: closing may widen what stands under `not`, so both must hold. */
    private readonly closed: ValidateFunction,
  ) {}

  /**
   * Compiles an `inputSchema` of draft 2020-12 (the default) or draft-07. External references are refused and never
   * fetched; patterns run in linear time.
   *
   * Every object position that does not itself say `additionalProperties` or `unevaluatedProperties` is closed, and
   * items that no keyword describes must be scalars: `{"type":"object"}` admits only `{}`.
   */
  static compile(schema: unknown): PinnedSchema {
    if (!isObject(schema)) throw new SchemaError("", "the input schema is not an object");
    if (isDeeper(schema, MAX_SCHEMA_DEPTH)) {
      throw new SchemaError("", "the input schema is nested more than 32 levels deep");
    }
    if (utf8(JSON.stringify(schema)).length > MAX_SCHEMA_BYTES) {
      throw new SchemaError("", "the input schema is longer than 256 KiB");
    }
    const { closed, draft } = closeSchema(schema);
    return new PinnedSchema(build(schema, draft), build(closed, draft));
  }

  /** Checks that arguments are valid, with nothing unknown in them; throws {@link SchemaError}. */
  validate(args: JsonObject): void {
    for (const validate of [this.original, this.closed]) {
      if (!validate(args)) throw invalid(validate.errors?.[0]);
    }
  }
}

function build(schema: JsonObject, draft: Draft): ValidateFunction {
  const ajv = compilerOf(draft);
  // `$schema` was read, `$id` may not name another place, and references point into the document itself.
  const { $schema: _draft, $id: _id, ...rest } = JSON.parse(JSON.stringify(schema)) as Record<string, unknown>;
  try {
    return ajv.compile(rest);
  } catch {
    throw new SchemaError("", "not a usable schema");
  } finally {
    ajv.removeSchema(rest); // the compiler is kept, what it compiled is not
  }
}

/** One compiler for each draft: to compile the draft's own schema takes far longer than to compile a tool's. */
function compilerOf(draft: Draft): Ajv {
  const held = COMPILERS.get(draft);
  if (held !== undefined) return held;
  const ajv = draft === "draft-07" ? new Ajv(OPTIONS) : new Ajv2020(OPTIONS);
  // Draft-07 asserts formats, draft 2020-12 only annotates them.
  if (draft === "draft-07") formats.default(ajv, { mode: "fast" });
  compareCanonically(ajv);
  COMPILERS.set(draft, ajv);
  return ajv;
}

/** `enum`, `const` and `uniqueItems` over canonical forms: numbers by value, any member names, linear in the arguments. */
function compareCanonically(ajv: Ajv): void {
  for (const keyword of ["enum", "const", "uniqueItems"]) ajv.removeKeyword(keyword);
  ajv.addKeyword({
    keyword: "enum",
    schemaType: "array",
    compile: (values: Json[]) => {
      const admitted = new Set(values.map(canonicalize));
      return (value: Json) => admitted.has(canonicalize(value));
    },
  });
  ajv.addKeyword({
    keyword: "const",
    compile: (constant: Json) => {
      const admitted = canonicalize(constant);
      return (value: Json) => canonicalize(value) === admitted;
    },
  });
  ajv.addKeyword({
    keyword: "uniqueItems",
    type: "array",
    schemaType: "boolean",
    compile: (unique: boolean) => (items: Json[]) =>
      !unique || new Set(items.map(canonicalize)).size === items.length,
  });
}

/** Tells where arguments fail, and against which keyword; the values stay inside. */
function invalid(error: ErrorObject | undefined): SchemaError {
  const { instancePath = "", keyword = "schema" } = error ?? {};
  const isUnknown = keyword === "additionalProperties" || keyword === "unevaluatedProperties";
  const problem = isUnknown
    ? `has a member that the schema does not name (${keyword})`
    : `does not satisfy ${keyword}`;
  return new SchemaError(instancePath, problem);
}

function isDeeper(value: Json, levels: number): boolean {
  if (typeof value !== "object" || value === null) return false;
  return levels === 0 || Object.values(value as JsonObject).some((member) => isDeeper(member, levels - 1));
}

/** RE2: linear in the text, whatever the pattern. What it cannot do (look-around, back-references) does not compile. */
const linear = Object.assign(
  (pattern: string) => {
    const compiled = RE2JS.compile(RE2JS.translateRegExp(pattern));
    // INVARIANT: the compiler tells patterns apart by their text.
    return { test: (text: string) => compiled.test(text), toString: () => pattern };
  },
  { code: "linear" },
);

const COMPILERS = new Map<Draft, Ajv>();
const OPTIONS: Options = {
  // Annotations of others (`x-mcp-header`) are no keywords of a vocabulary.
  strict: false,
  logger: false,
  // A member is what the arguments say, never what an object inherits.
  ownProperties: true,
  code: { regExp: linear },
};
const MAX_SCHEMA_BYTES = 256 * 1024;
const MAX_SCHEMA_DEPTH = 32;
