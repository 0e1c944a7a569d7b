"""Header fields of a request on their way to the app: what was verified, and of the rest what decides nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .call.strict_json import JsonObject, JsonRefused, parse_value
from .guard import IncomingCall, Refusal, Refused
from .guard.headers import STATELESS
from .guard.message import Message, is_id
from .guard.sessions import Session
from .guard.verified import Verified

Headers = list[tuple[bytes, bytes]]

PASSED: Final = frozenset({"accept", "accept-language", "host", "origin", "user-agent"})
"""What goes on as it came. Cookies, forwarding headers, credentials and all else stay behind."""


def carried(call: IncomingCall, verified: Verified, session: Session | None, also: frozenset[str]) -> Headers:
    """The header fields for a verified request.

    Args:
        call: The request as it came.
        verified: What was verified of it.
        session: Its session, if it has one.
        also: Names of further fields that go on as they came, because a trusted proxy sets them.
    """
    headers = [(name.lower(), value) for name, value in call.headers if name.lower() in PASSED | also]
    headers += verified.forwarded_headers()
    if verified.rebuilt_body:
        headers.append(("content-length", str(len(verified.rebuilt_body))))
    if session is not None:
        headers.append(("mcp-session-id", session.id))
    version, traceparent = call.single("mcp-protocol-version"), call.single("traceparent")
    if version is not None:
        headers.append(("mcp-protocol-version", version))
    cursor = call.single("last-event-id")
    if call.method == "GET" and cursor is not None:
        headers.append(("last-event-id", cursor))
    if traceparent is not None and _is_traceparent(traceparent):
        headers.append(("traceparent", traceparent))
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


def check_passed(names: Iterable[str]) -> frozenset[str]:
    """The names of further fields that go on, in lower case.

    Raises:
        ValueError: for one that is never passed on.
    """
    passed = frozenset(name.lower() for name in names)
    for name in passed:
        if name in _NEVER or name.startswith(("mcp-", "deputize-", "content-")):
            msg = f"{name} is never passed on: it is the guard's to say"
            raise ValueError(msg)
    return passed


def without_claims(headers: Headers) -> Headers:
    """Header fields without those that only a guard may say, for where none stands."""
    return [(name, value) for name, value in headers if not name.lower().startswith(b"deputize-")]


def session_id_of(call: IncomingCall, message: Message | None) -> str | None:
    """The session that a request names; `None` in a version of MCP without sessions.

    Raises:
        Refused: where header and body do not name one version, or what its version demands is missing.
    """
    version = call.single("mcp-protocol-version")
    if version is not None and _VERSION.fullmatch(version) is None:
        raise Refused("header_mismatch", "MCP-Protocol-Version")
    declared = _declared_version(message)
    if declared is None and (version is None or version < STATELESS):
        return call.single("mcp-session-id")
    if message is not None:
        _check_stateless(call, message, version == declared)
    # A session id beside it means nothing in this version.
    return None


def words_of(refusal: Refusal, call: IncomingCall) -> tuple[int, JsonObject]:
    """Status and body of a refusal: in the words that the protocol has for it, where the request is of its version."""
    said = [value for name, value in call.headers if name.lower() == "mcp-protocol-version"]
    if said != [STATELESS]:
        return refusal.status, refusal.body()
    return refusal.in_protocol(_id_of(call.body)) or (refusal.status, refusal.body())


def _id_of(body: bytes) -> str | int | None:
    try:
        message = parse_value(body, _MAX_LEVELS)
    except JsonRefused:
        return None
    request_id = message.get("id") if isinstance(message, dict) else None
    return request_id if isinstance(request_id, str | int) and is_id(request_id) else None


def _check_stateless(call: IncomingCall, message: Message, agrees: bool) -> None:
    """MCP 2026-07-28, server validation: the headers stand there and say what the body says."""
    if not agrees:
        raise Refused("header_mismatch", "MCP-Protocol-Version and _meta must name the same version")
    if message.is_response:
        raise Refused("message", "clients send no responses in this version")
    # For notifications the version defines no headers.
    if message.id is not None and call.single("mcp-method") is None:
        raise Refused("header_mismatch", "Mcp-Method is required")
    if message.call is not None and call.single("mcp-name") is None:
        raise Refused("header_mismatch", "Mcp-Name is required")


def _declared_version(message: Message | None) -> str | None:
    params = message.whole.get("params") if message is not None else None
    meta = params.get("_meta") if isinstance(params, dict) else None
    version = meta.get("io.modelcontextprotocol/protocolVersion") if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def _is_traceparent(value: str) -> bool:
    """W3C Trace Context §3.2."""
    found = _TRACEPARENT.fullmatch(value)
    return found is not None and all(part.strip("0") for part in found.groups())


_MAX_LEVELS = 40
_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_NEVER = frozenset({"authorization", "dpop", "transfer-encoding", "last-event-id", "traceparent", "connection"})
