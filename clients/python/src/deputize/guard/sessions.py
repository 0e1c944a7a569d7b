"""Sessions of older protocol versions: each belongs to the person, the actors and the key that began it."""

from __future__ import annotations

from collections import OrderedDict

from deputize.call.claims import ToolCallClaims
from deputize.clock import Clock

from .refusal import Refused


class Sessions:
    """Who began which session. The oldest are forgotten when there are too many: their clients begin anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._owners: OrderedDict[str, tuple[tuple[str, ...], float]] = OrderedDict()

    def remember(self, session_id: str, claims: ToolCallClaims) -> None:
        """The server answered with this session."""
        if session_id in self._owners:
            return
        self._owners[session_id] = (_owner(claims), self._clock.uptime())
        while len(self._owners) > _MAX_SESSIONS:
            self._owners.popitem(last=False)

    def check(self, session_id: str | None, claims: ToolCallClaims) -> None:
        """Check that a request is of who began its session.

        Raises:
            Refused: where it is another's, or none that is known; MCP then has the client begin anew.
        """
        if session_id is None:
            return
        owner, began = self._owners.get(session_id, ((), 0.0))
        if owner != _owner(claims) or self._clock.uptime() - began > _MAX_AGE_SECONDS:
            raise Refused("session")


def _owner(claims: ToolCallClaims) -> tuple[str, ...]:
    return (claims.sub, claims.cnf.thumbprint, *claims.actors())


_MAX_SESSIONS = 10_000
_MAX_AGE_SECONDS = 24 * 3600.0
