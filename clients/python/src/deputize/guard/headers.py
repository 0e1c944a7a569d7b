"""Header fields of a request: each that decides something stands once, or not at all."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from deputize.call.strict_json import JsonObject, JsonValue, serialize

from .message import Message
from .refusal import Refused


@dataclass(frozen=True, slots=True, repr=False)
class IncomingCall:
    """One HTTP request as it came in."""

    method: str
    headers: tuple[tuple[str, str], ...]
    """Header fields in their order: name, in any case, and value."""
    body: bytes
    client_certificate: str | None = None
    """SHA-256 thumbprint of the verified client certificate (`x5t#S256`), where the transport has one."""

    def single(self, name: str) -> str | None:
        """The value of a header that may stand at most once.

        Raises:
            Refused: where it stands twice.
        """
        values = [value for each, value in self.headers if each.lower() == name]
        if len(values) > 1:
            raise Refused("repeated_header", name)
        return values[0] if values else None

    def check_media_type(self) -> None:
        """Only plain JSON: what is compressed or labelled otherwise could be read differently behind us.

        Raises:
            Refused: for anything else.
        """
        encoding = self.single("content-encoding")
        if encoding is not None and encoding.strip().lower() != "identity":
            raise Refused("media_type", "compressed")
        media, *parameters = (part.strip().lower() for part in (self.single("content-type") or "").split(";"))
        utf8 = all(parameter in ("", "charset=utf-8", 'charset="utf-8"') for parameter in parameters)
        if media != "application/json" or not utf8:
            raise Refused("media_type", "not application/json in UTF-8")

    def check_agrees_with(self, message: Message) -> None:
        """`Mcp-Method` and `Mcp-Name`, which routers before us may have acted on, say what the body says.

        Raises:
            Refused: where they do not.
        """
        method = self.single("mcp-method")
        if method is not None and method != message.method:
            raise Refused("header_mismatch", "Mcp-Method")
        name = self.single("mcp-name")
        if name is not None and (message.call is None or decode_value(name) != message.call.name):
            raise Refused("header_mismatch", "Mcp-Name")
        # Which rules the server behind us applies must not depend on which of two it reads.
        self.single("mcp-protocol-version")
        self.single("mcp-session-id")

    def check_mirrored_params(self, input_schema: JsonValue, arguments: JsonObject) -> None:
        """`Mcp-Param-*` mirror arguments whose schema says `x-mcp-header`; one that mirrors nothing is refused.

        Raises:
            Refused: where one does not say what the body says, or one is missing that is due.
        """
        expected = dict(_mirrors(input_schema, arguments))
        for name, value in ((name.lower(), value) for name, value in self.headers):
            if not name.startswith(_PARAM_PREFIX):
                continue
            # `pop`: none stands twice.
            if name not in expected or not _says(decode_value(value), expected.pop(name)):
                raise Refused("header_mismatch", "Mcp-Param")
        # Earlier versions know no such headers; since this one they are due.
        if expected and self.single("mcp-protocol-version") == STATELESS:
            raise Refused("header_mismatch", "Mcp-Param")


def mirrored_headers(input_schema: JsonValue, arguments: JsonObject) -> tuple[tuple[str, str], ...]:
    """The `Mcp-Param-*` fields that say these arguments: made anew, whatever came in."""
    return tuple(
        (name, encode_value(value if isinstance(value, str) else serialize(value).decode()))
        for name, value in _mirrors(input_schema, arguments)
    )


def decode_value(value: str) -> str | None:
    """A header value, out of the form in which MCP wraps what a field cannot carry; `None` for a malformed one."""
    wrapped = _WRAPPED.fullmatch(value)
    if wrapped is None:
        return value
    try:
        octets = base64.b64decode(wrapped[1], validate=True)
        canonical = base64.b64encode(octets).decode() == wrapped[1]
        return octets.decode("utf-8") if canonical else None
    except ValueError:
        return None


def encode_value(value: str) -> str:
    """A header value, wrapped where a field cannot carry it as it is."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _WRAPPED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def _mirrors(schema: JsonValue, arguments: JsonValue) -> Iterator[tuple[str, bool | float | str]]:
    """Header names and the arguments that they must say, through nested `properties`."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not isinstance(arguments, Mapping):
        return
    for name, inner in properties.items():
        if name not in arguments or not isinstance(inner, dict):
            continue
        value, header = arguments[name], inner.get("x-mcp-header")
        is_mirrored = isinstance(header, str) and _TOKEN.fullmatch(header) is not None
        if isinstance(header, str) and is_mirrored and isinstance(value, bool | int | float | str):
            yield _PARAM_PREFIX + header.lower(), value
        yield from _mirrors(inner, value)


def _says(said: str | None, argument: bool | float | str) -> bool:
    if said is None or isinstance(argument, str):
        return said == argument
    if isinstance(argument, bool):
        return said == str(argument).lower()
    # Numbers are compared as numbers: 42.0 is 42.
    return _NUMBER.fullmatch(said) is not None and float(said) == argument


STATELESS: Final = "2026-07-28"
"""The version of MCP since which there are no sessions."""
_PARAM_PREFIX = "mcp-param-"
_NUMBER = re.compile(r"-?[0-9]{1,32}(\.[0-9]{1,32})?([eE][+-]?[0-9]{1,3})?")
_WRAPPED = re.compile(r"=\?base64\?(.*)\?=")
_PLAIN = re.compile(r"[ -~]*")
# RFC 9110 §5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
