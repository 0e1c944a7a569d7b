"""The line that every request goes down, in the order in which it is cheapest to refuse and safest to accept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from deputize.call.claims import GrantedDetail, Level, ToolCallClaims
from deputize.call.closing import SchemaRefused
from deputize.call.constraints import ConstraintRefused
from deputize.call.digest import tool_digest
from deputize.call.strict_json import JsonObject, JsonRefused
from deputize.clock import Clock, SystemClock

from .headers import IncomingCall
from .message import Call, Message, parse_message
from .possession import Possession
from .refusal import Needed, Refusal, Refused
from .revocation import Revocation, Revocations
from .sessions import Sessions
from .settings import GuardSettings
from .snapshot import PinnedTool, Snapshot, SnapshotRefused
from .uses import Uses
from .verified import VerifiedCall, VerifiedListing

Redeemed: TypeAlias = Literal["yes", "already_used", "revoked", "unavailable"]
"""The answer about a redemption. `unavailable`: the maker cannot be reached or does not know (fail closed)."""


class Redeemer(Protocol):
    """Asks the maker of an L3 token whether this is its first use (`POST /redeem`)."""

    async def redeem(self, token: str) -> Redeemed:
        """Redeem the token. Asked after every other check; the call runs only on `yes`."""
        ...


class Admission(Protocol):
    """The limits in front of the server, and whether it is there."""

    async def admit(self, claims: ToolCallClaims) -> None:
        """Let a call pass, or raise `Refused("limited", retry_after_seconds=…)` or `Refused("unavailable")`.

        Asked before a token is redeemed, so that a call which cannot run does not spend it.
        """
        ...


@dataclass(frozen=True, slots=True)
class ObservedTools:
    """What a server's live `tools/list` is, compared with what was approved."""

    approved: tuple[str, ...]
    """Tools that are exactly what was approved: the only ones to be listed."""
    drifted: tuple[str, ...]
    """Tools whose definition is no longer the approved one."""
    unknown: tuple[str, ...]
    """Tools that were never approved."""


class Guard:
    """Stands before one MCP server and lets through what was granted, and nothing else.

    It refuses every call with 503 until it has a snapshot (`install`) and has seen the server's tools
    (`observe_tools`).
    """

    def __init__(
        self,
        settings: GuardSettings,
        redeemer: Redeemer,
        *,
        admission: Admission | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.clock: Clock = SystemClock() if clock is None else clock
        self._redeemer = redeemer
        self._admission = admission
        self._possession = Possession(settings, self.clock)
        self._uses = Uses(settings.counted_tokens)
        self._revocations = Revocations()
        self._snapshot: Snapshot | None = None
        self._live: dict[str, str] = {}
        self._observed: ObservedTools | None = None
        self._sessions = Sessions(self.clock)
        self._started_seconds = self.clock.now_seconds()

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in use."""
        return self._snapshot

    @property
    def observed(self) -> ObservedTools | None:
        """What the last look at the server's tools showed."""
        return self._observed

    def approved_tools(self) -> frozenset[str]:
        """Names of the live tools that are exactly what is approved now: the only ones to be listed."""
        pinned = self._snapshot.tools if self._snapshot is not None else {}
        return frozenset(
            name for name, digest in self._live.items() if name in pinned and pinned[name].tool_digest == digest
        )

    def begin_session(self, session_id: str, verified: VerifiedCall | VerifiedListing) -> None:
        """The server began a session for this request: it belongs to who sent it."""
        self._sessions.remember(session_id, verified.claims)

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
            self._revocations.replace_standing(snapshot.revocations, uptime)
        else:
            self._revocations.hear(uptime)
        self._snapshot = snapshot

    def revoke(self, revocation: Revocation) -> None:
        """Take note of a revocation that the broker pushed."""
        self._revocations.add(revocation, self.clock.uptime())

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
            try:
                live[name] = None if name in live else tool_digest(definition)
            except JsonRefused:
                live[name] = None
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

    async def verify(self, call: IncomingCall) -> VerifiedCall | VerifiedListing:
        """Verify one request. Nothing is consumed before everything that can be checked without consuming holds.

        Raises:
            Refusal: the answer to give.
        """
        try:
            return await self._check(call)
        except Refused as refused:
            raise self.refusal(refused) from None

    def refusal(self, refused: Refused) -> Refusal:
        """The answer to a request that is refused, with the nonce for the next."""
        return Refusal(refused, self.settings, self._possession.next_nonce())

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

    async def _check(self, call: IncomingCall) -> VerifiedCall | VerifiedListing:
        message = self._read(call)
        snapshot = self.current_snapshot()
        if message.call is not None:
            pinned = snapshot.tools.get(message.call.name)
            input_schema = pinned.definition.get("inputSchema") if pinned is not None else None
            call.check_mirrored_params(input_schema, message.call.arguments)
        token, claims = self._possession.verify(call, snapshot.keys)
        if claims.tenant != snapshot.tenant:
            raise Refused("token", "of another tenant")
        self._sessions.check(call.single("mcp-session-id"), claims)
        next_nonce = self._possession.next_nonce()
        if message.call is None:
            await self._check_listing(claims)
            return VerifiedListing(claims, message.method, message.body(), next_nonce)
        digest = self._check_granted(message.call, claims.detail, snapshot)
        await self._consume(message.call.name, token, claims)
        asked = message.call
        return VerifiedCall(claims, token, asked.name, asked.arguments, digest, message.body(), next_nonce)

    def _read(self, call: IncomingCall) -> Message:
        """Size, strict JSON, and headers that agree with it."""
        if len(call.body) > self.settings.max_body_bytes:
            raise Refused("too_large")
        if call.method != "POST":
            raise Refused("http_method")
        call.check_media_type()
        message = parse_message(call.body)
        call.check_agrees_with(message)
        return message

    async def _check_listing(self, claims: ToolCallClaims) -> None:
        """A token of level L0, and only such a token, looks without calling."""
        if claims.level is not Level.L0:
            raise Refused("scope", "a token for a call does not list", needed=Needed.for_listing())
        self._check_revocation(claims, None)
        await self._admit(claims)

    def _check_granted(self, asked: Call, detail: GrantedDetail, snapshot: Snapshot) -> str:
        """Whether the grant is for this call of this tool, as it was approved and as it is now."""
        tool = snapshot.tools.get(asked.name)
        if tool is None:
            raise Refused("tool", "not approved")
        least = max(tool.least_level, detail.level)
        needed = Needed.for_call(self.settings, asked.name, least, asked.arguments)
        try:
            _check_target(asked, detail, tool)
            self._check_live(asked.name, tool)
            tool.schema.validate(asked.arguments)
            digest = asked.digest()
            _check_binding(asked, detail, digest)
        except Refused as refused:
            refused.needed = needed
            raise
        except SchemaRefused as refused:
            raise Refused("arguments", str(refused), needed=needed) from None
        return digest

    def _check_live(self, name: str, tool: PinnedTool) -> None:
        """The definition that the server gives now is the one that was approved."""
        live = self._live
        if not live:
            raise Refused("unavailable", "the server's tools were not observed yet")
        if name not in live:
            raise Refused("tool", "the server no longer lists it")
        if live[name] != tool.tool_digest:
            raise Refused("tool", "the live definition is not the approved one")

    async def _consume(self, tool: str, token: str, claims: ToolCallClaims) -> None:
        """Everything that says no without being asked to decide; last of all the token is used."""
        self._check_revocation(claims, tool)
        await self._admit(claims)
        if claims.level is Level.L3:
            answer = await self._redeemer.redeem(token)
            if answer == "already_used":
                raise Refused("used_up")
            if answer == "revoked":
                raise Refused("revoked")
            if answer != "yes":
                raise Refused("unavailable", "the token cannot be redeemed now")
            # The answer took its time: what was pushed meanwhile still counts.
            self._check_revocation(claims, tool)
        elif claims.detail.max_uses is not None:
            self._count_use(claims, claims.detail.max_uses)

    def _count_use(self, claims: ToolCallClaims, max_uses: int) -> None:
        leeway = self.settings.leeway_seconds
        # What was counted before a restart is forgotten: tokens from then are refused rather than counted anew.
        if claims.iat < self._started_seconds + leeway:
            raise Refused("token", "issued before this guard started")
        remaining = max(0, claims.exp - self.clock.now_seconds()) + 2 * leeway
        self._uses.take(claims.jti, max_uses, self.clock.uptime(), remaining)

    def _check_revocation(self, claims: ToolCallClaims, tool: str | None) -> None:
        self._revocations.check(claims, tool, self.clock.uptime(), self.settings.max_revocation_age_seconds)

    async def _admit(self, claims: ToolCallClaims) -> None:
        if self._admission is not None:
            await self._admission.admit(claims)

    def __repr__(self) -> str:
        return f"Guard(resource={self.settings.resource!r})"


def _check_target(asked: Call, detail: GrantedDetail, tool: PinnedTool) -> None:
    """Method, name, level and definition are those of the grant."""
    if detail.actions != ("tools/call",):
        raise Refused("scope", "the token is not for calling tools")
    if detail.identifier != asked.name:
        raise Refused("scope", "the token is for another tool")
    if detail.level < tool.least_level:
        raise Refused("scope", "the tool needs a tighter binding")
    if detail.tool_digest != tool.tool_digest:
        raise Refused("tool", "the token is for another definition")


def _check_binding(asked: Call, detail: GrantedDetail, digest: str) -> None:
    """The arguments are those of the grant, as tightly as it says."""
    if detail.call_digest is not None:
        if detail.call_digest != digest:
            raise Refused("call_differs")
        return
    if detail.constraints is not None:
        # Constraints say nothing about the responses that steer a retry.
        if asked.is_steered:
            raise Refused("scope", "a steered retry needs a token for this one call")
        try:
            detail.constraints.admit(asked.arguments)
        except ConstraintRefused as refused:
            raise Refused("constraints", str(refused)) from None


_MAX_LIVE_TOOLS = 2_000
