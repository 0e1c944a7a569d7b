"""Whether wall and monotonic clock go together: a jump would stretch or cut the life of every token."""

from __future__ import annotations


class ClockWatch:
    """Refuses while the clocks have parted.

    Slow drift (NTP slewing) is followed, by 1 ms in a second; a jump is not, until the clock comes back or the process
    restarts.
    """

    def __init__(self) -> None:
        # Wall minus monotonic time lies between these. The wall clock is known in whole seconds, so one look leaves a
        # second open; looks together narrow it.
        self._agreed: tuple[float, float] | None = None
        self._followed = 0.0

    def agree(self, now_seconds: int, uptime: float) -> bool:
        """Whether the clocks have parted by no more than two seconds since the first look."""
        look = (now_seconds - uptime, now_seconds - uptime + 1)
        if self._agreed is None:
            self._agreed, self._followed = look, uptime
        least, most = self._agreed
        if look[0] > most + _MAX_DRIFT_SECONDS or look[1] < least - _MAX_DRIFT_SECONDS:
            return False
        elapsed = max(0.0, uptime - self._followed)
        least, most = least - elapsed / 1000, most + elapsed / 1000
        self._followed = max(self._followed, uptime)
        narrowed = (max(least, look[0]), min(most, look[1]))
        self._agreed = narrowed if narrowed[0] <= narrowed[1] else (least, most)
        return True


_MAX_DRIFT_SECONDS = 2.0
