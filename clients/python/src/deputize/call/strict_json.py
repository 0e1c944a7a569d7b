"""Strict JSON: what two parsers could read differently is refused before anything is digested."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Literal, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""What JSON text stands for."""
JsonObject: TypeAlias = "dict[str, JsonValue]"
"""A JSON object."""
JsonReason: TypeAlias = Literal["syntax", "duplicate", "number", "depth", "not_object"]
"""Why a text is refused; the names are those of the shared vectors."""

MAX_DEPTH = 32
"""The deepest nesting accepted; the object itself is level 1."""
MAX_SAFE_INTEGER = 2**53 - 1
"""The largest magnitude that IEEE 754 doubles count exactly; larger numbers are refused in any notation."""


class JsonRefused(ValueError):
    """A text that is no strict JSON, or a value that has no exact form as JSON."""

    def __init__(self, reason: JsonReason) -> None:
        self.reason: JsonReason = reason
        super().__init__(_WORDS[reason])


def parse_object(text: bytes, max_depth: int = MAX_DEPTH) -> JsonObject:
    """Parse a strict JSON object, nested at most `max_depth` levels.

    Raises:
        JsonRefused: also where the top level is something else.
    """
    value = parse_value(text, max_depth)
    if not isinstance(value, dict):
        raise JsonRefused("not_object")
    return value


def parse_value(text: bytes, max_depth: int = MAX_DEPTH) -> JsonValue:
    """Parse any strict JSON value; a top-level array or object is level 1.

    Raises:
        JsonRefused: saying which rule the text breaks.
    """
    # Before the parser, which recurses: so no setting of the interpreter decides how deep a stranger may lead it.
    if _depth(text) > max_depth:
        raise JsonRefused("depth")
    try:
        value: JsonValue = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_unique_members,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_constant,
        )
    except JsonRefused:
        raise
    except ValueError:
        raise JsonRefused("syntax") from None
    # `json` lets an escaped lone surrogate pass. Where no escape could make one, there is none.
    if _SURROGATE_ESCAPE.search(text) is not None:
        _check_text(value)
    return value


def check_value(value: object, levels: int = MAX_DEPTH) -> None:
    """Check a value that may not come from a strict parse: at most `levels` deep, every number exact.

    Raises:
        JsonRefused: where its canonical form could stand for something else.
    """
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        _check_string(value)
    elif isinstance(value, int | float):
        if not is_exact(value):
            raise JsonRefused("number")
    elif isinstance(value, list):
        if levels == 0:
            raise JsonRefused("depth")
        for item in value:
            check_value(item, levels - 1)
    elif isinstance(value, dict):
        if levels == 0:
            raise JsonRefused("depth")
        for name, member in value.items():
            if not isinstance(name, str):
                raise JsonRefused("syntax")
            _check_string(name)
            check_value(member, levels - 1)
    else:
        raise JsonRefused("syntax")


def check_depth(members: Mapping[str, JsonValue]) -> None:
    """Check that an object out of a deeper envelope is itself within `MAX_DEPTH`.

    Raises:
        JsonRefused: with the reason `depth`.
    """
    check_value(dict(members), MAX_DEPTH)


def is_exact(number: float) -> bool:
    """Whether every language reads this number alike."""
    return math.isfinite(number) and abs(number) <= MAX_SAFE_INTEGER


def serialize(value: JsonValue) -> bytes:
    """Compact JSON text of a value, as it is forwarded: UTF-8, members in their order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _depth(text: bytes) -> int:
    """How deep brackets nest outside of strings, up to the first thing that is no JSON."""
    if text.count(b"[") + text.count(b"{") <= 1:
        return text.count(b"[") + text.count(b"{")
    # Each of the three steps is linear in the text, whatever the text is.
    brackets = _STRING.sub(b"", _ESCAPE.sub(b"", text)).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _unique_members(pairs: list[tuple[str, JsonValue]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JsonRefused("duplicate")
    return members


def _integer(digits: str) -> int | float:
    if len(digits) > _MAX_INTEGER_CHARACTERS:
        raise JsonRefused("number")
    number = int(digits)
    if abs(number) > MAX_SAFE_INTEGER:
        raise JsonRefused("number")
    # "-0" is the negative zero of IEEE 754, whatever its notation.
    return -0.0 if number == 0 and digits.startswith("-") else number


def _fraction(digits: str) -> float:
    number = float(digits)
    if not is_exact(number):
        raise JsonRefused("number")
    return number


def _constant(_: str) -> JsonValue:
    raise JsonRefused("syntax")


def _check_text(value: JsonValue) -> None:
    if isinstance(value, str):
        _check_string(value)
        return
    inner: Iterable[JsonValue] = ()
    if isinstance(value, dict):
        for name in value:
            _check_string(name)
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    for member in inner:
        _check_text(member)


def _check_string(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise JsonRefused("syntax") from None


_WORDS: dict[JsonReason, str] = {
    "syntax": "not valid JSON",
    "duplicate": "duplicate member name",
    "number": "number out of the interoperable range",
    "depth": "nested too deeply",
    "not_object": "top level is not an object",
}
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# A sign and the sixteen digits of 2**53 - 1; `int` is not asked about more (its time is not linear).
_MAX_INTEGER_CHARACTERS = 17
