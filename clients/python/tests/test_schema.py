"""Input schemas, closed against what they do not name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deputize.call.closing import SchemaRefused
from deputize.call.schema import PinnedSchema

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
LINKED = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
        }
    },
    "properties": {"head": {"$ref": "#/$defs/node"}},
}
NESTED = {
    "type": "object",
    "required": ["id"],
    "properties": {
        "id": {"type": "string", "pattern": "^pay_[0-9]+$"},
        "to": {"type": "object", "properties": {"iban": {"type": "string"}}},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {}}}},
        "pair": {"type": "array", "prefixItems": [{"properties": {"x": {}}}]},
        "any": True,
    },
}
OPENED = {
    "properties": {
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "additionalProperties": True},
    }
}
COMBINED = {
    "properties": {"kind": {"enum": ["a", "b"]}},
    "allOf": [{"properties": {"common": {"type": "integer"}}}],
    "oneOf": [
        {"properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}},
        {"properties": {"kind": {"const": "b"}, "y": {"type": "integer"}}},
    ],
    "required": ["kind"],
}
CONDITIONAL = {
    "properties": {"mode": {"type": "string"}},
    "if": {"properties": {"mode": {"const": "x"}, "smuggled": {}}},
    "then": {"properties": {"extra": {"type": "integer"}}},
}
NEGATED = {
    "$defs": {"bad": {"properties": {"o": {"type": "object", "required": ["z"]}}, "required": ["o"]}},
    "properties": {"o": {"type": "object", "properties": {"z": {}}}},
    "not": {"$ref": "#/$defs/bad"},
}
OLD = {
    "$schema": DRAFT_7,
    "$ref": "#/definitions/args",
    "definitions": {
        "args": {
            "type": "object",
            "properties": {
                "id": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"n": {}}}]},
                "tuple": {"type": "array", "items": [{"type": "integer"}]},
            },
        }
    },
}
OLD_STATED = {
    "$schema": DRAFT_7,
    "type": "object",
    "properties": {"a": {}},
    "allOf": [{"required": ["a"]}],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "admitted", "refused"),
    [
        ({"type": "object"}, [{}], [{"a": 1}]),
        ({}, [{}], [{"a": 1}]),
        (
            NESTED,
            [
                {"id": "pay_1", "to": {"iban": "x"}, "lines": [{"sku": 1}]},
                {"id": "pay_1", "pair": [{"x": 1}, 2], "any": "text"},
            ],
            [
                {"id": "pay_1", "extra": 1},
                {"id": "pay_1", "to": {"iban": "x", "bic": "y"}},
                {"id": "pay_1", "lines": [{"sku": 1, "price": 2}]},
                {"id": "pay_1", "pair": [{"y": 1}]},
                {"id": "pay_1", "pair": [{"x": 1}, {"anything": 1}]},
                {"id": "pay_1", "any": {"hidden": 1}},
                {"id": "pay_1", "any": [{"hidden": 1}]},
                {"id": "other"},
                {},
            ],
        ),
        (OPENED, [{"labels": {"a": "b"}, "free": {"x": {"y": 1}}}], [{"labels": {"a": 1}}]),
        (
            COMBINED,
            [{"kind": "a", "x": 1, "common": 2}, {"kind": "b", "y": 1}],
            [{"kind": "a", "y": 1}, {"kind": "a", "z": 1}],
        ),
        (
            LINKED,
            [{"head": {"value": 1, "next": {"value": 2}}}],
            [{"head": {"value": 1, "next": {"value": 2, "x": 3}}}, {"head": {"x": 3}}],
        ),
        (
            CONDITIONAL,
            [{"mode": "x", "extra": 1}],
            [{"mode": "y", "extra": 1}, {"mode": "x", "smuggled": {"deep": 1}}],
        ),
        (NEGATED, [{"o": {}}], [{"o": {"z": 1}}]),
        (
            OLD,
            [{"id": {"n": 1}, "tuple": [1, "x"]}],
            [{"id": {"m": 1}}, {"tuple": [1, {"m": 1}]}, {"other": 1}],
        ),
        (OLD_STATED, [{"a": 1}], [{"b": 1}]),
        ({"properties": {"n": {"type": "integer"}}}, [{"n": 1}, {"n": 1.0}], [{"n": 1.5}, {"n": True}]),
    ],
)
def test_what_a_schema_does_not_name_is_refused(schema: Any, admitted: list[Any], refused: list[Any]) -> None:
    pinned = PinnedSchema(schema)
    for arguments in admitted:
        pinned.validate(arguments)
    for arguments in refused:
        with pytest.raises(SchemaRefused):
            pinned.validate(arguments)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://attacker.example/schema.json"},
        {"properties": {"a": {"$ref": "file:///etc/passwd"}}},
        {"properties": {"a": {"$ref": "other.json#/a"}}},
        {"x-hidden": {"type": "object"}, "properties": {"a": {"$ref": "#/x-hidden"}}},
        {"not": {"properties": {"a": {}}}, "properties": {"a": {"$ref": "#/not"}}},
        {"properties": {"a": {"$id": "https://other.example/", "type": "object"}}},
        {"properties": {"a": {"$schema": DRAFT_7}}},
        {"properties": {"a": {"$dynamicRef": "#x"}}},
        {"$schema": "https://example.com/my-dialect"},
        {"properties": {"a": {"type": "array", "contains": {}}}},
        {"$schema": DRAFT_7, "type": "object", "allOf": [{"properties": {"a": {}}}]},
        {"$ref": "#"},
        {
            "$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}},
            "$ref": "#/$defs/a",
        },
        {
            "$defs": {
                **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(30)},
                "d30": {},
            },
            "$ref": "#/$defs/d0",
        },
        {"description": "x" * 256 * 1024},
        True,
        {"properties": {"a": {"pattern": "(?=x)(a+)+$"}}},
        {"properties": {"a": {"pattern": "((a{1000}){1000}){1000}"}}},
        {"type": "no such type"},
        {"properties": {"a": 1}},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_what_cannot_be_held_against_arguments_safely_is_not_compiled(schema: Any) -> None:
    with pytest.raises(SchemaRefused):
        PinnedSchema(schema)


def test_a_deep_schema_is_refused_and_a_long_chain_of_types_is_not() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"properties": {"a": deep}}
    with pytest.raises(SchemaRefused, match="32 levels"):
        PinnedSchema(deep)
    chain = {f"d{i}": {"properties": {"n": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(200)}
    chained = PinnedSchema({"$defs": {**chain, "d200": {"type": "object"}}, "$ref": "#/$defs/d0"})
    chained.validate({"n": {"n": {}}})


def test_errors_name_the_place_and_the_keyword_and_never_the_value() -> None:
    iban = {"type": "string", "maxLength": 3}
    pinned = PinnedSchema({"properties": {"to": {"properties": {"iban": iban}}}})
    with pytest.raises(SchemaRefused) as refused:
        pinned.validate({"to": {"iban": "canary-value"}})
    assert (refused.value.pointer, refused.value.problem) == ("/to/iban", "does not satisfy maxLength")
    with pytest.raises(SchemaRefused) as refused:
        pinned.validate({"to": {"unknown": "canary-value"}})
    assert refused.value.pointer == "/to"
    assert "unevaluatedProperties" in refused.value.problem
    assert "canary" not in str(refused.value)
