"""What a guard is told: the broker's snapshot and revocations, and what its server lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from deputize.call.claims import ToolCallClaims
from deputize.call.digest import prompt_digest, tool_digest
from deputize.call.resource import MAX_URI_BYTES
from deputize.call.strict_json import JsonObject, JsonRefused, JsonValue
from deputize.clock import Clock

from .pin import Pinned, SnapshotRefused
from .refusal import Refused
from .revocation import Revocation, Revocations
from .settings import GuardSettings
from .snapshot import Snapshot


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
        self._live: dict[str, dict[str, str]] = {}
        """What the server lists now, by action and name; nothing where it was not looked at yet."""
        self._observed: ObservedTools | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in use."""
        return self._snapshot

    @property
    def observed(self) -> ObservedTools | None:
        """What the last look at the server's tools showed."""
        return self._observed

    def visible(
        self, method: str, claims: ToolCallClaims, answered: Iterable[JsonValue]
    ) -> tuple[list[JsonValue], bool]:
        """Reduce what the server lists to what this caller may see.

        That is what is approved, stands in this very answer as it was approved, and what the caller's token says that
        he could use. A token that says nothing of that shows nothing. What is shown are the approved definitions:
        members that the digest does not cover are not the server's to choose.

        Args:
            method: `tools/list`, `prompts/list`, `resources/list` or `resources/templates/list`.
            claims: The caller's.
            answered: What the server lists.

        Returns:
            The definitions, and whether something approved stood there as another than the approved one.

        Raises:
            Refused: where nothing can be said now.
        """
        snapshot = self.current_snapshot()
        definitions = [definition for definition in answered if isinstance(definition, dict)]
        if method in ("resources/list", "resources/templates/list"):
            return self._visible_resources(snapshot, claims, definitions, method), False
        action = "tools/call" if method == "tools/list" else "prompts/get"
        times = Counter(str(definition.get("name", "")) for definition in definitions)
        visible: list[JsonValue] = []
        drifted = False
        for definition in definitions:
            name = str(definition.get("name", ""))
            pinned = snapshot.pinned(action, name)
            if pinned is None:
                continue
            # A name that stands twice is no definition of anything.
            if times[name] > 1 or _digest_or_none(action, definition) != pinned.digest:
                drifted = True
            elif self._is_visible(snapshot, claims, action, name):
                visible.append(pinned.definition)
        return visible, drifted

    def _visible_resources(
        self, snapshot: Snapshot, claims: ToolCallClaims, definitions: list[JsonObject], method: str
    ) -> list[JsonValue]:
        """Resources that an approved entry names; templates whose every expansion lies below one."""
        named_by = "uri" if method == "resources/list" else "uriTemplate"
        visible: list[JsonValue] = []
        for definition in definitions:
            uri = definition.get(named_by)
            if not isinstance(uri, str):
                continue
            entry = snapshot.entry_of(uri) if named_by == "uri" else _entry_of_template(snapshot, uri)
            if entry is not None and self._is_visible(snapshot, claims, "resources/read", entry):
                visible.append(_described(named_by, uri, snapshot.resources[entry], definition))
        return visible

    def _is_visible(self, snapshot: Snapshot, claims: ToolCallClaims, action: str, name: str) -> bool:
        """Whether this caller may see something at all: his token says so, and nobody switched it off since."""
        revocations = self._revocations
        is_off = revocations.has_everything() or (action == "tools/call" and revocations.has_tool(name))
        return snapshot.offers.is_shown(claims.detail.shown, action, name) and not is_off

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
        self._observed = self._observe("tools/call", definitions)
        return self._observed

    def observe_prompts(self, definitions: Iterable[JsonObject]) -> ObservedTools:
        """As `observe_tools`, for what `prompts/list` gives: prompts are refused like tools until they were seen."""
        return self._observe("prompts/get", definitions)

    def _observe(self, action: str, definitions: Iterable[JsonObject]) -> ObservedTools:
        live: dict[str, str | None] = {}
        for definition, _ in zip(definitions, range(_MAX_LIVE_TOOLS), strict=False):
            name = definition.get("name")
            name = name if isinstance(name, str) else ""
            live[name] = None if name in live else _digest_or_none(action, definition)
        approved: list[str] = []
        drifted: list[str] = []
        unknown: list[str] = []
        for name, digest in live.items():
            pinned = self._snapshot.pinned(action, name) if self._snapshot is not None else None
            kind = unknown if pinned is None else approved if pinned.digest == digest else drifted
            kind.append(name)
        self._live[action] = {name: digest for name, digest in live.items() if digest is not None}
        return ObservedTools(tuple(approved), tuple(drifted), tuple(unknown))

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

    def check_live(self, action: str, name: str, pinned: Pinned | None) -> None:
        """Check that the definition which the server gives now is the one that was approved.

        A resource has none: what stands behind its URI may change.

        Raises:
            Refused: where it is not, or nothing was seen yet.
        """
        if pinned is None:
            raise Refused("tool", "not approved")
        if action == "resources/read":
            return
        live = self._live.get(action)
        # Tools that were approved and are all gone are no list that could be gone by.
        if live is None or (action == "tools/call" and not live):
            raise Refused("unavailable", "the server's lists were not observed yet")
        if name not in live:
            raise Refused("tool", "the server no longer lists it")
        if live[name] != pinned.digest:
            raise Refused("tool", "the live definition is not the approved one")

    def check_revocation(self, claims: ToolCallClaims, tool: str | None) -> None:
        """Check that a token is still good for a call of this tool, or for looking.

        Raises:
            Refused: where it is not, or nothing can be said.
        """
        self._revocations.check(claims, tool, self.clock.uptime(), self.settings.max_revocation_age_seconds)

    def is_revoked(self, claims: ToolCallClaims, tool: str | None) -> bool:
        """Whether a call that runs already is revoked, as far as was heard."""
        return self._revocations.has_any_of(claims, tool)


def _digest_or_none(action: str, definition: JsonObject) -> str | None:
    try:
        return prompt_digest(definition) if action == "prompts/get" else tool_digest(definition)
    except JsonRefused:
        return None


def _entry_of_template(snapshot: Snapshot, template: str) -> str | None:
    """The longest prefix with an entry with which every expansion of a template begins, if that is not switched off."""
    if len(template) > MAX_URI_BYTES or not all("!" <= character <= "~" for character in template):
        return None
    # RFC 6570 §2.1: what stands before the first expression is in every expansion as it stands.
    literal = template.split("{", 1)[0]
    within = [entry for entry in snapshot.resources if entry.endswith("/*") and literal.startswith(entry[:-1])]
    # The most exact entry decides, and one that is switched off gives way to no wider one.
    longest = max(within, key=len, default=None)
    return longest if longest is not None and snapshot.resources[longest].enabled else None


def _described(named_by: str, uri: str, pinned: Pinned, live: JsonObject) -> JsonObject:
    """A resource or template as it is shown; `name` is required (MCP, "Resource").

    Of what the server says of it, only media type and size are shown; its texts are the approved ones.
    """
    shown: JsonObject = {named_by: uri, "name": uri}
    shown |= {name: pinned.definition[name] for name in ("name", "title", "description") if name in pinned.definition}
    media, size = live.get("mimeType"), live.get("size")
    if isinstance(media, str) and _MEDIA_TYPE.fullmatch(media):
        shown["mimeType"] = media
    if type(size) is int and size >= 0:
        shown["size"] = size
    return shown


LISTS: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
"""The methods whose answers are filtered, and where in the result the list stands."""
# RFC 9110 §8.3.1, without parameters but for what a charset needs: nothing that could be read as a sentence.
_MEDIA_TYPE = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9!#$&^_.+;=-]+/[A-Za-z0-9!#$&^_.+/;=-]*")
_MAX_LIVE_TOOLS = 2_000
