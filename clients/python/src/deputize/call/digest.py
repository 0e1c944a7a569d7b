"""The digests that pin what runs: each is base64url(SHA-256(prefix, a zero byte, the canonical form of an object))."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

from .strict_json import MAX_DEPTH, JsonObject, JsonRefused, JsonValue, check_value

PINNED_TOOL_MEMBERS: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""The members of a tool's definition that its digest covers."""
PINNED_PROMPT_MEMBERS: Final = ("name", "title", "description", "arguments")
"""The members of a prompt's definition that its digest covers."""
PINNED_RESOURCE_MEMBERS: Final = ("uri", "name", "title", "description")
"""The members of a resource's entry that its digest covers."""
ABSENT: Final = object()
"""Stands for a member that is not there; `None` is JSON's null."""


def call_digest(
    method: str,
    name: str,
    arguments: Mapping[str, JsonValue],
    input_responses: object = ABSENT,
    request_state: object = ABSENT,
) -> str:
    """Digest one call, prefix `mcp-call/1`.

    Args:
        method: JSON-RPC method, for example `tools/call`.
        name: Name of the tool or prompt; for `resources/read` the URI verbatim.
        arguments: The arguments, empty where the call has none.
        input_responses: `inputResponses` of a multi-round-trip retry.
        request_state: `requestState` of a multi-round-trip retry.

    Raises:
        JsonRefused: where a part has no exact canonical form.
    """
    form: JsonObject = {"a": dict(arguments), "m": method, "n": name}
    check_value(form["a"], MAX_DEPTH)
    for letter, part in (("i", input_responses), ("s", request_state)):
        if part is not ABSENT:
            check_value(part, MAX_DEPTH)
            form[letter] = part  # type: ignore[assignment]  # checked just now
    return _digest("mcp-call/1", form)


def tool_digest(definition: Mapping[str, JsonValue]) -> str:
    """Digest a tool's definition, prefix `mcp-tool/1`, over exactly the pinned members present. Absent is not null.

    Raises:
        JsonRefused: where the definition has no exact canonical form.
    """
    form = {name: definition[name] for name in PINNED_TOOL_MEMBERS if name in definition}
    check_value(form, MAX_DEPTH)
    return _digest("mcp-tool/1", form)


def prompt_digest(definition: Mapping[str, JsonValue]) -> str:
    """Digest a prompt's definition, prefix `mcp-prompt/1`, over exactly the pinned members present.

    Raises:
        JsonRefused: where the definition has no exact canonical form.
    """
    form = {name: definition[name] for name in PINNED_PROMPT_MEMBERS if name in definition}
    check_value(form, MAX_DEPTH)
    return _digest("mcp-prompt/1", form)


def resource_digest(entry: Mapping[str, JsonValue]) -> str:
    """Digest a resource's entry, prefix `mcp-resource/1`, over exactly the pinned members present.

    Raises:
        JsonRefused: where the entry has no exact canonical form.
    """
    form = {name: entry[name] for name in PINNED_RESOURCE_MEMBERS if name in entry}
    check_value(form, MAX_DEPTH)
    return _digest("mcp-resource/1", form)


def manifest_digest(
    server_id: str, version: str, tools: Iterable[str], prompts: Iterable[str] = (), resources: Iterable[str] = ()
) -> str:
    """Digest a server's manifest, prefix `mcp-manifest/1`.

    Digests are sorted as text; of empty lists only that of tools stands there.
    """
    form: JsonObject = {"id": server_id, "version": version, "tools": [*sorted(tools)]}
    for member, digests in (("prompts", sorted(prompts)), ("resources", sorted(resources))):
        if digests:
            form[member] = [*digests]
    return _digest("mcp-manifest/1", form)


def offers_digest(tools: Iterable[str], prompts: Iterable[str], resources: Iterable[str]) -> str:
    """Digest what a server offers, prefix `mcp-offers/1`: names, and entries of resources, sorted by their bytes."""
    named = {"tools": tools, "prompts": prompts, "resources": resources}
    return _digest("mcp-offers/1", {kind: [*sorted(set(names))] for kind, names in named.items()})


def canonicalize(value: JsonValue) -> bytes:
    """The canonical form of RFC 8785.

    Raises:
        JsonRefused: for numbers that a strict parse would not admit: rounding one would give two values one form.
    """
    check_value(value, _MAX_NESTING)
    return _canonical(value).encode()


def sha256(text: str | bytes) -> str:
    """Unpadded base64url of the SHA-256 of a text."""
    return base64url(hashlib.sha256(text.encode() if isinstance(text, str) else text).digest())


def base64url(octets: bytes) -> str:
    """Unpadded base64url (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def is_digest(text: object) -> bool:
    """Whether a value is the one base64url text of a SHA-256 digest."""
    if not isinstance(text, str) or len(text) != _DIGEST_CHARACTERS or not text.isascii():
        return False
    try:
        octets = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except ValueError:
        return False
    # Zero trailing bits: one digest has one text. (`validate` alone would let `+` and `/` pass.)
    return base64url(octets) == text


def _digest(prefix: str, form: JsonObject) -> str:
    return base64url(hashlib.sha256(prefix.encode() + b"\0" + _canonical(form).encode()).digest())


def _canonical(value: JsonValue) -> str:
    if value is None or isinstance(value, bool | str):
        # With `ensure_ascii` off, `json` escapes exactly what RFC 8785 §3.2.2.2 does.
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return _number(float(value))
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    # RFC 8785 §3.2.3: by UTF-16 code units.
    members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
    return "{" + ",".join(f"{_canonical(name)}:{_canonical(member)}" for name, member in members) + "}"


def _number(number: float) -> str:
    """ECMAScript's Number::toString (RFC 8785 §3.2.2.3), on the shortest digits, which `repr` finds."""
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # Where the decimal point stands, counted from the first digit that is not zero.
    point = int(exponent or 0) + len(digits) - len(fraction)
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = f"e{'+' if point > 0 else '-'}{abs(point - 1)}"
    return sign + digits[0] + ("." + digits[1:] if count > 1 else "") + power


_MAX_NESTING = 127
_DIGEST_CHARACTERS = 43

__all__ = [
    "ABSENT",
    "PINNED_TOOL_MEMBERS",
    "JsonRefused",
    "base64url",
    "call_digest",
    "canonicalize",
    "is_digest",
    "manifest_digest",
    "sha256",
    "tool_digest",
]
