"""What a server offers, counted; and which of it the holder of an L0 token is shown, in a few bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

from .digest import base64url, offers_digest

ACTIONS: Final = ("tools/call", "prompts/get", "resources/read")
"""The methods that act, in the order in which what they act on is counted."""


class Shown:
    """Which offers are shown, as an L0 token carries it."""

    __slots__ = ("bits", "of")

    def __init__(self, of: str, bits: str) -> None:
        """Take what a token says.

        Raises:
            ValueError: where the bits do not have the form in which a broker writes them.
        """
        try:
            octets = base64.b64decode(bits + "=" * (-len(bits) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise ValueError("not base64url") from None
        if base64url(octets) != bits or len(octets) > _MAX_BYTES or octets.endswith(b"\0"):
            raise ValueError("not in its one form")
        self.of = of
        self.bits = octets


class Offers:
    """Everything that can be asked of a server now: tools, then prompts, then entries of resources, sorted by bytes."""

    def __init__(self, tools: Iterable[str], prompts: Iterable[str] = (), resources: Iterable[str] = ()) -> None:
        """Count them."""
        kinds = [sorted(set(names)) for names in (tools, prompts, resources)]
        self.digest = offers_digest(*kinds)
        named = [(action, name) for action, names in zip(ACTIONS, kinds, strict=True) for name in names]
        self._numbers = {key: number for number, key in enumerate(named)}

    def is_shown(self, shown: Shown | None, action: str, name: str) -> bool:
        """Whether an offer is shown. What says nothing of these offers shows none of them."""
        number = self._numbers.get((action, name))
        if number is None or shown is None or shown.of != self.digest or number // 8 >= len(shown.bits):
            return False
        return bool(shown.bits[number // 8] >> number % 8 & 1)


_MAX_BYTES: Final = 512
