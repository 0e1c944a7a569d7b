"""L2 constraints: JSON Pointers into the arguments, each with the values it admits.

A *leaf* of the arguments is a scalar, or an object or array without members. Every leaf must lie at or below a
constrained pointer, else it is refused; a pointer that meets nothing is refused unless its constraint is `optional`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .jws import has_control_character
from .strict_json import MAX_DEPTH, JsonObject, JsonRefused, JsonValue, check_value, is_exact


class ConstraintRefused(ValueError):
    """Arguments outside of their constraints, or malformed constraints.

    Attributes:
        pointer: The JSON Pointer concerned.
        problem: What is wrong. Never contains an argument's value.
    """

    def __init__(self, pointer: str, problem: str) -> None:
        self.pointer = pointer[:_MAX_SHOWN]
        self.problem = problem
        super().__init__(f"{self.pointer}: {problem}")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What one argument may be: exactly one of `one_of`, a range, `prefixes`."""

    one_of: tuple[JsonValue, ...] | None
    minimum: int | float | None
    maximum: int | float | None
    prefixes: tuple[str, ...]
    optional: bool

    def problem_of(self, value: JsonValue) -> str | None:
        """Why the value is not admitted; `None` where it is."""
        if self.one_of is not None and not any(_equal(admitted, value) for admitted in self.one_of):
            return "value is not among those admitted"
        if (self.minimum is not None or self.maximum is not None) and not self._in_range(value):
            return "not a number within the range"
        if not all(isinstance(value, str) and _is_within(prefix, value) for prefix in self.prefixes):
            return "not a path under the prefix"
        return None

    def _in_range(self, value: JsonValue) -> bool:
        number = _exact(value)
        if number is None:
            return False
        above = self.minimum is None or number >= self.minimum
        return above and (self.maximum is None or number <= self.maximum)


class Constraints:
    """Well-formed constraints by JSON Pointer (RFC 6901)."""

    def __init__(self, document: JsonValue) -> None:
        """Read constraints, as `authorization_details` has them.

        Raises:
            ConstraintRefused: unless there are 1 to 64, at valid pointers none of which lies below another, each of
                exactly one kind.
        """
        if not isinstance(document, dict) or not 1 <= len(document) <= _MAX_CONSTRAINTS:
            raise ConstraintRefused("", "not between 1 and 64 constraints")
        for pointer in document:
            if len(pointer.encode()) > _MAX_POINTER_BYTES or _POINTER.fullmatch(pointer) is None:
                raise ConstraintRefused(pointer, "not a JSON Pointer to an argument")
            if any(other.startswith(pointer + "/") for other in document):
                raise ConstraintRefused(pointer, "another constraint lies below")
        self._by_pointer = {pointer: _read(pointer, constraint) for pointer, constraint in document.items()}

    def admit(self, arguments: Mapping[str, JsonValue]) -> None:
        """Check that these arguments satisfy every constraint and leave nothing unconstrained.

        Raises:
            ConstraintRefused: naming the first pointer that does not hold.
        """
        met: set[str] = set()
        self._admit_members("", dict(arguments), met)
        for pointer, constraint in self._by_pointer.items():
            if not constraint.optional and pointer not in met:
                raise ConstraintRefused(pointer, "required argument is absent")

    def _admit_members(self, pointer: str, members: JsonObject, met: set[str]) -> None:
        for name, member in members.items():
            escaped = name.replace("~", "~0").replace("/", "~1")
            self._admit_value(f"{pointer}/{escaped}", member, met)

    def _admit_value(self, pointer: str, value: JsonValue, met: set[str]) -> None:
        constraint = self._by_pointer.get(pointer)
        if constraint is not None:
            met.add(pointer)
            problem = constraint.problem_of(value)
            if problem is not None:
                raise ConstraintRefused(pointer, problem)
        elif isinstance(value, dict) and value:
            self._admit_members(pointer, value, met)
        elif isinstance(value, list) and value:
            for index, item in enumerate(value):
                self._admit_value(f"{pointer}/{index}", item, met)
        else:
            raise ConstraintRefused(pointer, "argument without a constraint")


def _read(pointer: str, document: JsonValue) -> Constraint:
    if not isinstance(document, dict) or set(document) - {"enum", "minimum", "maximum", "prefix", "optional"}:
        raise ConstraintRefused(pointer, "not a constraint")
    prefix = document.get("prefix", [])
    prefixes: JsonValue = [prefix] if isinstance(prefix, str) else prefix
    kinds = ["enum" in document, "minimum" in document or "maximum" in document, bool(prefixes)]
    if sum(kinds) != 1:
        raise ConstraintRefused(pointer, "not exactly one of enum, range, prefix")
    optional = document.get("optional", False)
    if not isinstance(optional, bool):
        raise ConstraintRefused(pointer, "optional is not a boolean")
    minimum, maximum = (_bound(pointer, document, name) for name in ("minimum", "maximum"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise ConstraintRefused(pointer, "minimum above maximum")
    return Constraint(
        one_of=_values(pointer, document["enum"]) if "enum" in document else None,
        minimum=minimum,
        maximum=maximum,
        prefixes=_prefixes(pointer, prefixes),
        optional=optional,
    )


def _values(pointer: str, values: JsonValue) -> tuple[JsonValue, ...]:
    if not isinstance(values, list) or not 1 <= len(values) <= _MAX_VALUES:
        raise ConstraintRefused(pointer, "enum is not of 1 to 64 values")
    try:
        for value in values:
            check_value(value, MAX_DEPTH)
    except JsonRefused:
        raise ConstraintRefused(pointer, "enum value out of bounds") from None
    return tuple(values)


def _bound(pointer: str, document: JsonObject, name: str) -> int | float | None:
    if name not in document:
        return None
    number = _exact(document[name])
    if number is None:
        raise ConstraintRefused(pointer, "number out of the interoperable range")
    return number


def _prefixes(pointer: str, prefixes: JsonValue) -> tuple[str, ...]:
    plain = isinstance(prefixes, list) and len(prefixes) <= _MAX_VALUES
    if not isinstance(prefixes, list) or not plain:
        raise ConstraintRefused(pointer, "prefix is not a path or a list of paths")
    texts = tuple(prefix for prefix in prefixes if isinstance(prefix, str) and _is_plain_path(prefix))
    if len(texts) != len(prefixes):
        raise ConstraintRefused(pointer, "prefix is empty, too long, or has .. or % or \\ or a control character")
    return texts


def _exact(value: JsonValue) -> int | float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and isinstance(value, int | float) and is_exact(value) else None


def _equal(left: JsonValue, right: JsonValue) -> bool:
    """Deep equality with numbers compared by value: `1.0` is `1`, and `True` is not."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if _exact(left) is not None and _exact(right) is not None:
        return left == right
    return type(left) is type(right) and isinstance(left, str | None) and left == right


def _is_within(prefix: str, path: str) -> bool:
    """Whether a path lies under a prefix by whole segments, and holds nothing that could lead out again."""
    if not _is_plain_path(path) or not path.startswith(prefix):
        return False
    rest = path[len(prefix) :]
    return not rest or prefix.endswith("/") or rest.startswith("/")


def _is_plain_path(path: str) -> bool:
    """Whether nothing in a path could lead out of it.

    `..` climbs, `%` may hide what climbs, a backslash is a second separator for some, and a control character (NUL)
    may end the path early for others.
    """
    if not path or len(path.encode()) > _MAX_PATH_BYTES or any(part in path for part in ("..", "%", "\\")):
        return False
    return not has_control_character(path)


# RFC 6901 §3: `/` before every token, and `~` only in `~0` and `~1`. The empty pointer, valid there, is no argument.
_POINTER = re.compile(r"(/([^~]|~[01])*)", re.DOTALL)
_MAX_CONSTRAINTS = 64
_MAX_VALUES = 64
_MAX_POINTER_BYTES = 1024
_MAX_PATH_BYTES = 4096
_MAX_SHOWN = 256
