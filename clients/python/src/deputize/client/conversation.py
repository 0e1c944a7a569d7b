"""What a client says to the broker and makes of the answers; both clients drive it, and do the I/O."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from deputize.aws.credentials import AwsCredentials
from deputize.call.dpop import NewProof, prove
from deputize.call.keys import SigningKey
from deputize.call.strict_json import JsonObject
from deputize.clock import Clock, SystemClock
from deputize.errors import (
    ApprovalPendingError,
    ConfigurationError,
    ExchangeError,
    ProtocolError,
    RetryLaterError,
    ToolChangedError,
)
from deputize.urls import is_safe_url

from .answer import Received, Redemption, read_redemption, read_refusal, read_token
from .aws import AwsRequest, read_credentials
from .cache import TokenCache
from .metadata import Endpoints, metadata_url, read_endpoints
from .request import MAX_WAIT_SECONDS, ExchangeRequest
from .sealed import DecryptionKey
from .token import ToolToken

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class Outgoing:
    """A request to the broker."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    wait_seconds: int = 0
    """How much longer than usual the answer may take."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is to be sent for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Pending:
    """A person has to decide first: whoever waits is to be told."""

    error: ApprovalPendingError


Step: TypeAlias = Outgoing | Pause | Pending
Conversation: TypeAlias = Generator[Step, Any, T]
"""Steps out, the answers (`Received`) to what was sent in, and a result in the end."""


@dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """What has a good default."""

    dpop_key: SigningKey | None = None
    """The key of its proofs; by default a fresh one that dies with the client."""
    timeout_seconds: float = 10.0
    cache_capacity: int = 1_000
    """How many tokens are cached; 0 for none."""
    encryption_key: DecryptionKey | None = None
    """What AWS credentials are sealed to: the private half of this client's key with `use: enc` at the broker. Where it
    is given, credentials that are not sealed are refused."""
    clock: Clock = field(default_factory=SystemClock)


class Broker:
    """A client's side of its conversations with one broker. Share it: it holds the last nonce and the cache."""

    def __init__(self, issuer: str, client_id: str, private_key: SigningKey, options: ClientOptions) -> None:
        if not is_safe_url(issuer):
            raise ConfigurationError("the issuer is not an https URL", "give its address (http is for loopback alone)")
        self.issuer = issuer
        self.client_id = client_id
        self.clock = options.clock
        self._private_key = private_key
        self._dpop_key = options.dpop_key or SigningKey.generate()
        self._encryption_key = options.encryption_key
        self._cache = TokenCache(options.cache_capacity)
        self._endpoints: Endpoints | None = None
        self._nonce: str | None = None

    def exchange(self, request: ExchangeRequest) -> Conversation[ToolToken]:
        """Exchange for a token, or take one from the cache where the same was asked before and the level allows it."""
        asked, uptime = request.cache_key(), self.clock.uptime()
        token = self._cache.take(asked, uptime) if request.may_be_cached else None
        if token is None:
            endpoints = yield from self._discover()
            token = read_token((yield from self._post_with_proof(endpoints.token, request)))
            if request.may_be_cached:
                self._cache.keep(asked, token, uptime)
        if request.live_tool_digest is not None and token.tool_digest != request.live_tool_digest:
            self._cache.forget(token.access_token)
            live = request.live_tool_digest or None
            raise ToolChangedError(request.tool or "", live, token.tool_digest, token.decision_id)
        return token

    def exchange_and_wait(self, request: ExchangeRequest) -> Conversation[ToolToken]:
        """As `exchange`; where a person has to decide first, say so and come back until they have."""
        try:
            return (yield from self.exchange(request))
        except ApprovalPendingError as error:
            pending = error
        yield Pending(pending)
        # The broker may hold its answer back.
        request = replace(request, approval_id=pending.approval_id, wait_seconds=_HELD_BACK_SECONDS)
        until = self.clock.uptime() + pending.expires_in_seconds
        seconds: float = 0
        while True:
            yield Pause(seconds)
            try:
                return (yield from self.exchange(request))
            except ExchangeError as refused:
                is_waiting = isinstance(refused, ApprovalPendingError | RetryLaterError)
                is_slower = refused.error == "slow_down"
                if self.clock.uptime() >= until or not (is_waiting or is_slower):
                    raise
                seconds = max(1, pending.interval_seconds) + (_SLOW_DOWN_SECONDS if is_slower else 0)

    def introspect(self, token: str) -> Conversation[JsonObject]:
        """Ask the broker about a token (RFC 7662); `active` says whether it is good now."""
        endpoints = yield from self._discover()
        received = yield from self._post_token(endpoints.introspection, token)
        if received.status != 200:
            raise read_refusal(received)
        members = received.members()
        if not isinstance(members.get("active"), bool):
            raise ProtocolError("the introspection response lacks active")
        return members

    def revoke(self, token: str) -> Conversation[None]:
        """Revoke a token (RFC 7009), and with it what was made from it."""
        self._cache.forget(token)
        endpoints = yield from self._discover()
        received = yield from self._post_token(endpoints.revocation, token)
        if received.status != 200:
            raise read_refusal(received)

    def redeem(self, token: str) -> Conversation[Redemption]:
        """Redeem an L3 token, as the guard of its audience."""
        endpoints = yield from self._discover()
        return read_redemption((yield from self._post_token(endpoints.redemption, token)))

    def aws_credentials(self, request: AwsRequest) -> Conversation[AwsCredentials]:
        """Ask for AWS credentials for the one call of a token, as the server that it is for."""
        url = f"{self.issuer.rstrip('/')}/aws/credentials"
        headers = {**_FORM_HEADERS, "accept": "application/json, application/jose"}
        received: Received = yield Outgoing("POST", url, headers, self._authenticated(request.form()))
        return read_credentials(received, self._encryption_key)

    def forget(self, token: ToolToken) -> None:
        """Take a token out of the cache, for example because a server no longer accepts it."""
        self._cache.forget(token.access_token)

    def proof_for(self, method: str, url: str, access_token: str | None = None, nonce: str | None = None) -> str:
        """A proof for one request (RFC 9449 §4.2). `nonce` is the last that this server gave."""
        clock = self.clock
        proof = NewProof(method, url, clock.unique_id(), clock.now_seconds(), nonce, access_token)
        return prove(self._dpop_key, proof)

    def assertion(self) -> str:
        """A client assertion (RFC 7523 §2.2), good for one request within a minute."""
        now = self.clock.now_seconds()
        claims: JsonObject = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "jti": self.clock.unique_id(),
            "iat": now,
            "exp": now + _ASSERTION_SECONDS,
        }
        return self._private_key.sign("client-authentication+jwt", claims)

    def _discover(self) -> Conversation[Endpoints]:
        if self._endpoints is None:
            received: Received = yield Outgoing("GET", metadata_url(self.issuer))
            self._endpoints = read_endpoints(received, self.issuer)
        return self._endpoints

    def _post_with_proof(self, url: str, request: ExchangeRequest) -> Conversation[Received]:
        body = self._authenticated(request.form())
        wait = min(request.wait_seconds or 0, MAX_WAIT_SECONDS)
        # RFC 9449 §8: once more, with the nonce. A challenge consumed nothing, so the assertion is still good.
        for attempt in ("first", "with the nonce"):
            headers = {**_FORM_HEADERS, "dpop": self.proof_for("POST", url, nonce=self._nonce)}
            if wait:
                headers["prefer"] = f"wait={wait}"
            received: Received = yield Outgoing("POST", url, headers, body, wait)
            # RFC 9449 §8.2: any answer may bring the nonce for the next request.
            self._nonce = received.headers.get("dpop-nonce", self._nonce)
            if attempt != "first" or not received.needs_nonce:
                break
        return received

    def _post_token(self, url: str, token: str) -> Conversation[Received]:
        received: Received = yield Outgoing("POST", url, dict(_FORM_HEADERS), self._authenticated([("token", token)]))
        return received

    def _authenticated(self, form: list[tuple[str, str]]) -> bytes:
        proof = [
            ("client_id", self.client_id),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", self.assertion()),
        ]
        return urlencode(form + proof).encode()

    def __repr__(self) -> str:
        return f"Broker(issuer={self.issuer!r}, client_id={self.client_id!r})"


_FORM_HEADERS = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
_ASSERTION_SECONDS = 60
_HELD_BACK_SECONDS = 30
# RFC 8628 §3.5.
_SLOW_DOWN_SECONDS = 5
