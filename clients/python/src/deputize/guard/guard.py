"""The line that every request goes down, in the order in which it is cheapest to refuse and safest to accept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from deputize.aws.credentials import Kept
from deputize.call.claims import GrantedDetail, Level, ToolCallClaims
from deputize.call.closing import SchemaRefused
from deputize.call.constraints import ConstraintRefused
from deputize.clock import Clock, SystemClock
from deputize.errors import ExchangeError
from deputize.errors import Refused as BrokerRefused

from .clocks import ClockWatch
from .headers import IncomingCall, mirrored_headers
from .known import LISTS, Known
from .message import Call, Message, parse_message
from .pin import Pinned
from .possession import Possession
from .refusal import Needed, Refusal, Refused
from .settings import GuardSettings
from .snapshot import Snapshot
from .uses import Uses
from .verified import Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream

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


class AwsDoor(Protocol):
    """Where the AWS credentials of a call come from (`POST /aws/credentials`)."""

    def kept_for(self, token: str, rebuilt_body: bytes, check: Callable[[], None]) -> Kept:
        """Those of this call. Nothing is asked before somebody wants them, and nothing given once `check` raises."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class Examined:
    """A request that may run, but for what is asked last: the server's health, and the one use of its token."""

    claims: ToolCallClaims
    message: Message
    token: str
    digest: str
    """Digest of the call; empty where none is made."""
    mirrored: tuple[tuple[str, str], ...]
    needed: Needed | None
    pinned: Pinned | None
    """What was approved under the name that is called; nothing where no call is made."""

    def __repr__(self) -> str:
        return f"Examined(jti={self.claims.jti!r}, method={self.message.method!r})"


class Guard(Known):
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
        aws: AwsDoor | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings, SystemClock() if clock is None else clock)
        self._redeemer = redeemer
        self._admission = admission
        self._aws = aws
        self._possession = Possession(settings, self.clock)
        self._uses = Uses(settings.counted_tokens)
        self._clocks = ClockWatch()
        self._started_seconds = self.clock.now_seconds()

    async def verify(self, call: IncomingCall) -> Verified:
        """Verify one request. Nothing is consumed before everything that can be checked without consuming holds.

        Raises:
            Refusal: the answer to give.
        """
        return await self.admit(self.examine(call))

    def examine(self, call: IncomingCall) -> Examined:
        """Check a request. Its proof is used up, its token is not.

        Between this and `admit` whoever embeds a guard does what only it can: looks at the server's tools, now that the
        sender is known, and whether the session is the caller's.

        Raises:
            Refusal: the answer to give.
        """
        try:
            return self._check(call)
        except Refused as refused:
            raise self.refusal(refused) from None

    async def admit(self, examined: Examined) -> Verified:
        """Check that the tool is still what was approved, ask whether the server takes the call, and spend the token.

        Raises:
            Refusal: the answer to give.
        """
        try:
            await self._consume(examined)
        except Refused as refused:
            refused.needed = refused.needed or examined.needed
            raise self.refusal(refused) from None
        next_nonce = self._possession.next_nonce()
        claims, message, body = examined.claims, examined.message, examined.message.body()
        if message.call is not None:
            asked = message.call
            return VerifiedCall(
                claims=claims,
                token=examined.token,
                action=asked.action,
                name=asked.name,
                arguments=asked.arguments,
                call_digest=examined.digest,
                rebuilt_body=body,
                next_nonce=next_nonce,
                mirrored=examined.mirrored,
                aws=self._kept_for(examined, body),
            )
        if message.is_response and message.id is not None:
            return VerifiedResponse(claims, message.id, body, next_nonce)
        return VerifiedListing(claims, message.method, body, next_nonce)

    def _kept_for(self, examined: Examined, body: bytes) -> Kept | None:
        claims, call = examined.claims, examined.message.call
        tool = None if call is None else call.tool

        def check() -> None:
            if self.is_revoked(claims, tool):
                raise ExchangeError(_REVOKED, "stop: nothing more is to be done for this call")

        return None if self._aws is None else self._aws.kept_for(examined.token, body, check)

    async def verify_stream(self, call: IncomingCall) -> VerifiedStream:
        """Verify a request without a body: `GET`, which listens, or `DELETE`, which ends a session.

        (MCP 2025-11-25, transports.) Whether the session is the caller's is for whoever keeps sessions.

        Raises:
            Refusal: the answer to give.
        """
        try:
            if call.method not in ("GET", "DELETE"):
                raise Refused("http_method")
            if call.body:
                raise Refused("message", "a GET or DELETE has no body")
            _, claims = self._possessed(call, self._decidable())
            self._check_listing(claims)
            await self._admit(claims)
        except Refused as refused:
            raise self.refusal(refused) from None
        return VerifiedStream(claims, self._possession.next_nonce())

    def refusal(self, refused: Refused) -> Refusal:
        """The answer to a request that is refused, with the nonce for the next."""
        return Refusal(refused, self.settings, self._possession.next_nonce())

    def _check(self, call: IncomingCall) -> Examined:
        message = self._read(call)
        snapshot = self._decidable()
        mirrored: tuple[tuple[str, str], ...] = ()
        if message.call is not None:
            # Only arguments of tools are mirrored (MCP 2026-07-28, custom headers).
            pinned = snapshot.tools.get(message.call.tool or "")
            input_schema = pinned.definition.get("inputSchema") if pinned is not None else None
            call.check_mirrored_params(input_schema, message.call.arguments)
            mirrored = mirrored_headers(input_schema, message.call.arguments)
        token, claims = self._possessed(call, snapshot)
        if message.call is None:
            self._check_listing(claims)
            _check_lists(message.method, claims, snapshot)
            return Examined(claims, message, token, "", mirrored, Needed.for_listing(), None)
        tool = snapshot.pinned(message.call.action, message.call.name)
        if tool is None:
            raise Refused("tool", "not approved")
        digest, needed = self._check_granted(message.call, claims.detail, tool)
        self.check_revocation(claims, message.call.tool)
        return Examined(claims, message, token, digest, mirrored, needed, tool)

    def _decidable(self) -> Snapshot:
        # While the clocks disagree, no time in a token means what it says.
        if not self._clocks.agree(self.clock.now_seconds(), self.clock.uptime()):
            raise Refused("unavailable", "the clocks disagree")
        return self.current_snapshot()

    def _possessed(self, call: IncomingCall, snapshot: Snapshot) -> tuple[str, ToolCallClaims]:
        """A token of this server's tenant whose sender holds its key."""
        token, claims = self._possession.verify(call, snapshot.keys)
        if claims.tenant != snapshot.tenant:
            raise Refused("token", "of another tenant")
        return token, claims

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

    def _check_listing(self, claims: ToolCallClaims) -> None:
        """A token of level L0, and only such a token, looks without calling."""
        if claims.level is not Level.L0:
            raise Refused("scope", "a token for a call does not list", needed=Needed.for_listing())
        self.check_revocation(claims, None)

    def _check_granted(self, asked: Call, detail: GrantedDetail, tool: Pinned) -> tuple[str, Needed]:
        """Whether the grant is for this call of this tool, as it was approved."""
        needed = Needed.for_call(self.settings, asked, max(tool.least_level, detail.level))
        try:
            _check_target(asked, detail, tool)
            tool.schema.validate(asked.arguments)
            digest = asked.digest()
            _check_binding(asked, detail, digest)
        except Refused as refused:
            refused.needed = needed
            raise
        except SchemaRefused as refused:
            raise Refused("arguments", str(refused), needed=needed) from None
        return digest, needed

    async def _consume(self, examined: Examined) -> None:
        """Everything that says no without being asked to decide; last of all the token is used."""
        claims, asked = examined.claims, examined.message.call
        if asked is not None:
            self.check_live(asked.action, asked.name, examined.pinned)
        await self._admit(claims)
        if claims.level is Level.L3:
            answer = await self._redeemer.redeem(examined.token)
            if answer == "already_used":
                raise Refused("used_up")
            if answer == "revoked":
                raise Refused("revoked")
            if answer != "yes":
                raise Refused("unavailable", "the token cannot be redeemed now")
        elif claims.detail.max_uses is not None:
            self._count_use(claims, claims.detail.max_uses)
        # Since the request was looked at, time has passed: what was pushed meanwhile still counts.
        self.check_revocation(claims, asked.tool if asked is not None else None)

    def _count_use(self, claims: ToolCallClaims, max_uses: int) -> None:
        leeway = self.settings.leeway_seconds
        # What was counted before a restart is forgotten: tokens from then are refused rather than counted anew.
        if claims.iat < self._started_seconds + leeway:
            raise Refused("token", "issued before this guard started")
        remaining = max(0, claims.exp - self.clock.now_seconds()) + 2 * leeway
        self._uses.take(claims.client_id, claims.jti, max_uses, (self.clock.uptime(), remaining))

    async def _admit(self, claims: ToolCallClaims) -> None:
        if self._admission is not None:
            await self._admission.admit(claims)

    def __repr__(self) -> str:
        return f"Guard(resource={self.settings.resource!r})"


def _check_lists(method: str, claims: ToolCallClaims, snapshot: Snapshot) -> None:
    """What a token says of lists is about what is offered now; else it has to be made anew."""
    shown = claims.detail.shown
    if shown is not None and shown.of != snapshot.offers.digest and method in LISTS:
        raise Refused("token", "it says what lists showed of another state of the registry")


def _check_target(asked: Call, detail: GrantedDetail, tool: Pinned) -> None:
    """Method, name, level and definition are those of the grant."""
    if detail.actions != (asked.action,):
        raise Refused("scope", "the token is for another method")
    # A URI is compared as it stands.
    if detail.identifier != asked.name:
        raise Refused("scope", "the token is for another tool, prompt or resource")
    if detail.level < tool.least_level:
        raise Refused("scope", "the tool needs a tighter binding")
    expected = {"tools/call": (tool.digest, None), "prompts/get": (None, tool.digest)}.get(asked.action, (None, None))
    if (detail.tool_digest, detail.prompt_digest) != expected:
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


_REVOKED = BrokerRefused(400, "invalid_request", "what the call stands on was revoked", None)
