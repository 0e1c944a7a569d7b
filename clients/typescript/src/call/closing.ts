/**
 * Closes a schema: every place where an object may stand gets a rule against members that no keyword names.
 *
 * A *position* is a schema for an instance location of its own (root, property values, items). A *branch* (`allOf`,
 * `then`, …) describes the location of its parent, which closes for it. What stands under `not`, `if` or `contains` is
 * only *judged*: closing there would change the verdict, so it stays as written.
 */

import { isObject, type Json, type JsonObject } from "./json.js";
import { SchemaError } from "./schema-error.js";

/** The drafts that are understood. */
export type Draft = "2020-12" | "draft-07";

/** The closed form of a schema, and the draft in which it and the original are written. */
export function closeSchema(schema: JsonObject): { closed: JsonObject; draft: Draft } {
  const draft = draftOf(schema["$schema"]);
  const walk = new Walk(draft);
  const closed = walk.schema(schema, "", "position");
  walk.checkReferences();
  return { closed: closed as JsonObject, draft };
}

function draftOf(uri: Json | undefined): Draft {
  switch (typeof uri === "string" ? uri.replace(/#$/, "") : uri) {
    case undefined:
    case "https://json-schema.org/draft/2020-12/schema":
      return "2020-12";
    case "http://json-schema.org/draft-07/schema":
    case "https://json-schema.org/draft-07/schema":
      return "draft-07";
    default:
      throw new SchemaError("/$schema", "only draft 2020-12 and draft-07 are supported");
  }
}

type Place = "position" | "branch" | "judged";

/** The schema whose keyword is looked at. */
interface Here {
  readonly at: string;
  readonly place: Place;
  /** Its union's branches are closed one by one instead of it. */
  readonly spread: boolean;
}

class Walk {
  /** Pointers of the schemas that a reference may point to, and the anchors among them. */
  private readonly targets = new Set<string>();
  private readonly anchors = new Map<string, string>();
  /** Where each `$ref` stands and what it says. */
  private readonly references: [at: string, reference: string][] = [];
  /** Schema → schemas that it applies to the same instance location. */
  private readonly inPlace = new Map<string, string[]>();

  constructor(private readonly draft: Draft) {}

  schema(schema: Json, at: string, place: Place): Json {
    // `true` says no more of an object's members than `{}` does.
    const members = schema === true && place === "position" ? {} : schema;
    if (typeof members === "boolean") return members;
    if (!isObject(members)) throw new SchemaError(at, "a schema must be an object or a boolean");
    if (place === "position" || (place === "branch" && this.draft !== "draft-07")) this.targets.add(at);
    if ("contains" in members && !("items" in members)) {
      // What `contains` matches would count as described, and it is only judged.
      throw new SchemaError(at, "`contains` needs `items` beside it");
    }
    const spread = this.draft === "draft-07" && place === "position" && isPlainUnion(members);
    const closed: Record<string, Json> = {};
    for (const [keyword, value] of Object.entries(members)) {
      define(closed, keyword, this.keyword(keyword, value, { at, place, spread }));
    }
    if (place === "position" && !spread) {
      if (this.draft === "draft-07") closeDraft07(closed, at);
      else close202012(closed);
    }
    return closed;
  }

  private keyword(keyword: string, value: Json, here: Here): Json {
    const at = `${here.at}/${escaped(keyword)}`;
    switch (keyword) {
      case "properties":
      case "patternProperties":
        return this.map(value, at, inside(here, "position"));
      case "$defs":
      case "definitions":
        return this.map(value, at, inside(here, this.draft === "draft-07" ? "position" : "branch"));
      case "dependentSchemas":
      case "dependencies":
        this.apply(here.at, at, value);
        return this.map(value, at, inside(here, "branch"));
      case "allOf":
      case "anyOf":
      case "oneOf":
        this.apply(here.at, at, value);
        return this.list(value, at, inside(here, here.spread ? "position" : "branch"));
      case "then":
      case "else":
        this.link(here.at, at);
        return this.schema(value, at, inside(here, "branch"));
      case "not":
      case "if": {
        this.link(here.at, at);
        const judged = this.schema(value, at, "judged");
        // A double negation keeps the verdict of `if` and drops what it describes: `then` and `else` say that.
        return keyword === "if" ? { not: { not: judged } } : judged;
      }
      case "contains":
      case "propertyNames":
        return this.schema(value, at, "judged");
      case "prefixItems":
        return this.list(value, at, inside(here, "position"));
      case "items":
        if (Array.isArray(value)) return this.list(value, at, inside(here, "position"));
        return this.schema(value, at, inside(here, "position"));
      case "additionalProperties":
      case "unevaluatedProperties":
        return typeof value === "boolean" ? value : this.schema(value, at, inside(here, "position"));
      case "additionalItems":
      case "unevaluatedItems":
        return this.schema(value, at, inside(here, "position"));
      default:
        return this.reference(keyword, value, here.at, at);
    }
  }

  /** Keywords that name or point to schemas; all others stay as they are. */
  private reference(keyword: string, value: Json, from: string, at: string): Json {
    switch (keyword) {
      case "$ref":
        this.references.push([from, typeof value === "string" ? value : ""]);
        return value;
      case "$anchor":
        this.anchors.set(typeof value === "string" ? value : "", from);
        return value;
      case "$schema":
      case "$id":
        if (from === "") return value;
        break;
      case "$dynamicRef":
      case "$dynamicAnchor":
      case "$recursiveRef":
      case "$recursiveAnchor":
      case "$vocabulary":
        break;
      default:
        return value;
    }
    throw new SchemaError(at, "this keyword is not supported here");
  }

  private map(value: Json, at: string, place: Place): Json {
    if (!isObject(value)) throw new SchemaError(at, "must be an object of schemas");
    const closed: Record<string, Json> = {};
    for (const [name, schema] of Object.entries(value)) {
      // The compiler passes over this name.
      if (name === "__proto__") throw new SchemaError(at, "`__proto__` is not supported as a name here");
      // `dependencies` may also list names.
      define(closed, name, Array.isArray(schema) ? schema : this.schema(schema, `${at}/${escaped(name)}`, place));
    }
    return closed;
  }

  private list(value: Json, at: string, place: Place): Json {
    if (!Array.isArray(value)) throw new SchemaError(at, "must be a list of schemas");
    return value.map((schema: Json, index) => this.schema(schema, `${at}/${index}`, place));
  }

  private apply(from: string, at: string, value: Json): void {
    if (typeof value !== "object" || value === null) return;
    for (const name of Object.keys(value)) this.link(from, `${at}/${escaped(name)}`);
  }

  private link(from: string, to: string): void {
    const links = this.inPlace.get(from) ?? [];
    links.push(to);
    this.inPlace.set(from, links);
  }

  /** References point to schemas of this document that were closed, few in number and never in a circle. */
  checkReferences(): void {
    if (this.references.length > MAX_REFERENCES) {
      throw new SchemaError("", "the input schema has more than 256 references");
    }
    for (const [at, reference] of this.references) {
      if (!reference.startsWith("#")) throw new SchemaError(at, "`$ref` may only point into the same document");
      const fragment = reference.slice(1);
      const target = this.anchors.get(fragment) ?? fragment;
      if (!this.targets.has(target)) {
        throw new SchemaError(at, "`$ref` does not point to a schema of this document");
      }
      this.link(at, target);
    }
    const weighed = new Map<string, Weight>();
    for (const start of this.inPlace.keys()) this.weigh(start, 0, weighed);
  }

  /** How many schemas one instance location has to be held against, and how long the longest chain of them is. */
  private weigh(at: string, depth: number, weighed: Map<string, Weight>): Weight {
    const tooMuch = () => new SchemaError(at, "references go in a circle, or combine too many schemas");
    let weight = weighed.get(at);
    if (weight === undefined) {
      if (depth >= MAX_IN_PLACE_CHAIN) throw tooMuch();
      weight = { schemas: 1, chain: 1 };
      for (const next of this.inPlace.get(at) ?? []) {
        const inner = this.weigh(next, depth + 1, weighed);
        weight = { schemas: weight.schemas + inner.schemas, chain: Math.max(weight.chain, inner.chain + 1) };
      }
      weighed.set(at, weight);
    }
    if (depth + weight.chain > MAX_IN_PLACE_CHAIN || weight.schemas > MAX_IN_PLACE_SCHEMAS) throw tooMuch();
    return weight;
  }
}

interface Weight {
  readonly schemas: number;
  readonly chain: number;
}

/** What is inside of something that is only judged is only judged. */
function inside(here: Here, place: Place): Place {
  return here.place === "judged" ? "judged" : place;
}

/** `unevaluated…` sees through `$ref` and every combination (draft 2020-12 core §11). */
function close202012(schema: Record<string, Json>): void {
  if (admits(schema, "object") && !("additionalProperties" in schema)) schema["unevaluatedProperties"] ??= false;
  if (admits(schema, "array") && !("items" in schema)) schema["unevaluatedItems"] ??= SCALARS;
}

/** `additionalProperties` sees only the keywords beside it: a combination has to speak for itself. */
function closeDraft07(schema: Record<string, Json>, at: string): void {
  if ("$ref" in schema) return; // its siblings are ignored (draft-07 core §8.3), and its target is closed
  const combined = ["allOf", "anyOf", "oneOf", "if", "dependencies"].some((keyword) => keyword in schema);
  if (admits(schema, "object") && !("additionalProperties" in schema)) {
    if (combined) {
      const problem = "a combination cannot be closed in draft-07: say `additionalProperties` beside it";
      throw new SchemaError(at, problem);
    }
    schema["additionalProperties"] = false;
  }
  if (!admits(schema, "array")) return;
  if (Array.isArray(schema["items"])) {
    schema["additionalItems"] ??= SCALARS;
  } else if (!("items" in schema)) {
    if (combined) {
      throw new SchemaError(at, "a combination cannot be closed in draft-07: say `items` or `type`");
    }
    schema["items"] = SCALARS;
  }
}

/** A union and nothing else that describes members or items: each branch can be closed by itself. */
function isPlainUnion(schema: JsonObject): boolean {
  const unions = ["anyOf", "oneOf"].filter((keyword) => keyword in schema);
  const others = [
    "allOf", "if", "dependencies", "properties", "patternProperties", "additionalProperties", "items",
  ];
  return unions.length === 1 && !others.some((keyword) => keyword in schema);
}

function admits(schema: JsonObject, wanted: string): boolean {
  const { type } = schema;
  if (typeof type === "string") return type === wanted;
  return Array.isArray(type) ? type.includes(wanted) : true;
}

/** Sets a member of any name, `__proto__` too. */
function define(object: Record<string, Json>, name: string, value: Json): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}

/** RFC 6901 §3. */
function escaped(token: string): string {
  return token.replaceAll("~", "~0").replaceAll("/", "~1");
}

const SCALARS: Json = { type: ["null", "boolean", "number", "string"] };
const MAX_REFERENCES = 256;
const MAX_IN_PLACE_CHAIN = 32;
const MAX_IN_PLACE_SCHEMAS = 1_000;
