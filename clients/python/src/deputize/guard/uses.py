"""How often each L1 and L2 token was used here, where it has a limit."""

from __future__ import annotations

import threading

from .refusal import Refused


class Uses:
    """Counts by `jti`, until the token has expired. Never evicts what may still be used: when full, it refuses."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._counts: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def take(self, jti: str, max_uses: int, uptime: float, remaining_seconds: float) -> None:
        """Take one use of a token that is good for `max_uses` calls, and can pass for `remaining_seconds` more.

        Raises:
            Refused: where none is left, or there is no room to count.
        """
        with self._lock:
            used, until = self._counts.get(jti, (0, uptime + remaining_seconds))
            if used >= max_uses:
                raise Refused("used_up")
            if used == 0 and len(self._counts) >= self._capacity:
                self._counts = {each: count for each, count in self._counts.items() if count[1] >= uptime}
                if len(self._counts) >= self._capacity:
                    raise Refused("unavailable", "too many counted tokens")
            self._counts[jti] = (used + 1, until)
