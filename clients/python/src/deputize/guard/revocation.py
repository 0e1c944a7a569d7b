"""Revocations and kill switches, as the broker pushes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from deputize.call.claims import ToolCallClaims
from deputize.call.strict_json import JsonObject, JsonValue

from .refusal import Refused


@dataclass(frozen=True, slots=True)
class Revocation:
    """One thing that is no longer good."""

    kind: str
    """`token`, `transaction`, `person`, `client`, `actor`, `key`, `tool` or `everything` (the kill switch)."""
    name: str = ""
    """The `jti`, `txn`, `sub`, client, thumbprint or tool; empty for `everything`."""

    @classmethod
    def read(cls, document: JsonValue) -> Revocation:
        """Read a revocation as the broker writes it.

        Raises:
            ValueError: where it is none. Who cannot read a revocation cannot vouch for anything.
        """
        if isinstance(document, dict):
            kind = document.get("kind")
            member = _MEMBERS.get(kind) if isinstance(kind, str) else None
            names: JsonObject = {key: value for key, value in document.items() if key != "kind"}
            if member == "" and not names:
                return cls("everything")
            if member and names.keys() == {member} and isinstance(names[member], str):
                return cls(str(kind), str(names[member]))
        msg = "not a revocation"
        raise ValueError(msg)


class Revocations:
    """What is revoked now.

    Tokens and transactions are remembered for longer than any token lives; all else stands until a newer snapshot no
    longer names it.
    """

    def __init__(self) -> None:
        self._standing: set[Revocation] = set()
        self._passing: dict[Revocation, float] = {}
        self._heard: float | None = None
        self._overflowed = False

    def hear(self, uptime: float) -> None:
        """The broker says that nothing else is new."""
        self._heard = uptime

    def add(self, revocation: Revocation, uptime: float) -> None:
        """Something more is revoked."""
        fresh = {each: since for each, since in self._passing.items() if uptime - since < _PASSING_SECONDS}
        self._passing = fresh
        if len(self._standing) + len(self._passing) >= MAX_REVOCATIONS:
            # There is no room: nothing can be vouched for any more.
            self._overflowed = True
        elif revocation.kind in ("token", "transaction"):
            self._passing[revocation] = uptime
        else:
            self._standing.add(revocation)

    def lift_standing(self) -> None:
        """A newer snapshot names everything that still stands."""
        self._standing.clear()
        self._overflowed = False

    def has_tool(self, name: str) -> bool:
        """Whether a tool is switched off by itself."""
        return Revocation("tool", name) in self._standing

    def has_everything(self) -> bool:
        """Whether the whole server is switched off."""
        return Revocation("everything") in self._standing

    def check(self, claims: ToolCallClaims, tool: str | None, uptime: float, max_age_seconds: float) -> None:
        """Check that a token is still good.

        Raises:
            Refused: where it is not, or nothing can be said.
        """
        if self._overflowed:
            raise Refused("unavailable", "too many revocations")
        if self._heard is None or uptime - self._heard > max_age_seconds:
            raise Refused("unavailable", "revocations are stale")
        if self.has_any_of(claims, tool):
            raise Refused("revoked")

    def has_any_of(self, claims: ToolCallClaims, tool: str | None) -> bool:
        """Whether a token is revoked as far as was heard, or may be, however long ago that was."""
        concerned = [
            Revocation("everything"),
            Revocation("token", claims.jti),
            Revocation("transaction", claims.txn),
            Revocation("person", claims.sub),
            Revocation("client", claims.client_id),
            Revocation("key", claims.cnf.thumbprint),
            *(Revocation("actor", sub) for sub in claims.actors()),
        ]
        if claims.pjti is not None:
            # The broker names further descendants one by one.
            concerned.append(Revocation("token", claims.pjti))
        if tool is not None:
            concerned.append(Revocation("tool", tool))
        return self._overflowed or any(each in self._standing or each in self._passing for each in concerned)


MAX_REVOCATIONS: Final = 100_000
_MEMBERS = {
    "token": "jti",
    "transaction": "txn",
    "person": "sub",
    "client": "client_id",
    "actor": "sub",
    "key": "thumbprint",
    "tool": "name",
    "everything": "",
}
# Tokens live 120 s at most.
_PASSING_SECONDS = 600.0
