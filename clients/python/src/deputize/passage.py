"""One verified request on its way to the app, and what comes back of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from .answer import Answer
from .carried import Headers, carried
from .guard import IncomingCall, VerifiedCall
from .guard.report import Event
from .guard.sessions import Session
from .guard.verified import Verified
from .listing import ask
from .screen import Screen

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

STATE_KEY: Final = "verified_call"
"""Where the call is in `scope["state"]`, and so `request.state.verified_call` in Starlette and FastAPI."""
LISTING_KEY: Final = "verified_listing"
"""Where anything else that was verified is in `scope["state"]`."""
current: Final[ContextVar[VerifiedCall | None]] = ContextVar("deputize_verified_call", default=None)
logger = logging.getLogger("deputize.guard")


@dataclass
class Passage:
    """One request, past every check."""

    app: App
    scope: Scope
    call: IncomingCall
    verified: Verified
    screen: Screen
    answer: Answer
    also_passed: frozenset[str]
    _failed: bool = False
    _is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """The stream is ended from here."""
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, receive: Receive, send: Send) -> None:
        """Have the app serve it."""
        session = self.answer.session
        if session is not None:
            session.under_way += 1
        token = current.set(self.verified if isinstance(self.verified, VerifiedCall) else None)
        try:
            if self.answer.outlives:
                await self._listen(receive, send)
            else:
                await self.app(self._forwarded(), self._receiving(receive), self._sending(send))
        except asyncio.CancelledError:
            # Whoever waited went away; what was asked may run on.
            self._failed = self.answer.is_left = True
            raise
        except BaseException:
            self._failed = True
            raise
        finally:
            current.reset(token)
            self.answer.end(failed=self._failed)
            if session is not None:
                session.under_way -= 1

    def event(self, verified: VerifiedCall) -> Event:
        """What the broker is told of a call."""
        ran = not self._failed and self.answer.went_well
        return Event(
            kind="executed" if ran else "failed",
            txn=verified.claims.txn,
            jti=verified.claims.jti,
            tool=verified.name,
            action=verified.action,
            result_class="ok" if ran else "exception" if self._failed else self.answer.trouble,
            result_bytes=self.answer.sent_bytes,
        )

    async def _listen(self, receive: Receive, send: Send) -> None:
        """A stream of the server's messages: for an hour, or until what it stands for is revoked."""
        clock = self.screen.guard.clock
        until, said = clock.uptime() + _STREAM_SECONDS, clock.uptime()
        serving = asyncio.ensure_future(self.app(self._forwarded(), self._receiving(receive), self._sending(send)))
        try:
            while not serving.done():
                await asyncio.wait({serving}, timeout=_CHECK_SECONDS)
                if clock.uptime() > until or not self.screen.guard.is_good(self.screen.claims):
                    # The app hears that the client is gone, and has a moment to take leave.
                    self._is_over.set()
                    await asyncio.wait({serving}, timeout=_CHECK_SECONDS)
                    break
                if clock.uptime() - said >= _KEEP_ALIVE_SECONDS:
                    said = clock.uptime()
                    await self.answer.keep_alive(send)
            if serving.done():
                await serving
        finally:
            if not serving.done():
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
        await self.answer.close(send)

    def _forwarded(self) -> Scope:
        """As it came, but for headers, query and whatever else nobody verified, and with the call in its state."""
        state = {**self.scope.get("state", {})}
        state.pop(STATE_KEY, None)
        state[STATE_KEY if isinstance(self.verified, VerifiedCall) else LISTING_KEY] = self.verified
        headers: Headers = carried(self.call, self.verified, self.answer.session, self.also_passed)
        headers.append((b"x-request-id", self.answer.request_id.encode()))
        # Other extensions send what is not looked at (files, pushes, trailers).
        extensions = {name: each for name, each in (self.scope.get("extensions") or {}).items() if name == "tls"}
        return {**self.scope, "headers": headers, "query_string": b"", "state": state, "extensions": extensions}

    def _receiving(self, receive: Receive) -> Receive:
        """The body that was verified, once; then whatever else the connection says."""
        body = [self.verified.rebuilt_body]

        async def replay() -> Message:
            if body:
                return {"type": "http.request", "body": body.pop(), "more_body": False}
            over, said = asyncio.ensure_future(self._is_over.wait()), asyncio.ensure_future(receive())
            try:
                await asyncio.wait({over, said}, return_when=asyncio.FIRST_COMPLETED)
                message: Message = said.result() if said.done() else {"type": "http.disconnect"}
            finally:
                for waiting in (over, said):
                    waiting.cancel()
            if message["type"] == "http.disconnect":
                self.answer.is_left = True
            return message

        return replay

    def _sending(self, send: Send) -> Send:
        """The answer, screened."""

        async def answering(message: Message) -> None:
            for error in await self.answer.pass_on(message, send):
                telling = asyncio.ensure_future(self._tell(error))
                self._telling.add(telling)
                telling.add_done_callback(self._telling.discard)

        return answering

    async def _tell(self, error: bytes) -> None:
        """Tell the server that it does not get what it asked for."""
        session: Session | None = self.answer.session
        if session is None:
            return
        kept = (b"host", b"mcp-session-id", b"mcp-protocol-version")
        forwarded = self._forwarded()
        headers = [(name, value) for name, value in forwarded["headers"] if name in kept]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(len(error)).encode())]
        headers.append((b"accept", b"application/json, text/event-stream"))
        with contextlib.suppress(Exception):
            await ask(self.app, {**forwarded, "method": "POST", "headers": headers}, error)
            return
        logger.info("server not told of a refusal")


_STREAM_SECONDS = 3600.0
_CHECK_SECONDS = 1.0
_KEEP_ALIVE_SECONDS = 10.0
