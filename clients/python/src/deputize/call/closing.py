"""Closes a schema: every place where an object may stand gets a rule against members that no keyword names.

A *position* is a schema for an instance location of its own (root, property values, items). A *branch* (`allOf`,
`then`, …) describes the location of its parent, which closes for it. What stands under `not`, `if` or `contains` is
only *judged*: closing there would change the verdict, so it stays as written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from .strict_json import JsonObject, JsonValue

_Place: TypeAlias = Literal["position", "branch", "judged"]


class SchemaRefused(ValueError):
    """A schema that is not usable, or arguments that do not satisfy one.

    Attributes:
        pointer: JSON Pointer into the arguments, or into the schema when it is compiled.
        problem: What is wrong. Never contains an argument's value.
    """

    def __init__(self, pointer: str, problem: str) -> None:
        self.pointer = pointer[:_MAX_SHOWN]
        self.problem = problem
        super().__init__(f"{self.pointer}: {problem}")


def close(schema: JsonObject) -> tuple[JsonObject, bool]:
    """The closed form of a schema, and whether both are written in draft-07.

    Raises:
        SchemaRefused: for other drafts, references out of the document, circles and explosions.
    """
    draft = schema.get("$schema", _DRAFT_2020_12)
    draft = draft.rstrip("#") if isinstance(draft, str) else draft
    if draft not in (_DRAFT_2020_12, *_DRAFT_7):
        raise SchemaRefused("/$schema", "only draft 2020-12 and draft-07 are supported")
    walk = _Walk(is_draft7=draft in _DRAFT_7)
    closed = walk.schema(schema, "", "position")
    walk.check_references()
    if not isinstance(closed, dict):
        raise SchemaRefused("", "the input schema is not an object")
    return closed, walk.is_draft7


@dataclass(frozen=True)
class _Here:
    """The schema whose keyword is looked at."""

    at: str
    place: _Place
    spread: bool
    """Its union's branches are closed one by one instead of it."""

    def inside(self, place: _Place) -> _Place:
        """What is inside of something that is only judged is only judged."""
        return "judged" if self.place == "judged" else place


@dataclass
class _Walk:
    is_draft7: bool
    targets: set[str] = field(default_factory=set)
    """Pointers of the schemas that a reference may point to."""
    anchors: dict[str, str] = field(default_factory=dict)
    references: list[tuple[str, str]] = field(default_factory=list)
    """Where each `$ref` stands and what it says."""
    in_place: dict[str, list[str]] = field(default_factory=dict)
    """Schema → schemas that it applies to the same instance location."""

    def schema(self, schema: JsonValue, at: str, place: _Place) -> JsonValue:
        if isinstance(schema, bool):
            if not schema or place != "position":
                return schema
            schema = {}  # `true` says no more of an object's members than `{}` does
        if not isinstance(schema, dict):
            raise SchemaRefused(at, "a schema must be an object or a boolean")
        if place == "position" or (place == "branch" and not self.is_draft7):
            self.targets.add(at)
        if "contains" in schema and "items" not in schema:
            # What `contains` matches would count as described, and it is only judged.
            raise SchemaRefused(at, "`contains` needs `items` beside it")
        spread = self.is_draft7 and place == "position" and _is_plain_union(schema)
        here = _Here(at, place, spread)
        closed = {keyword: self.keyword(keyword, value, here) for keyword, value in schema.items()}
        if place == "position" and not spread:
            if self.is_draft7:
                _close_draft7(closed, at)
            else:
                _close_2020_12(closed)
        return closed

    def keyword(self, keyword: str, value: JsonValue, here: _Here) -> JsonValue:
        at = f"{here.at}/{_escaped(keyword)}"
        if keyword in ("properties", "patternProperties"):
            return self.map(value, at, here.inside("position"))
        if keyword in ("$defs", "definitions"):
            return self.map(value, at, here.inside("position" if self.is_draft7 else "branch"))
        if keyword in ("dependentSchemas", "dependencies"):
            self.apply_in_place(here.at, at, value)
            return self.map(value, at, here.inside("branch"))
        if keyword in ("allOf", "anyOf", "oneOf"):
            self.apply_in_place(here.at, at, value)
            return self.list(value, at, here.inside("position" if here.spread else "branch"))
        if keyword in ("then", "else"):
            self.in_place.setdefault(here.at, []).append(at)
            return self.schema(value, at, here.inside("branch"))
        if keyword in ("not", "if"):
            self.in_place.setdefault(here.at, []).append(at)
            judged = self.schema(value, at, "judged")
            # A double negation keeps the verdict of `if` and drops what it describes: `then` and `else` say that.
            return {"not": {"not": judged}} if keyword == "if" else judged
        if keyword in ("contains", "propertyNames"):
            return self.schema(value, at, "judged")
        if keyword in ("additionalProperties", "unevaluatedProperties") and isinstance(value, bool):
            return value
        if keyword == "prefixItems" or (keyword == "items" and isinstance(value, list)):
            return self.list(value, at, here.inside("position"))
        if keyword in _POSITIONS:
            return self.schema(value, at, here.inside("position"))
        return self.plain_keyword(keyword, value, here.at)

    def plain_keyword(self, keyword: str, value: JsonValue, at: str) -> JsonValue:
        """A keyword under which no schema stands."""
        if keyword == "$ref":
            self.references.append((at, value if isinstance(value, str) else ""))
        elif keyword == "$anchor":
            self.anchors[value if isinstance(value, str) else ""] = at
        elif keyword in _NOT_SUPPORTED and not (keyword in ("$schema", "$id") and at == ""):
            raise SchemaRefused(f"{at}/{_escaped(keyword)}", "this keyword is not supported here")
        return value

    def map(self, value: JsonValue, at: str, place: _Place) -> JsonValue:
        if not isinstance(value, dict):
            raise SchemaRefused(at, "must be an object of schemas")
        return {
            # `dependencies` may also list names
            name: schema if isinstance(schema, list) else self.schema(schema, f"{at}/{_escaped(name)}", place)
            for name, schema in value.items()
        }

    def list(self, value: JsonValue, at: str, place: _Place) -> JsonValue:
        if not isinstance(value, list):
            raise SchemaRefused(at, "must be a list of schemas")
        return [self.schema(schema, f"{at}/{index}", place) for index, schema in enumerate(value)]

    def apply_in_place(self, origin: str, at: str, value: JsonValue) -> None:
        names = (
            map(_escaped, value)
            if isinstance(value, dict)
            else map(str, range(len(value)) if isinstance(value, list) else ())
        )
        self.in_place.setdefault(origin, []).extend(f"{at}/{name}" for name in names)

    def check_references(self) -> None:
        """References point to schemas of this document that were closed, few in number and never in a circle."""
        if len(self.references) > _MAX_REFERENCES:
            raise SchemaRefused("", "the input schema has more than 256 references")
        for at, reference in self.references:
            if not reference.startswith("#"):
                raise SchemaRefused(at, "`$ref` may only point into the same document")
            target = self.anchors.get(reference[1:], reference[1:])
            if target not in self.targets:
                raise SchemaRefused(at, "`$ref` does not point to a schema of this document")
            self.in_place.setdefault(at, []).append(target)
        weighed: dict[str, tuple[int, int]] = {}
        for start in self.in_place:
            self.weigh(start, 0, weighed)

    def weigh(self, at: str, depth: int, weighed: dict[str, tuple[int, int]]) -> tuple[int, int]:
        """How many schemas one instance location is held against, and how long the longest chain of them is."""
        if at not in weighed:
            if depth >= _MAX_IN_PLACE_CHAIN:
                raise _too_much(at)
            schemas, chain = 1, 1
            for inner in self.in_place.get(at, ()):
                inner_schemas, inner_chain = self.weigh(inner, depth + 1, weighed)
                schemas, chain = schemas + inner_schemas, max(chain, inner_chain + 1)
            weighed[at] = (schemas, chain)
        schemas, chain = weighed[at]
        if depth + chain > _MAX_IN_PLACE_CHAIN or schemas > _MAX_IN_PLACE_SCHEMAS:
            raise _too_much(at)
        return schemas, chain


def _too_much(at: str) -> SchemaRefused:
    return SchemaRefused(at, "references go in a circle, or combine too many schemas")


def _close_2020_12(schema: JsonObject) -> None:
    """`unevaluated…` sees through `$ref` and every combination (draft 2020-12 core §11)."""
    if _admits(schema, "object") and "additionalProperties" not in schema:
        schema.setdefault("unevaluatedProperties", False)
    if _admits(schema, "array") and "items" not in schema:
        schema.setdefault("unevaluatedItems", _scalars())


def _close_draft7(schema: JsonObject, at: str) -> None:
    """`additionalProperties` sees only the keywords beside it: a combination has to speak for itself."""
    if "$ref" in schema:
        return  # its siblings are ignored (draft-07 core §8.3), and its target is closed
    combined = any(keyword in schema for keyword in ("allOf", "anyOf", "oneOf", "if", "dependencies"))
    if _admits(schema, "object") and "additionalProperties" not in schema:
        if combined:
            raise SchemaRefused(at, "a combination cannot be closed in draft-07: say `additionalProperties` beside it")
        schema["additionalProperties"] = False
    if _admits(schema, "array"):
        if isinstance(schema.get("items"), list):
            schema.setdefault("additionalItems", _scalars())
        elif "items" not in schema:
            if combined:
                raise SchemaRefused(at, "a combination cannot be closed in draft-07: say `items` or `type`")
            schema["items"] = _scalars()


def _is_plain_union(schema: JsonObject) -> bool:
    """A union and nothing else that describes members or items: each branch can be closed by itself."""
    unions = sum(keyword in schema for keyword in ("anyOf", "oneOf"))
    others = ("allOf", "if", "dependencies", "properties", "patternProperties", "additionalProperties", "items")
    return unions == 1 and not any(keyword in schema for keyword in others)


def _admits(schema: JsonObject, wanted: str) -> bool:
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return kinds == wanted
    return wanted in kinds if isinstance(kinds, list) else True


def _scalars() -> JsonObject:
    return {"type": ["null", "boolean", "number", "string"]}


def _escaped(token: str) -> str:
    """RFC 6901 §3."""
    return token.replace("~", "~0").replace("/", "~1")


_DRAFT_2020_12 = "https://json-schema.org/draft/2020-12/schema"
_DRAFT_7 = ("http://json-schema.org/draft-07/schema", "https://json-schema.org/draft-07/schema")
_POSITIONS = ("items", "additionalItems", "unevaluatedItems", "additionalProperties", "unevaluatedProperties")
_NOT_SUPPORTED = (
    "$schema",
    "$id",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
)
_MAX_REFERENCES = 256
_MAX_IN_PLACE_CHAIN = 32
_MAX_IN_PLACE_SCHEMAS = 1_000
_MAX_SHOWN = 256
