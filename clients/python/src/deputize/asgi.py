"""Pure ASGI middleware: in front of an MCP server, every request past a guard.

```python
app = ToolCallMiddleware(app, GuardSettings.from_env())
```
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias
from urllib.parse import quote, urlsplit

from .answer import Answer
from .aws.door import BrokerDoor
from .breaker import Breaker
from .call.claims import DETAIL_TYPE, Level
from .call.strict_json import JsonObject, serialize
from .carried import check_passed, session_id_of, without_claims, words_of
from .certificates import of_connection, of_header
from .client import AsyncClient, Client
from .clock import Clock, SystemClock
from .guard import Examined, Guard, GuardSettings, IncomingCall, Refusal, Refused, VerifiedCall
from .guard.link import BrokerLink
from .guard.sessions import Caller, Session, Sessions
from .guard.verified import Verified
from .limits import Limits, Meter, UnderWay, counted_as
from .listing import Lister
from .passage import LISTING_KEY, STATE_KEY, App, Message, Passage, Receive, Scope, Send, current
from .screen import Asked, Screen
from .watch import Watch

Tools: TypeAlias = Callable[[], Awaitable[Iterable[JsonObject]]]
"""Gives the definitions of the server's tools as its `tools/list` would."""
logger = logging.getLogger("deputize.guard")


@dataclass(frozen=True, kw_only=True)
class MiddlewareOptions:
    """What has a good default."""

    tools: Tools | None = None
    """Gives the definitions of the server's tools; by default the app is asked for its `tools/list`."""
    prompts: Tools | None = None
    """As `tools`, for its prompts; they are looked at where any are approved."""
    open_paths: tuple[str, ...] = ()
    """Paths that need no token: exactly as they stand, for example `/healthz`, or with all below, as `/docs/`."""
    mcp_path: str | None = None
    """Path of the MCP endpoint exactly as the app has it; by default that of the public URL."""
    mcp_host: str | None = None
    """The `Host` with which the app is asked for its tools; by default that of the public URL. To be said where the app
    checks it and a proxy in front rewrites it."""
    tools_max_age_seconds: float = 5.0
    """How old the last look at the tools may be when a call comes. One that failed is repeated after a second."""
    limits: Limits = field(default_factory=Limits)
    """How much each caller may, and how long the app may take."""
    body_timeout_seconds: float = 30.0
    max_result_bytes: int = 8 * 1024 * 1024
    """The longest message of the server."""
    passed_headers: tuple[str, ...] = ()
    """Header fields that reach the app as they came, because a proxy in front sets them. By default neither cookies nor
    forwarding headers do."""
    client_certificate_header: str | None = None
    """The header in which a proxy in front says the client's certificate (RFC 9440, or percent-encoded PEM), for tokens
    that are bound to one. The proxy must be the only way here, and take out what clients send in it."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of web pages that may call, besides the endpoint's own."""
    clock: Clock | None = None
    broker: AsyncClient | None = None
    """Asks the broker as the server's own client; by default one that is made of the settings."""
    aws_broker: Client | None = None
    """As `broker`, for AWS credentials, which tools ask for in threads of their own. Give both, or neither."""


def current_call() -> VerifiedCall:
    """The call that is running.

    Raises:
        LookupError: where none is.
    """
    call = current.get()
    if call is None:
        msg = "no verified call is running here"
        raise LookupError(msg)
    return call


class ToolCallMiddleware:
    """Lets through to `app` what was granted, and nothing else.

    A call comes to the app with its body serialized from what was verified, and with the `VerifiedCall` in
    `scope["state"]["verified_call"]` and in `current_call()`. Its token is in the header `Deputize-Call`, for the next
    hop. Sessions of MCP up to 2025-11-25 are their caller's alone. Protected resource metadata (RFC 9728) is answered
    at its well-known path. Every other path is not found, unless it is said to be open.

    Nonces and counted uses are this process's own: serve with one worker process, or give each its own public URL.
    """

    def __init__(self, app: App, settings: GuardSettings, options: MiddlewareOptions | None = None) -> None:
        self._app = app
        self._settings = settings
        self._options = options or MiddlewareOptions()
        self._clock = self._options.clock or SystemClock()
        self._link = BrokerLink(settings, self._clock, self._options.broker)
        self._aws = BrokerDoor(
            settings, self._clock, self._options.aws_broker, may_make_one=self._options.broker is None
        )
        self.guard = Guard(settings, self._link, aws=self._aws, clock=self._clock)
        self._metadata_path = urlsplit(settings.resource_metadata).path
        public = urlsplit(settings.public_url)
        self._mcp_path = self._options.mcp_path or public.path
        self._origins = {f"{public.scheme}://{public.netloc}", *self._options.allowed_origins}
        self._also_passed = check_passed(self._options.passed_headers)
        self._sessions = Sessions(self._clock)
        self._watch = Watch(self.guard, self._link, Lister(app), self._options)
        self._meter = Meter(self._options.limits)
        self._breaker = Breaker()
        self._following: asyncio.Task[None] | None = None

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
            await self._app({**scope, "headers": without_claims(scope["headers"])}, receive, send)
        elif scope["type"] == "http":
            # What is neither the endpoint nor said to be open is no business of anybody's.
            await _answer(send, 404, [], b"")
        else:
            # No token is for a web socket. (Closed before it is accepted: the server answers 403.)
            await send({"type": "websocket.close", "code": 1008})

    def is_endpoint(self, scope: Scope) -> bool:
        """Whether a request is to the MCP endpoint."""
        return str(scope["path"]).rstrip("/") == self.endpoint(scope).rstrip("/")

    def endpoint(self, scope: Scope) -> str:  # noqa: ARG002
        """Path of the MCP endpoint, for the app that a request came to."""
        return self._mcp_path

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
        self._aws.close()

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
        request_id = self._clock.unique_id()
        call = IncomingCall(scope["method"], headers, b"")
        try:
            self._check_origin(headers)
            call = replace(call, body=await self._read(call_headers=headers, receive=receive))
            call = replace(call, client_certificate=self._certificate(scope, call))
            if call.method in ("GET", "DELETE"):
                passage = await self._stream(scope, call, request_id)
            else:
                passage = await self._prepare(scope, call, request_id)
        except (Refusal, Refused) as cause:
            refusal = self.guard.refusal(cause) if isinstance(cause, Refused) else cause
            status, answer = words_of(refusal, call)
            about = {"reason": str(refusal.cause), "status": status, "request_id": request_id}
            logger.info("call refused", extra=about)
            # What is said in the protocol's own words challenges nobody.
            dropped = "www-authenticate" if "jsonrpc" in answer else ""
            said = [field for field in refusal.headers() if field[0] != dropped]
            await _answer(send, status, [*said, ("x-request-id", request_id)], serialize(answer))
            return
        await self._run(passage, receive, send)

    async def _prepare(self, scope: Scope, call: IncomingCall, request_id: str) -> Passage:
        """The tools as they are now, session, and last of all the token."""
        examined = self.guard.examine(call)
        session = self._session_of(call, examined)
        # Before the token is spent, and before the server has any work with it: what is over a limit loses nothing.
        self._meter.count(examined.claims.sub, counted_as(examined.message), self._clock.uptime())
        self._breaker.check(Caller.of(examined.claims), self._clock.uptime())
        under_way = self._meter.enter(Caller.of(examined.claims))
        try:
            # INVARIANT: after the token was verified. Who has none cannot make the server work, nor hold up another.
            await self._watch.observe(self._own_scope(scope))
            verified, asked = await self._admitted(session, examined)
        except BaseException:
            under_way.leave()
            raise
        begins = asked is not None and asked.method == "initialize"
        screen = Screen(self.guard, verified.claims, asked, session, self._watch.look_again)
        answer = self._answer_to(verified, screen, request_id)
        answer.begins = begins
        return Passage(self._app, scope, call, verified, screen, answer, self._also_passed, under_way)

    def _session_of(self, call: IncomingCall, examined: Examined) -> Session | None:
        """The caller's session, where the request is of one."""
        session_id = session_id_of(call, examined.message)
        if examined.message.method == "initialize":
            self._sessions.check_room(examined.claims)
            return None
        return None if session_id is None else self._sessions.find(session_id, examined.claims)

    async def _admitted(self, session: Session | None, examined: Examined) -> tuple[Verified, Asked | None]:
        """What may run, and what is asked with it."""
        asked = self._note(session, examined)
        try:
            verified = await self.guard.admit(examined)
        except BaseException:
            if session is not None and asked is not None:
                session.take_requested(asked.id)
            raise
        if examined.message.is_response:
            self._take_asked(session, examined)
        return verified, asked

    def _note(self, session: Session | None, examined: Examined) -> Asked | None:
        """What is asked, noted in its session."""
        message, claims = examined.message, examined.claims
        if message.id is None or message.is_response:
            return None
        asked = Asked(message.id, message.method, None if message.call is None else message.call.tool)
        if session is not None:
            is_fixed = message.call is not None and claims.level >= Level.L2
            session.note_requested(asked.id, asked.method, fixed=is_fixed)
        return asked

    def _take_asked(self, session: Session | None, examined: Examined) -> None:
        """A response that may go goes only to what the server asked in this session, once."""
        if session is None:
            raise Refused("no_session")
        if examined.message.id is not None:
            session.take_asked(examined.message.id)

    async def _stream(self, scope: Scope, call: IncomingCall, request_id: str) -> Passage:
        """`GET` listens to the server's messages in a session, `DELETE` ends it (MCP up to 2025-11-25)."""
        verified = await self.guard.verify_stream(call)
        session_id = session_id_of(call, None)
        # Without a session there is nothing to listen to: none that is bound to its caller.
        if session_id is None:
            raise Refused("no_stream")
        session = self._sessions.find(session_id, verified.claims)
        under_way: UnderWay | None = None
        if call.method == "DELETE":
            self._sessions.forget(session)
        else:
            cursor = call.single("last-event-id")
            # INVARIANT: a cursor resumes only a stream of its own session; any other is as one that never was.
            if cursor is not None and not session.knows_cursor(cursor):
                raise Refused("session", "another's cursor")
            self._meter.count(verified.claims.sub, call.method, self._clock.uptime())
            under_way = self._meter.enter(session.owner.caller)
        screen = Screen(self.guard, verified.claims, None, session, self._watch.look_again)
        answer = self._answer_to(verified, screen, request_id)
        answer.listens, answer.ends = call.method == "GET", call.method == "DELETE"
        return Passage(self._app, scope, call, verified, screen, answer, self._also_passed, under_way)

    def _answer_to(self, verified: Verified, screen: Screen, request_id: str) -> Answer:
        return Answer(
            screen=screen,
            session=screen.session,
            next_nonce=verified.next_nonce,
            request_id=request_id,
            max_bytes=self._options.max_result_bytes,
            limits=self._options.limits,
            sessions=self._sessions,
        )

    async def _run(self, passage: Passage, receive: Receive, send: Send) -> None:
        try:
            await passage.run(receive, send)
        finally:
            passage.answer.tell(self._breaker, passage.verified.claims)
            if isinstance(passage.verified, VerifiedCall):
                self._link.report(passage.event(passage.verified))

    def _check_origin(self, headers: tuple[tuple[str, str], ...]) -> None:
        """MCP, transports, security: a page of another origin may not call, whatever name it found this under."""
        if any(name == "origin" and value not in self._origins for name, value in headers):
            raise Refused("origin")

    def _certificate(self, scope: Scope, call: IncomingCall) -> str | None:
        header = self._options.client_certificate_header
        return of_connection(scope) if header is None else of_header(call, header.lower())

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

    def _own_scope(self, scope: Scope) -> Scope:
        """Where the guard itself asks the server: the endpoint as it is configured, whatever a request says."""
        path = self.endpoint(scope) or "/"
        host = self._options.mcp_host or urlsplit(self._settings.public_url).netloc
        headers = [(b"host", host.encode())]
        return {**scope, "path": path, "raw_path": quote(path).encode(), "headers": headers, "extensions": {}}

    async def _serve_metadata(self, scope: Scope, send: Send) -> None:
        """RFC 9728 §3.2: where a client without a token learns whom to ask for one."""
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, [("allow", "GET")], b"")
            return
        await _answer(send, 200, [("content-type", "application/json")], serialize(metadata(self._settings)))


def metadata(settings: GuardSettings) -> JsonObject:
    """Protected resource metadata (RFC 9728 §2)."""
    return {
        "resource": settings.resource,
        "authorization_servers": [settings.issuer],
        "dpop_bound_access_tokens_required": True,
        "dpop_signing_alg_values_supported": ["ES256", "EdDSA"],
        "authorization_details_types_supported": [DETAIL_TYPE],
    }


async def _answer(send: Send, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    encoded.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


_MAX_LENGTH_DIGITS = 12

__all__ = [
    "LISTING_KEY",
    "STATE_KEY",
    "Limits",
    "MiddlewareOptions",
    "ToolCallMiddleware",
    "current_call",
    "metadata",
]
