"""Tokens that may serve again: L0 to L2, until shortly before they expire, as often as they may be used."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

from .token import ToolToken


@dataclass(slots=True)
class _Entry:
    token: ToolToken
    until: float
    uses_left: int | None


class TokenCache:
    """Keyed by SHA-256 over everything that was asked: no token in clear is kept as a key."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[bytes, _Entry] = {}
        self._lock = threading.Lock()

    def take(self, asked: str, uptime: float) -> ToolToken | None:
        """A token for the same request, if there is one with a use left."""
        key = hashlib.sha256(asked.encode()).digest()
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if uptime >= entry.until or entry.uses_left == 0:
                del self._entries[key]
                return None
            if entry.uses_left is not None:
                entry.uses_left -= 1
            return entry.token

    def keep(self, asked: str, token: ToolToken, uptime: float) -> None:
        """Keep a token that will now be used once by who asked; `uptime` is when the request was sent."""
        lifetime = token.expires_in_seconds - _MARGIN_SECONDS
        uses_left = None if token.max_uses is None else token.max_uses - 1
        if token.binds_one_call or lifetime <= 0 or (uses_left is not None and uses_left <= 0) or self._capacity <= 0:
            return
        with self._lock:
            if len(self._entries) >= self._capacity:
                self._entries = {key: entry for key, entry in self._entries.items() if entry.until > uptime}
            if len(self._entries) >= self._capacity:
                del self._entries[min(self._entries, key=lambda key: self._entries[key].until)]
            key = hashlib.sha256(asked.encode()).digest()
            self._entries[key] = _Entry(token, uptime + lifetime, uses_left)

    def forget(self, access_token: str) -> None:
        """Forget a token that is no longer good."""
        with self._lock:
            self._entries = {
                key: entry for key, entry in self._entries.items() if entry.token.access_token != access_token
            }


# A token is not handed out when it could expire on its way.
_MARGIN_SECONDS = 5.0
