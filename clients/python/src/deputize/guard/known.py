"""What a guard is told: the broker's snapshot and revocations, and what its server lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from deputize.call.claims import ToolCallClaims
from deputize.call.digest import tool_digest
from deputize.call.strict_json import JsonObject, JsonRefused, JsonValue
from deputize.clock import Clock

from .refusal import Refused
from .revocation import Revocation, Revocations
from .settings import GuardSettings
from .snapshot import PinnedTool, Snapshot, SnapshotRefused


@dataclass(frozen=True, slots=True)
class ObservedTools:
    """What a server's live `tools/list` is, compared with what was approved."""

    approved: tuple[str, ...]
    """Tools that are exactly what was approved: the only ones to be listed."""
    drifted: tuple[str, ...]
    """Tools whose definition is no longer the approved one."""
    unknown: tuple[str, ...]
    """Tools that were never approved."""


class Known:
    """What is approved, what is revoked, and what the server's tools are now."""

    def __init__(self, settings: GuardSettings, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self._revocations = Revocations()
        self._snapshot: Snapshot | None = None
        self._live: dict[str, str] = {}
        self._observed: ObservedTools | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in use."""
        return self._snapshot

    @property
    def observed(self) -> ObservedTools | None:
        """What the last look at the server's tools showed."""
        return self._observed

    def visible_tools(self, claims: ToolCallClaims, answered: Iterable[JsonValue]) -> tuple[list[JsonValue], bool]:
        """Reduce the `tools` of an answer to `tools/list` to what this caller may see.

        That is what is approved, stands in this very answer as it was approved, and is not switched off. What is shown
        are the approved definitions: members that the digest does not cover are not the server's to choose.

        Returns:
            The definitions, and whether an approved tool stood there as another than the approved one.

        Raises:
            Refused: where nothing can be said now.
        """
        snapshot = self.current_snapshot()
        definitions = [definition for definition in answered if isinstance(definition, dict)]
        times = Counter(str(definition.get("name", "")) for definition in definitions)
        visible: list[JsonValue] = []
        drifted = False
        for definition in definitions:
            name = str(definition.get("name", ""))
            tool = snapshot.tools.get(name)
            if tool is None:
                continue
            # A name that stands twice is no definition of anything.
            if times[name] > 1 or _digest_or_none(definition) != tool.tool_digest:
                drifted = True
            elif self._is_visible(claims, name):
                visible.append(tool.definition)
        return visible, drifted

    def _is_visible(self, claims: ToolCallClaims, name: str) -> bool:  # noqa: ARG002 - tokens that look name no tools
        return not self._revocations.has_tool(name)

    def install(self, snapshot: Snapshot) -> None:
        """Take a snapshot into use.

        Raises:
            SnapshotRefused: for one that is older than the present one, or of another server.
        """
        if snapshot.issuer != self.settings.issuer or snapshot.resource != self.settings.resource:
            raise SnapshotRefused("snapshot of another broker or server")
        present = self._snapshot
        if present is not None and snapshot.version < present.version:
            raise SnapshotRefused(f"snapshot version {snapshot.version} is below {present.version}")
        uptime = self.clock.uptime()
        if present is None or snapshot.version > present.version:
            self._revocations.lift_standing()
        # One of the same version may have been made before a revocation of which we have heard, or after.
        for revocation in snapshot.revocations:
            self._revocations.add(revocation, uptime)
        self._revocations.hear(uptime)
        self._snapshot = snapshot

    def revoke(self, revocation: Revocation) -> None:
        """Take note of a revocation that the broker pushed."""
        uptime = self.clock.uptime()
        self._revocations.add(revocation, uptime)
        self._revocations.hear(uptime)

    def hear_revocations(self) -> None:
        """The broker is there and has nothing new. Without this word calls stop after a while."""
        self._revocations.hear(self.clock.uptime())

    def observe_tools(self, definitions: Iterable[JsonObject]) -> ObservedTools:
        """Take note of the definitions that the server's `tools/list` gives now.

        Calls of a tool whose live definition is not the approved one are refused; a name that stands twice counts as
        changed.
        """
        live: dict[str, str | None] = {}
        for definition, _ in zip(definitions, range(_MAX_LIVE_TOOLS), strict=False):
            name = definition.get("name")
            name = name if isinstance(name, str) else ""
            live[name] = None if name in live else _digest_or_none(definition)
        pinned = self._snapshot.tools if self._snapshot is not None else {}
        self._live = {name: digest for name, digest in live.items() if digest is not None}
        self._observed = ObservedTools(
            approved=tuple(
                name for name, digest in live.items() if name in pinned and pinned[name].tool_digest == digest
            ),
            drifted=tuple(
                name for name, digest in live.items() if name in pinned and pinned[name].tool_digest != digest
            ),
            unknown=tuple(name for name in live if name not in pinned),
        )
        return self._observed

    def current_snapshot(self) -> Snapshot:
        """The snapshot in use, as long as it is good.

        Raises:
            Refused: where there is none.
        """
        if self._snapshot is None:
            raise Refused("unavailable", "no snapshot")
        if self._snapshot.expires_at <= self.clock.now_seconds():
            raise Refused("unavailable", "snapshot expired")
        return self._snapshot

    def check_live(self, name: str, tool: PinnedTool) -> None:
        """Check that the definition which the server gives now is the one that was approved.

        Raises:
            Refused: where it is not, or nothing was seen yet.
        """
        live = self._live
        if not live:
            raise Refused("unavailable", "the server's tools were not observed yet")
        if name not in live:
            raise Refused("tool", "the server no longer lists it")
        if live[name] != tool.tool_digest:
            raise Refused("tool", "the live definition is not the approved one")

    def check_revocation(self, claims: ToolCallClaims, tool: str | None) -> None:
        """Check that a token is still good for a call of this tool, or for looking.

        Raises:
            Refused: where it is not, or nothing can be said.
        """
        self._revocations.check(claims, tool, self.clock.uptime(), self.settings.max_revocation_age_seconds)


def _digest_or_none(definition: JsonObject) -> str | None:
    try:
        return tool_digest(definition)
    except JsonRefused:
        return None


_MAX_LIVE_TOOLS = 2_000
