"""Nonces that only their maker redeems, and "seen this before?" for things that live for seconds."""

from __future__ import annotations

import hashlib
import os
import threading
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .digest import base64url
from .jws import JwsRefused, from_base64url

NonceState: TypeAlias = Literal["fresh", "stale", "foreign"]
OnceAnswer: TypeAlias = Literal["first", "seen", "full"]


class NonceMaker:
    """Makes and checks DPoP nonces (RFC 9449 §8): base64url of the maker's id, an AEAD nonce and the sealed age.

    The key is random, never leaves the process and dies with it: after a restart every earlier nonce is foreign, so
    that no proof from before can pass.
    """

    def __init__(self, maker: str, lifetime_seconds: float) -> None:
        self._maker = hashlib.sha256(maker.encode()).digest()[:8]
        self._lifetime_ms = int(lifetime_seconds * 1000)
        self._key = ChaCha20Poly1305(ChaCha20Poly1305.generate_key())

    def make(self, uptime: float) -> str:
        """A nonce; `uptime` is monotonic time in seconds."""
        seal_nonce = os.urandom(12)
        sealed = self._key.encrypt(seal_nonce, int(uptime * 1000).to_bytes(8, "big"), self._maker)
        return base64url(self._maker + seal_nonce + sealed)

    def check(self, nonce: str, uptime: float) -> NonceState:
        """Whether the nonce was made here, and is young enough."""
        if len(nonce) != _NONCE_CHARACTERS:
            return "foreign"
        try:
            octets = from_base64url(nonce)
            made_ms = int.from_bytes(self._key.decrypt(octets[8:20], octets[20:], octets[:8]), "big")
        except (JwsRefused, InvalidTag):
            return "foreign"
        if octets[:8] != self._maker:
            return "foreign"
        return "fresh" if int(uptime * 1000) - made_ms <= self._lifetime_ms else "stale"

    def __repr__(self) -> str:
        return "NonceMaker()"


class OnceSet:
    """Remembers each tag for at least its lifetime and at most twice that. Never evicts: when full, it says so.

    Each tag has an owner, who may hold as many of a generation as there is room left in it: alone half of it, and
    however many are greedy, whoever comes next finds as much room as each of them holds.
    """

    def __init__(self, lifetime_seconds: float, capacity: int) -> None:
        self._lifetime = lifetime_seconds
        self._capacity = capacity
        self._epoch = 0
        self._current: set[bytes] = set()
        self._previous: set[bytes] = set()
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, owner: str, tag: bytes, uptime: float) -> OnceAnswer:
        """Take the tag for an owner, of which there are as many as a configuration names; `uptime` is monotonic."""
        with self._lock:
            self._turn(int(uptime // self._lifetime))
            if tag in self._current or tag in self._previous:
                return "seen"
            held = self._held.get(owner, 0)
            if held >= self._capacity - len(self._current):
                return "full"
            self._current.add(tag)
            self._held[owner] = held + 1
            return "first"

    def _turn(self, epoch: int) -> None:
        # INVARIANT: a tag taken in epoch n leaves no earlier than epoch n + 2 begins, a whole lifetime after n ended.
        # Threads may read the clock in one order and come here in another: an older epoch changes nothing.
        if epoch <= self._epoch:
            return
        self._previous = self._current if epoch == self._epoch + 1 else set()
        self._current = set()
        self._held = {}
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._current) + len(self._previous)


_NONCE_CHARACTERS = 59
