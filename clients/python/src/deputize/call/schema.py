"""A tool's pinned input schema: compiled once, closed against unknown members, bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import jsonschema_rs

from .closing import SchemaRefused, close
from .strict_json import JsonRefused, JsonValue, check_value, serialize

MAX_SCHEMA_BYTES: Final = 256 * 1024
"""The longest schema accepted, as compact JSON."""
MAX_SCHEMA_DEPTH: Final = 32
"""The deepest nesting of a schema."""


class PinnedSchema:
    """A compiled JSON Schema that refuses what it does not name."""

    def __init__(self, schema: JsonValue) -> None:
        """Compile an `inputSchema` of draft 2020-12 (the default) or draft-07.

        External references are refused and never fetched; patterns run in linear time. Every object position that
        does not itself say `additionalProperties` or `unevaluatedProperties` is closed, and items that no keyword
        describes must be scalars: `{"type": "object"}` admits only `{}`.

        Raises:
            SchemaRefused: where it cannot be held against arguments safely.
        """
        if not isinstance(schema, dict):
            raise SchemaRefused("", "the input schema is not an object")
        try:
            check_value(schema, MAX_SCHEMA_DEPTH)
        except JsonRefused as refused:
            deep = refused.reason == "depth"
            problem = "the input schema is nested more than 32 levels deep" if deep else "the input schema is not JSON"
            raise SchemaRefused("", problem) from None
        if len(serialize(schema)) > MAX_SCHEMA_BYTES:
            raise SchemaRefused("", "the input schema is longer than 256 KiB")
        closed, is_draft7 = close(schema)
        # Closing may widen what stands under `not`, so both must hold.
        self._validators = tuple(_build(each, is_draft7=is_draft7) for each in (schema, closed))

    def validate(self, arguments: Mapping[str, JsonValue]) -> None:
        """Check that these arguments are valid, with nothing unknown in them.

        Raises:
            SchemaRefused: naming where and which keyword, never a value.
        """
        instance = dict(arguments)
        for validator in self._validators:
            try:
                validator.validate(instance)
            except jsonschema_rs.ValidationError as error:
                raise _invalid(error) from None
            except (ValueError, OverflowError):
                raise SchemaRefused("", "cannot be held against the schema") from None


def _build(schema: Mapping[str, JsonValue], *, is_draft7: bool) -> jsonschema_rs.Validator:
    kind = jsonschema_rs.Draft7Validator if is_draft7 else jsonschema_rs.Draft202012Validator
    try:
        return kind(
            dict(schema),
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES, dfa_size_limit=_REGEX_BYTES),
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        # What fails here is the schema itself: its own words may be shown.
        raise SchemaRefused("", f"not a usable schema: {str(error)[:_MAX_PROBLEM_CHARACTERS]}") from None


def _invalid(error: jsonschema_rs.ValidationError) -> SchemaRefused:
    """Tell where arguments fail, and against which keyword; the values stay inside."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in error.instance_path)
    pointer = "".join(f"/{step}" for step in steps)
    keyword = error.kind.name
    if keyword in ("additionalProperties", "unevaluatedProperties"):
        return SchemaRefused(pointer, f"has a member that the schema does not name ({keyword})")
    return SchemaRefused(pointer, f"does not satisfy {keyword}")


_REGEX_BYTES = 1024 * 1024
_MAX_PROBLEM_CHARACTERS = 300
