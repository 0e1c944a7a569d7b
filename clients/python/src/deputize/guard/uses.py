"""How often each L1 and L2 token was used here, where it has a limit."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from .refusal import Refused


@dataclass(slots=True)
class _Count:
    owner: str
    used: int
    until: float
    """Uptime after which the token can no longer pass."""


class Uses:
    """Counts by `jti`, until the token has expired. Never evicts what may still be used: when full, it refuses.

    Room is shared out: a client may have as many tokens counted as there is room left, alone half of it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[str, _Count] = {}
        self._held: dict[str, int] = {}
        self._next_expiry = math.inf
        self._lock = threading.Lock()

    def take(self, owner: str, jti: str, max_uses: int, times: tuple[float, float]) -> None:
        """Take one use of a client's token that is good for `max_uses` calls.

        Args:
            owner: The client.
            jti: The token.
            max_uses: How many calls it is good for.
            times: Uptime now, and for how many seconds more the token can pass.

        Raises:
            Refused: where none is left, or there is no room to count.
        """
        uptime, remaining_seconds = times
        with self._lock:
            count = self._counts.get(jti)
            if count is None:
                if max_uses < 1:
                    raise Refused("used_up")
                if not self._has_room(owner):
                    self._expire(uptime)
                if not self._has_room(owner):
                    raise Refused("unavailable", "too many counted tokens")
                count = self._counts[jti] = _Count(owner, 0, uptime + remaining_seconds)
                self._held[owner] = self._held.get(owner, 0) + 1
                self._next_expiry = min(self._next_expiry, count.until)
            if count.used >= max_uses:
                raise Refused("used_up")
            count.used += 1

    def _has_room(self, owner: str) -> bool:
        return self._held.get(owner, 0) < self._capacity - len(self._counts)

    def _expire(self, uptime: float) -> None:
        # Nobody makes it go through everything again and again: only when something has expired.
        if uptime <= self._next_expiry:
            return
        self._counts = {jti: count for jti, count in self._counts.items() if count.until >= uptime}
        self._held = {}
        for count in self._counts.values():
            self._held[count.owner] = self._held.get(count.owner, 0) + 1
        self._next_expiry = min((count.until for count in self._counts.values()), default=math.inf)
