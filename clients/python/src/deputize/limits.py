"""How much one caller may, and how long the app may take: a rate for each person and tool, and so many at once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields
from typing import TypeAlias

from .guard import Refused
from .guard.message import Message
from .guard.sessions import Caller


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what goes to the app. Beyond a rate the answer is 429 with `Retry-After`, beyond a time 504."""

    calls_per_minute: int = 120
    """Calls of one tool by one person; prompts together, and resources, streams to listen to, and each other method."""
    burst: int = 30
    """How many of them at once."""
    concurrent: int = 16
    """Requests and streams under way of one caller: a person through these agents and this client. What was given up
    counts until the app is done with it."""
    answer_seconds: float = 60.0
    """How long an answer may take to begin, and then one that is no stream to end."""
    stream_seconds: float = 3600.0
    """How long a stream may last."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                msg = f"limits: {name} must be above 0 and finite"
                raise ValueError(msg)


class UnderWay:
    """A request under way, until it is left."""

    def __init__(self, counts: Counter[Caller], caller: Caller) -> None:
        self._counts = counts
        self._caller: Caller | None = caller

    def leave(self) -> None:
        """The request is done."""
        caller, self._caller = self._caller, None
        if caller is None:
            return
        self._counts[caller] -= 1
        if self._counts[caller] <= 0:
            del self._counts[caller]


class Meter:
    """Counts what callers do. Bounded: where there are more keys than can be counted, new ones wait."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._per_second = limits.calls_per_minute / 60
        self._buckets: dict[_Key, tuple[float, float]] = {}
        """What may come at once, and the uptime at which that was reckoned."""
        self._under_way: Counter[Caller] = Counter()
        self._swept = -math.inf
        """Uptime at which it was last looked who can be forgotten."""

    def count(self, person: str, what: str, uptime: float) -> None:
        """Count one request of a person for something.

        Raises:
            Refused: over the rate, with the seconds after which to come back.
        """
        key = (person, what)
        if len(self._buckets) >= _MAX_BUCKETS and key not in self._buckets:
            self._sweep(uptime)
        if len(self._buckets) >= _MAX_BUCKETS and key not in self._buckets:
            raise Refused("limited", "too many are counted", retry_after_seconds=1)
        tokens = self._tokens(key, uptime)
        if tokens < 1:
            wait = min((1 - tokens) / self._per_second, _LONGEST_WAIT_SECONDS)
            raise Refused("limited", "over the rate", retry_after_seconds=int(wait) + 1)
        self._buckets[key] = (tokens - 1, uptime)

    def enter(self, caller: Caller) -> UnderWay:
        """One more request of this caller, until what is given back is left.

        Raises:
            Refused: where there are too many.
        """
        if self._under_way[caller] >= self._limits.concurrent:
            raise Refused("limited", "too many at once", retry_after_seconds=1)
        self._under_way[caller] += 1
        return UnderWay(self._under_way, caller)

    def _sweep(self, uptime: float) -> None:
        # Nobody makes it go through everything again and again: who is new is told to wait as long anyway.
        if uptime - self._swept < _SWEEP_SECONDS:
            return
        self._swept = uptime
        # Whose bucket is full again is as good as never seen.
        full = [each for each in self._buckets if self._tokens(each, uptime) >= self._limits.burst]
        for each in full:
            del self._buckets[each]

    def _tokens(self, key: _Key, uptime: float) -> float:
        burst = float(self._limits.burst)
        tokens, at = self._buckets.get(key, (burst, uptime))
        return min(burst, tokens + max(0.0, uptime - at) * self._per_second)


def counted_as(message: Message) -> str:
    """What a message is a request for: a tool, or a method."""
    if message.call is not None and message.call.tool is not None:
        return message.call.tool
    # All notifications together: what they are called is the client's to choose. And all resources: below a prefix
    # there is no end of URIs.
    return "notifications" if message.method.startswith("notifications/") else message.method


_Key: TypeAlias = tuple[str, str]
_MAX_BUCKETS = 100_000
_SWEEP_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 3600.0
