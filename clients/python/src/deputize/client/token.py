"""A tool-call token as a client holds it."""

from __future__ import annotations

from dataclasses import dataclass

from deputize.call.strict_json import JsonObject


@dataclass(frozen=True, slots=True, repr=False)
class ToolToken:
    """A token and what was granted with it. It is bound to the client's key: each use needs a proof."""

    access_token: str
    expires_in_seconds: int
    """How long it lived when it was issued."""
    scope: str
    authorization_details: tuple[JsonObject, ...]
    """As granted."""
    transaction_id: str
    decision_id: str
    """The decision that made it: what an operator asks `deputize explain` about."""

    @property
    def authorization(self) -> str:
        """The value of `Authorization` (RFC 9449 §7.1)."""
        return f"DPoP {self.access_token}"

    @property
    def tool_digest(self) -> str | None:
        """Digest of the approved definition of its tool."""
        digest = self._member("tool_digest")
        return digest if isinstance(digest, str) else None

    @property
    def max_uses(self) -> int | None:
        """How many calls it is good for; `None` where nothing limits it."""
        uses = self._member("max_uses")
        return uses if type(uses) is int else None

    @property
    def binds_one_call(self) -> bool:
        """Whether it is bound to one call, whatever was asked."""
        return self._member("call_digest") is not None

    def _member(self, name: str) -> object:
        return self.authorization_details[0].get(name) if self.authorization_details else None

    def __repr__(self) -> str:
        return f"ToolToken(scope={self.scope!r}, decision_id={self.decision_id!r})"
