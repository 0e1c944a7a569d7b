"""What a guard saw, as it tells the broker."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from deputize.call.strict_json import JsonObject, JsonValue, serialize
from deputize.clock import Clock

EventKind: TypeAlias = Literal["connected", "discovered", "list_changed", "executed", "failed", "drifted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that a guard saw. Never arguments or results."""

    kind: EventKind
    txn: str | None = None
    jti: str | None = None
    tool: str | None = None
    """The tool, prompt or resource that it is about."""
    action: str | None = None
    """What was done with it, where that is not `tools/call`."""
    result_class: str | None = None
    """In a word: of a result `ok`, of a failure its cause."""
    result_bytes: int | None = None
    detail: JsonValue = None
    """At most 4 KiB of JSON; of a drift the difference."""


class Outbox:
    """Events on their way to the broker. Bounded: when it is full, the newest are lost and counted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[JsonObject] = deque()
        self.lost = 0

    def put(self, event: Event) -> None:
        """Queue an event."""
        if len(self._waiting) >= _MAX_WAITING:
            self.lost += 1
            return
        at_ms = self._clock.now_seconds() * 1000
        record: JsonObject = {"id": _uuid7(at_ms), "kind": event.kind, "at_ms": at_ms}
        texts = {"txn": event.txn, "jti": event.jti, "tool": event.tool, "class": event.result_class}
        record |= {name: text[:_MAX_CHARACTERS] for name, text in texts.items() if text is not None}
        if event.action is not None and event.action != "tools/call":
            record["action"] = event.action
        if event.result_bytes is not None:
            record["bytes"] = event.result_bytes
        if event.detail is not None and len(serialize(event.detail)) <= _MAX_DETAIL_BYTES:
            record["detail"] = event.detail
        self._waiting.append(record)

    def next_batch(self) -> list[JsonValue]:
        """The oldest events, as many as one request takes. They stay until they are `done`."""
        return [self._waiting[index] for index in range(min(len(self._waiting), _MAX_BATCH))]

    def done(self, count: int) -> None:
        """The broker has the oldest events."""
        for _ in range(count):
            self._waiting.popleft()


def _uuid7(at_ms: int) -> str:
    """RFC 9562 §5.7."""
    bits = at_ms << 80 | int.from_bytes(os.urandom(10), "big")
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    text = f"{bits:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


_MAX_WAITING = 1_000
_MAX_BATCH = 100
_MAX_DETAIL_BYTES = 4096
# The broker takes texts of 256 bytes; a character has four at most.
_MAX_CHARACTERS = 64
