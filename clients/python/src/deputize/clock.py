"""Time and ids: the only place that asks the system for either."""

from __future__ import annotations

import time
import uuid
from typing import Protocol


class Clock(Protocol):
    """Where time and unique ids come from."""

    def now_seconds(self) -> int:
        """Seconds since the Unix epoch."""
        ...

    def uptime(self) -> float:
        """Monotonic seconds since any fixed instant."""
        ...

    def unique_id(self) -> str:
        """An id that never comes twice: the `jti` of assertions and proofs."""
        ...


class SystemClock:
    """The system's clock and randomness."""

    def now_seconds(self) -> int:
        """Seconds since the Unix epoch."""
        return int(time.time())

    def uptime(self) -> float:
        """Monotonic seconds since any fixed instant."""
        return time.monotonic()

    def unique_id(self) -> str:
        """A random UUID (RFC 9562 §5.4)."""
        return str(uuid.uuid4())
