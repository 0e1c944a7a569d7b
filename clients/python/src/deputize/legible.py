"""What a server says ends before people and models.

Characters that steer a terminal, turn the direction of text so that a person reads something else than stands there, or
spell what a model reads and no person sees, are put in plain sight.
"""

from __future__ import annotations

import re

from .call.strict_json import JsonObject, JsonValue


def legible(value: JsonValue) -> JsonValue:
    """The value with U+FFFD in the place of each such character."""
    if isinstance(value, str):
        return _STEERING.sub("\ufffd", value)
    if isinstance(value, list):
        return [legible(each) for each in value]
    return legible_members(value) if isinstance(value, dict) else value


def legible_members(members: JsonObject) -> JsonObject:
    """The same for an object's members, and their names."""
    return {_STEERING.sub("\ufffd", name): legible(value) for name, value in members.items()}


# Controls but those that lay out text (ISO 6429: escape sequences begin with one), and the embeddings, overrides and
# isolates of UAX 9; tag characters, which spell ASCII unseen, and the operators of mathematics that nobody sees. The
# marks of UAX 9 and what joins or parts letters stay: there are scripts that need them.
_STEERING = re.compile(
    "[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2060-\\u2069\\U000e0000-\\U000e007f]"
)
