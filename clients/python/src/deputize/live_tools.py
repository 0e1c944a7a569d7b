"""What a server lists now, as it passes by."""

from __future__ import annotations

import math

from .call.digest import tool_digest
from .call.strict_json import JsonObject, JsonRefused, JsonValue, parse_value
from .errors import DeputizeError


class LiveTools:
    """Digests of the definitions that a server's `tools/list` gave last."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._listed = -math.inf

    def digest_of(self, tool: str, uptime: float) -> str | None:
        """Digest of a tool's live definition.

        `None` where the server was not seen to list it of late; empty, and so equal to no digest, where it stands
        twice.
        """
        return self._digests.get(tool) if uptime - self._listed < _FRESH_SECONDS else None

    def read(self, message: JsonValue, uptime: float, *, is_first: bool) -> str | None:
        """Take note of the answer to `tools/list`; the cursor of its next page, if there is one."""
        result = message.get("result") if isinstance(message, dict) else None
        tools = result.get("tools") if isinstance(result, dict) else None
        if is_first and isinstance(tools, list):
            # What is no longer listed is gone.
            self._digests.clear()
            self._listed = uptime
        seen: set[str] = set()
        for definition in tools if isinstance(tools, list) else []:
            name = definition.get("name") if isinstance(definition, dict) else None
            if not isinstance(definition, dict) or not isinstance(name, str):
                continue
            if len(self._digests) >= _MAX_TOOLS and name not in self._digests:
                raise unreadable()
            # A name that stands twice is no name: no token is for it.
            self._digests[name] = "" if name in seen else _digest(definition)
            seen.add(name)
        cursor = result.get("nextCursor") if isinstance(result, dict) else None
        return cursor if isinstance(cursor, str) else None


def messages_in(content_type: str, body: bytes) -> list[JsonValue]:
    """The JSON-RPC messages in an answer, be it JSON or an event stream, read strictly.

    Raises:
        DeputizeError: whoever reads it differently could show the model another tool than the one that was digested.
    """
    if len(body) > _MAX_BYTES:
        raise unreadable()
    media = content_type.partition(";")[0].strip().lower()
    try:
        if media == "text/event-stream":
            return [parse_value(data, _MAX_LEVELS) for data in events_in(body) if data]
        return [parse_value(body, _MAX_LEVELS)] if media == "application/json" else []
    except JsonRefused:
        raise unreadable() from None


def events_in(body: bytes) -> list[bytes]:
    """The `data` of each event of a complete event stream."""
    events: list[bytes] = []
    lines: list[bytes] = []
    for line in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
        elif not line:
            events.append(b"\n".join(lines))
            lines = []
    return events


def unreadable() -> DeputizeError:
    """The error for a list that is not strict, or too long."""
    return DeputizeError(
        "the server's tools/list cannot be read strictly",
        "have the server list fewer tools, in strict JSON: unique members, exact numbers",
    )


def _digest(definition: JsonObject) -> str:
    try:
        return tool_digest(definition)
    except JsonRefused:
        return ""


_MAX_BYTES = 16 * 1024 * 1024
_MAX_LEVELS = 40
_MAX_TOOLS = 10_000
# After this a definition is looked at anew before its tool is called.
_FRESH_SECONDS = 300.0
