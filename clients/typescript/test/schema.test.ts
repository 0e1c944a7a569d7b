/** The pinned schema: closed, bounded, and silent about values. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type JsonObject, parseObject } from "../src/call/json.js";
import { PinnedSchema, SchemaError } from "../src/call/schema.js";

const strict = (value: unknown): JsonObject => parseObject(JSON.stringify(value));

function refusal(schema: unknown, args: unknown): SchemaError | undefined {
  const pinned = PinnedSchema.compile(strict(schema));
  try {
    pinned.validate(strict(args));
    return undefined;
  } catch (error) {
    assert.ok(error instanceof SchemaError, String(error));
    return error;
  }
}

const admits = (schema: unknown, args: unknown) => refusal(schema, args) === undefined;

function uncompilable(schema: unknown): string {
  try {
    PinnedSchema.compile(schema);
  } catch (error) {
    assert.ok(error instanceof SchemaError, String(error));
    return error.problem;
  }
  return assert.fail(`compiles: ${JSON.stringify(schema).slice(0, 200)}`);
}

test("a bare object schema admits only the empty object", () => {
  for (const schema of [{ type: "object" }, {}]) {
    assert.ok(admits(schema, {}));
    assert.ok(!admits(schema, { a: 1 }));
  }
});

test("named members pass and unknown ones do not, at every depth", () => {
  const schema = {
    type: "object",
    required: ["id"],
    properties: {
      id: { type: "string", pattern: "^pay_[0-9]+$" },
      to: { type: "object", properties: { iban: { type: "string" } } },
      lines: { type: "array", items: { type: "object", properties: { sku: {} } } },
      pair: { type: "array", prefixItems: [{ properties: { x: {} } }] },
      any: true,
    },
  };
  assert.ok(admits(schema, { id: "pay_1", to: { iban: "x" }, lines: [{ sku: 1 }] }));
  assert.ok(admits(schema, { id: "pay_1", pair: [{ x: 1 }, 2], any: "text" }));
  for (const args of [
    { id: "pay_1", extra: 1 },
    { id: "pay_1", to: { iban: "x", bic: "y" } },
    { id: "pay_1", lines: [{ sku: 1, price: 2 }] },
    { id: "pay_1", pair: [{ y: 1 }] },
    { id: "pay_1", pair: [{ x: 1 }, { anything: 1 }] },
    { id: "pay_1", any: { hidden: 1 } },
    { id: "pay_1", any: [{ hidden: 1 }] },
    { id: "other" },
    {},
  ]) {
    assert.ok(!admits(schema, args), JSON.stringify(args));
  }
});

test("what the author opened stays open", () => {
  const schema = {
    properties: {
      labels: { type: "object", additionalProperties: { type: "string" } },
      free: { type: "object", additionalProperties: true },
    },
  };
  assert.ok(admits(schema, { labels: { a: "b" }, free: { x: { y: 1 } } }));
  assert.ok(!admits(schema, { labels: { a: 1 } }));
});

test("combinations close at the position and not in their branches", () => {
  const schema = {
    properties: { kind: { enum: ["a", "b"] } },
    allOf: [{ properties: { common: { type: "integer" } } }],
    oneOf: [
      { properties: { kind: { const: "a" }, x: { type: "integer" } } },
      { properties: { kind: { const: "b" }, y: { type: "integer" } } },
    ],
    required: ["kind"],
  };
  assert.ok(admits(schema, { kind: "a", x: 1, common: 2 }));
  assert.ok(admits(schema, { kind: "b", y: 1 }));
  assert.ok(!admits(schema, { kind: "a", y: 1 }));
  assert.ok(!admits(schema, { kind: "a", z: 1 }));
});

test("references and recursion are closed", () => {
  const schema = {
    $defs: { node: { type: "object", properties: { value: { type: "integer" }, next: { $ref: "#/$defs/node" } } } },
    properties: { head: { $ref: "#/$defs/node" } },
  };
  assert.ok(admits(schema, { head: { value: 1, next: { value: 2 } } }));
  assert.ok(!admits(schema, { head: { value: 1, next: { value: 2, x: 3 } } }));
  assert.ok(!admits(schema, { head: { x: 3 } }));
});

test("a condition describes nothing by itself", () => {
  const schema = {
    properties: { mode: { type: "string" } },
    if: { properties: { mode: { const: "x" }, smuggled: {} } },
    then: { properties: { extra: { type: "integer" } } },
  };
  assert.ok(admits(schema, { mode: "x", extra: 1 }));
  assert.ok(!admits(schema, { mode: "y", extra: 1 }));
  assert.ok(!admits(schema, { mode: "x", smuggled: { deep: 1 } }));
});

test("closing never widens what `not` refuses", () => {
  const schema = {
    $defs: { bad: { properties: { o: { type: "object", required: ["z"] } }, required: ["o"] } },
    properties: { o: { type: "object", properties: { z: {} } } },
    not: { $ref: "#/$defs/bad" },
  };
  assert.ok(admits(schema, { o: {} }));
  assert.ok(!admits(schema, { o: { z: 1 } }));
});

test("draft-07 is closed where it can be and refused where it cannot", () => {
  const $schema = "http://json-schema.org/draft-07/schema#";
  const schema = {
    $schema,
    $ref: "#/definitions/args",
    definitions: {
      args: {
        type: "object",
        properties: {
          id: { anyOf: [{ type: "string" }, { type: "object", properties: { n: {} } }] },
          tuple: { type: "array", items: [{ type: "integer" }] },
          mail: { type: "string", format: "email" },
        },
      },
    },
  };
  assert.ok(admits(schema, { id: { n: 1 }, tuple: [1, "x"], mail: "a@shop.example" }));
  assert.ok(!admits(schema, { id: { m: 1 } }));
  assert.ok(!admits(schema, { tuple: [1, { m: 1 }] }));
  assert.ok(!admits(schema, { other: 1 }));
  assert.ok(!admits(schema, { mail: "nobody" }));

  const open = { $schema, type: "object", allOf: [{ properties: { a: {} } }] };
  assert.match(uncompilable(open), /cannot be closed/);
  const stated = {
    $schema, type: "object", properties: { a: {} }, allOf: [{ required: ["a"] }], additionalProperties: false,
  };
  assert.ok(admits(stated, { a: 1 }));
  assert.ok(!admits(stated, { b: 1 }));
});

test("references out of the document or out of reach do not compile", () => {
  for (const schema of [
    { $ref: "https://attacker.example/schema.json" },
    { properties: { a: { $ref: "file:///etc/passwd" } } },
    { properties: { a: { $ref: "other.json#/a" } } },
    { "x-hidden": { type: "object" }, properties: { a: { $ref: "#/x-hidden" } } },
    { not: { properties: { a: {} } }, properties: { a: { $ref: "#/not" } } },
    { properties: { a: { $id: "https://other.example/", type: "object" } } },
    { properties: { a: { $schema: "http://json-schema.org/draft-07/schema#" } } },
    { properties: { a: { $dynamicRef: "#x" } } },
    { $schema: "https://example.com/my-dialect" },
    { properties: { a: { type: "array", contains: {} } } },
    { type: "nothing" },
    { properties: { a: { minimum: "1" } } },
  ]) {
    uncompilable(schema);
  }
});

test("circles and explosions do not compile", () => {
  uncompilable({ $ref: "#" });
  const circle = { $defs: { a: { allOf: [{ $ref: "#/$defs/b" }] }, b: { $ref: "#/$defs/a" } }, $ref: "#/$defs/a" };
  assert.match(uncompilable(circle), /circle/);
  const numbered = (count: number, last: unknown, each: (next: unknown) => unknown) =>
    Object.fromEntries(
      Array.from({ length: count + 1 }, (_, i) => [`d${i}`, i === count ? last : each({ $ref: `#/$defs/d${i + 1}` })]),
    );
  const doubling = numbered(30, {}, (next) => ({ allOf: [next, next] }));
  assert.match(uncompilable({ $defs: doubling, $ref: "#/$defs/d0" }), /too many/);
  // Legitimate neighbour: a long chain of nested types. One of 200 may exceed the stack, and is then refused.
  const chain = numbered(100, { type: "object" }, (next) => ({ properties: { n: next } }));
  assert.ok(admits({ $defs: chain, $ref: "#/$defs/d0" }, { n: { n: {} } }));
});

test("bounds hold, patterns are linear", () => {
  const deep = Array.from({ length: 40 }).reduce((inner) => ({ properties: { a: inner } }), {});
  assert.match(uncompilable(deep), /32 levels/);
  assert.match(uncompilable({ description: "x".repeat(256 * 1024) }), /256 KiB/);
  assert.match(uncompilable(true), /not an object/);
  uncompilable({ properties: { a: { pattern: "(?=x)(a+)+$" } } });
  uncompilable({ properties: { a: { pattern: "((a{1000}){1000}){1000}" } } });
  const schema = { properties: { a: { type: "string", pattern: "^(a+)+$" } } };
  assert.ok(admits(schema, { a: "aaa" }));
  assert.ok(!admits(schema, { a: `${"a".repeat(50_000)}!` }), "a backtracking engine would not return");
});

test("members are the arguments' own, whatever their names", () => {
  const schema = { properties: { a: { type: "string" } }, required: ["toString"] };
  assert.ok(!admits(schema, { a: "x" }), "an inherited member is none");
  const named = { properties: { constructor: { type: "string" }, value: { enum: [{ valueOf: 1 }, 1.5], additionalProperties: true } } };
  assert.ok(admits(named, { constructor: "x", value: { valueOf: 1 } }));
  assert.ok(admits(named, {}));
  assert.ok(!admits(named, { constructor: 1 }));
  assert.throws(() => PinnedSchema.compile(parseObject('{"properties":{"__proto__":{"type":"string"}}}')), SchemaError);
  const closed = PinnedSchema.compile({ type: "object" });
  assert.throws(() => closed.validate(parseObject('{"__proto__":{"a":1}}')), SchemaError);
});

test("patterns are told apart", () => {
  const schema = { properties: { a: { pattern: "^x$" }, b: { pattern: "^y$" } } };
  assert.ok(admits(schema, { a: "x", b: "y" }));
  assert.ok(!admits(schema, { a: "y" }));
  assert.ok(!admits(schema, { b: "x" }));
  assert.ok(!admits({ properties: { a: { pattern: "^\\u00e9$" } } }, { a: "e" }));
});

test("uniqueness is by value and takes no time", () => {
  const schema = { properties: { ids: { type: "array", uniqueItems: true, items: { type: ["integer", "array"] } } } };
  assert.ok(admits(schema, { ids: [1, 2, [1], [2]] }));
  assert.ok(!admits(schema, { ids: [[1, 2], [1, 2]] }));
  assert.ok(admits(schema, { ids: Array.from({ length: 100_000 }, (_, i) => [i]) }));
});

test("errors name the place and the keyword and never the value", () => {
  const schema = { properties: { to: { properties: { iban: { type: "string", maxLength: 3 } } } } };
  const error = refusal(schema, { to: { iban: "canary-value" } });
  assert.deepEqual([error?.pointer, error?.problem], ["/to/iban", "does not satisfy maxLength"]);
  const unknown = refusal(schema, { to: { unknown: "canary-value" } });
  assert.equal(unknown?.pointer, "/to");
  assert.match(unknown?.problem ?? "", /unevaluatedProperties/);
  assert.doesNotMatch(String(unknown), /canary/);
});
