"""Pure ASGI middleware: in front of an MCP server, every request past a guard.

```python
app = ToolCallMiddleware(app, GuardSettings.from_env())
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from .call.claims import DETAIL_TYPE
from .call.strict_json import JsonObject, serialize
from .client import AsyncClient
from .clock import Clock, SystemClock
from .guard import Guard, GuardSettings, IncomingCall, Refusal, Refused, VerifiedCall, VerifiedListing
from .guard.link import BrokerLink
from .guard.report import Event
from .listing import list_tools, only_approved

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Tools: TypeAlias = Callable[[], Awaitable[Iterable[JsonObject]]]
"""Gives the definitions of the server's tools as its `tools/list` would."""

STATE_KEY: Final = "verified_call"
"""Where the call is in `scope["state"]`, and so `request.state.verified_call` in Starlette and FastAPI."""
LISTING_KEY: Final = "verified_listing"
"""Where a request that only looks is in `scope["state"]`."""
logger = logging.getLogger("deputize.guard")
_current: ContextVar[VerifiedCall | None] = ContextVar("deputize_verified_call", default=None)


@dataclass(frozen=True, kw_only=True)
class MiddlewareOptions:
    """What has a good default."""

    tools: Tools | None = None
    """Gives the definitions of the server's tools; by default the app is asked for its `tools/list`."""
    open_paths: tuple[str, ...] = ()
    """Paths that need no token: exactly as they stand, for example `/healthz`, or with all below, as `/docs/`."""
    mcp_path: str | None = None
    """Path of the MCP endpoint in the app; by default that of the public URL."""
    tools_max_age_seconds: float = 5.0
    """How old the last look at the tools may be when a call comes."""
    body_timeout_seconds: float = 30.0
    clock: Clock | None = None
    broker: AsyncClient | None = None
    """Asks the broker as the server's own client; by default one that is made of the settings."""


def current_call() -> VerifiedCall:
    """The call that is running.

    Raises:
        LookupError: where none is.
    """
    call = _current.get()
    if call is None:
        msg = "no verified call is running here"
        raise LookupError(msg)
    return call


class ToolCallMiddleware:
    """Lets through to `app` what was granted, and nothing else.

    A call comes to the app with its body serialized from what was verified, and with the `VerifiedCall` in
    `scope["state"]["verified_call"]` and in `current_call()`. Its token is in the header `Deputize-Call`, for the next
    hop. Protected resource metadata (RFC 9728) is answered at its well-known path. Every other path is not found,
    unless it is said to be open.

    Nonces and counted uses are this process's own: serve with one worker process, or give each its own public URL.
    """

    def __init__(self, app: App, settings: GuardSettings, options: MiddlewareOptions | None = None) -> None:
        self._app = app
        self._settings = settings
        self._options = options or MiddlewareOptions()
        self._clock = self._options.clock or SystemClock()
        self._link = BrokerLink(settings, self._clock, self._options.broker)
        self.guard = Guard(settings, self._link, clock=self._clock)
        self._metadata_path = urlsplit(settings.resource_metadata).path
        self._mcp_path = self._options.mcp_path or urlsplit(settings.public_url).path
        self._following: asyncio.Task[None] | None = None
        self._looking = asyncio.Lock()
        self._looked: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, self._with_lifespan(receive), send)
        elif scope["type"] == "http" and scope["path"] == self._metadata_path:
            await self._serve_metadata(scope, send)
        elif scope["type"] == "http" and self.is_endpoint(scope):
            # INVARIANT: first. Whatever is said to be open, the endpoint is not: `/` would open everything.
            await self._serve(scope, receive, send)
        elif self._is_open(scope["path"]) and not self.is_endpoint(scope):
            await self._app(without_claims(scope), receive, send)
        elif scope["type"] == "http":
            # What is neither the endpoint nor said to be open is no business of anybody's.
            await _answer(send, 404, [], b"")
        else:
            # No token is for a web socket. (Closed before it is accepted: the server answers 403.)
            await send({"type": "websocket.close", "code": 1008})

    def is_endpoint(self, scope: Scope) -> bool:
        """Whether a request is to the MCP endpoint."""
        return str(scope["path"]).rstrip("/") == self._mcp_path.rstrip("/")

    def start(self) -> None:
        """Begin to follow the broker; the first request does it too. It needs a running event loop."""
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._link.run(self.guard))

    async def stop(self) -> None:
        """Stop following the broker."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        await self._link.aclose()

    async def wait_until_connected(self) -> None:
        """Wait until the first snapshot was taken."""
        self.start()
        await self._link.connected.wait()

    def _is_open(self, path: str) -> bool:
        return any(path == each or (each.endswith("/") and path.startswith(each)) for each in self._options.open_paths)

    def _with_lifespan(self, receive: Receive) -> Receive:
        async def receiving() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.start()
            elif message["type"] == "lifespan.shutdown":
                await self.stop()
            return message

        return receiving

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.start()
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        try:
            call = IncomingCall(scope["method"], headers, await self._read(call_headers=headers, receive=receive))
            await self._look(scope)
            verified = await self.guard.verify(call)
        except Refusal as refusal:
            logger.info("call refused", extra={"reason": str(refusal.cause), "status": refusal.status})
            await _answer(send, refusal.status, refusal.headers(), serialize(refusal.body()))
            return
        await self._forward(_Forwarding(self.guard, scope, verified), receive, send)

    async def _read(self, call_headers: tuple[tuple[str, str], ...], receive: Receive) -> bytes:
        """The whole body, as long as it may be and no longer."""
        limit = self._settings.max_body_bytes
        length = next((value for name, value in call_headers if name == "content-length"), "0")
        if not (length.isascii() and length.isdigit()) or len(length) > _MAX_LENGTH_DIGITS or int(length) > limit:
            raise self.guard.refusal(Refused("too_large"))
        body = bytearray()
        until = self._clock.uptime() + self._options.body_timeout_seconds
        try:
            more = True
            while more:
                message = await asyncio.wait_for(receive(), max(0.001, until - self._clock.uptime()))
                if message["type"] != "http.request":
                    raise self.guard.refusal(Refused("too_slow", "the sender went away"))
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > limit:
                    raise self.guard.refusal(Refused("too_large"))
        except asyncio.TimeoutError:
            raise self.guard.refusal(Refused("too_slow")) from None
        return bytes(body)

    async def _look(self, scope: Scope) -> None:
        """Look at the server's tools, where the last look is too old. Whoever comes meanwhile waits for it."""
        async with self._looking:
            now: float | None = self._clock.uptime()
            if self._looked is not None and self._clock.uptime() - self._looked <= self._options.tools_max_age_seconds:
                return
            tools = self._options.tools
            try:
                definitions = await (list_tools(self._app, scope) if tools is None else tools())
            except Exception:
                logger.exception("the server's tools cannot be listed")
                # Nothing can be called; whoever comes next looks again.
                definitions, now = [], None
            self._looked = now
            before = self.guard.observed
            observed = self.guard.observe_tools(definitions)
            if observed != before:
                self._report_look(observed.drifted, observed.unknown, is_first=before is None)

    def _report_look(self, drifted: tuple[str, ...], unknown: tuple[str, ...], *, is_first: bool) -> None:
        self._link.report(Event(kind="discovered" if is_first else "list_changed"))
        for name in drifted:
            logger.warning("tool is not what was approved", extra={"tool": name})
            self._link.report(Event(kind="drifted", tool=name))
        for name in unknown:
            logger.warning("tool was never approved", extra={"tool": name})

    async def _forward(self, forwarding: _Forwarding, receive: Receive, send: Send) -> None:
        """Run the app on what was verified."""
        verified = forwarding.verified
        token = _current.set(verified if isinstance(verified, VerifiedCall) else None)
        try:
            await self._app(forwarding.scope(), forwarding.receiving(receive), forwarding.sending(send))
        except BaseException:
            forwarding.failed = True
            raise
        finally:
            _current.reset(token)
            if isinstance(verified, VerifiedCall):
                self._link.report(forwarding.event(verified))

    async def _serve_metadata(self, scope: Scope, send: Send) -> None:
        """RFC 9728 §3.2: where a client without a token learns whom to ask for one."""
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, [("allow", "GET")], b"")
            return
        await _answer(send, 200, [("content-type", "application/json")], serialize(metadata(self._settings)))


class _Forwarding:
    """One verified request on its way to the app, and the answer on its way back."""

    def __init__(self, guard: Guard, scope: Scope, verified: VerifiedCall | VerifiedListing) -> None:
        self.verified = verified
        self.failed = False
        self._is_list = isinstance(verified, VerifiedListing) and verified.method == "tools/list"
        self._guard = guard
        self._scope = scope
        self._status = 0
        self._bytes = 0
        self._start: Message | None = None
        self._held = bytearray()

    def scope(self) -> Scope:
        """As it came, but for the headers that were regenerated, and with the call in its state."""
        headers = [(name, value) for name, value in self._scope["headers"] if not _is_replaced(name)]
        if self._is_list:
            # What is filtered must not be compressed.
            headers = [(name, value) for name, value in headers if name != b"accept-encoding"]
        headers += [(name.encode(), value.encode("latin-1")) for name, value in self.verified.forwarded_headers()]
        headers.append((b"content-length", str(len(self.verified.rebuilt_body)).encode()))
        state = {**self._scope.get("state", {})}
        state.pop(STATE_KEY, None)
        state[STATE_KEY if isinstance(self.verified, VerifiedCall) else LISTING_KEY] = self.verified
        return {**self._scope, "headers": headers, "state": state}

    def receiving(self, receive: Receive) -> Receive:
        """The body that was verified, once; then whatever else the connection says."""
        body = [self.verified.rebuilt_body]

        async def replay() -> Message:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            return await receive()

        return replay

    def sending(self, send: Send) -> Send:
        """The answer, with the nonce for the next request, and lists filtered to what was approved."""

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                message = {**message, "headers": [*message.get("headers", []), *self._headers(message)]}
                if self._is_list:
                    self._start = message
                    return
            elif message["type"] == "http.response.body":
                self._bytes += len(message.get("body", b""))
                if self._is_list:
                    await self._hold(message, send)
                    return
            await send(message)

        return answering

    def event(self, verified: VerifiedCall) -> Event:
        """What the broker is told of the call."""
        ran = not self.failed and self._status < 400
        return Event(
            kind="executed" if ran else "failed",
            txn=verified.claims.txn,
            jti=verified.claims.jti,
            tool=verified.tool,
            result_class="ok" if ran else "exception" if self.failed else f"status_{self._status}",
            result_bytes=self._bytes,
        )

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        for name, value in message.get("headers", []):
            if name.lower() == b"mcp-session-id":
                self._guard.begin_session(value.decode("latin-1"), self.verified)
        return [(b"dpop-nonce", self.verified.next_nonce.encode())]

    async def _hold(self, message: Message, send: Send) -> None:
        """A list is sent when it is whole, with nothing in it that was not approved."""
        self._held += message.get("body", b"")
        if len(self._held) > _MAX_LIST_BYTES:
            raise RuntimeError("the server's tools/list is too long")
        if message.get("more_body", False) or self._start is None:
            return
        headers = {name.lower(): value for name, value in self._start["headers"]}
        body = bytes(self._held)
        if self._status == 200:
            content_type = headers.get(b"content-type", b"").decode("latin-1")
            body = only_approved(content_type, body, self._guard.approved_tools())
        kept = [(name, value) for name, value in self._start["headers"] if name.lower() != b"content-length"]
        kept.append((b"content-length", str(len(body)).encode()))
        await send({**self._start, "headers": kept})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def metadata(settings: GuardSettings) -> JsonObject:
    """Protected resource metadata (RFC 9728 §2)."""
    return {
        "resource": settings.resource,
        "authorization_servers": [settings.issuer],
        "dpop_bound_access_tokens_required": True,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "authorization_details_types_supported": [DETAIL_TYPE],
    }


def without_claims(scope: Scope) -> Scope:
    """A request without the headers that only a guard may say, for where none stands."""
    headers = [(name, value) for name, value in scope["headers"] if not name.lower().startswith(_CLAIMS)]
    return {**scope, "headers": headers}


async def _answer(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _is_replaced(name: bytes) -> bool:
    """Credentials, what is regenerated, and what only a guard may say."""
    lower = name.lower()
    return lower in _REPLACED or lower.startswith(_CLAIMS)


_CLAIMS = b"deputize-"
_REPLACED = {
    b"authorization",
    b"dpop",
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"transfer-encoding",
    b"mcp-method",
    b"mcp-name",
}
_MAX_LENGTH_DIGITS = 12
_MAX_LIST_BYTES = 16 * 1024 * 1024

__all__ = [
    "LISTING_KEY",
    "STATE_KEY",
    "MiddlewareOptions",
    "ToolCallMiddleware",
    "current_call",
    "metadata",
    "without_claims",
]
