"""Stops one caller's requests after his own went unanswered, one after another, before a token is spent on more.

What one caller meets he may have caused, by a call that takes for ever: nobody else is stopped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .guard import Refused
from .guard.sessions import Caller


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    """When the last one was, or the last request was let through although there were too many."""


class Breaker:
    """Open for a caller after five failures; then one request goes through now and then, whose answer closes it.

    Bounded: beyond 10,000 callers one more is not stopped.
    """

    def __init__(self) -> None:
        self._callers: dict[Caller, _Failures] = {}
        self._swept = -math.inf

    def check(self, caller: Caller, uptime: float) -> None:
        """Whether a request of this caller may go through now.

        Raises:
            Refused: where it may not.
        """
        failures = self._callers.get(caller)
        if failures is None or failures.count < _FAILURES_TO_OPEN or not _is_recent(failures, uptime):
            return
        if uptime - failures.last < _PROBE_SECONDS:
            raise Refused("unavailable", "the server does not answer this caller", retry_after_seconds=_PROBE_SECONDS)
        failures.last = uptime

    def answered(self, caller: Caller) -> None:
        """The server answered this caller."""
        self._callers.pop(caller, None)

    def silent(self, caller: Caller, uptime: float) -> None:
        """What this caller asked was not answered in time, or by a server that says that it is down."""
        if len(self._callers) >= _MAX_CALLERS and caller not in self._callers:
            self._sweep(uptime)
            if len(self._callers) >= _MAX_CALLERS:
                return
        failures = self._callers.setdefault(caller, _Failures(0, uptime))
        failures.count = failures.count + 1 if _is_recent(failures, uptime) else 1
        failures.last = uptime

    def _sweep(self, uptime: float) -> None:
        # Nobody makes it go through everything again and again.
        if uptime - self._swept < _SWEEP_SECONDS:
            return
        self._swept = uptime
        self._callers = {caller: each for caller, each in self._callers.items() if _is_recent(each, uptime)}


def _is_recent(failures: _Failures, uptime: float) -> bool:
    return uptime - failures.last < _FORGOTTEN_SECONDS


_FAILURES_TO_OPEN = 5
_PROBE_SECONDS = 2
_FORGOTTEN_SECONDS = 600.0
_SWEEP_SECONDS = 1.0
_MAX_CALLERS = 10_000
