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
from .guard import IncomingCall, Refused, VerifiedCall
from .guard.report import Event
from .guard.sessions import Session
from .guard.verified import Verified
from .limits import UnderWay
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
    under_way: UnderWay | None
    """Counted for its caller, until it is done."""
    _failed: bool = False
    _is_over: asyncio.Event = field(default_factory=asyncio.Event)
    """The stream is ended from here."""
    _telling: set[asyncio.Task[None]] = field(default_factory=set)
    _serving: asyncio.Future[None] | None = None
    """The app at work on it."""

    async def run(self, receive: Receive, send: Send) -> None:
        """Have the app serve it."""
        session = self.answer.session
        if session is not None:
            session.under_way += 1
        token = current.set(self.verified if isinstance(self.verified, VerifiedCall) else None)
        try:
            await self._serve(receive, send)
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
            self._leave()
            if session is not None:
                session.under_way -= 1

    def _leave(self) -> None:
        # INVARIANT: what was given up and still runs is counted still. Else the work of one caller has no bound.
        if self.under_way is None:
            return
        if self._serving is None or self._serving.done():
            self.under_way.leave()
        else:
            under_way = self.under_way
            self._serving.add_done_callback(lambda _: under_way.leave())

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

    async def _serve(self, receive: Receive, send: Send) -> None:
        """Have the app serve it, as long as it may take, or until what a stream stands for is revoked."""
        clock = self.screen.guard.clock
        started = said = clock.uptime()
        serving = asyncio.ensure_future(self.app(self._forwarded(), self._receiving(receive), self._sending(send)))
        self._serving = serving
        serving.add_done_callback(_settle)
        try:
            while not serving.done():
                remaining = self.answer.due(started) - clock.uptime()
                await asyncio.wait({serving}, timeout=min(_CHECK_SECONDS, max(_SHORTEST_CHECK_SECONDS, remaining)))
                if serving.done():
                    break
                cause = self.answer.ending(started)
                if cause is not None:
                    await self._end(serving, cause, send)
                    break
                if clock.uptime() - said >= _KEEP_ALIVE_SECONDS:
                    said = clock.uptime()
                    await self.answer.keep_alive(send)
            if serving.done() and not self._is_over.is_set():
                await serving
        finally:
            if not serving.done():
                # Whatever it makes of that: nobody waits for it for long.
                serving.cancel()
                await asyncio.wait({serving}, timeout=_CHECK_SECONDS)
        if self.answer.outlives:
            await self.answer.close(send)

    async def _end(self, serving: asyncio.Future[None], cause: Refused, send: Send) -> None:
        """The client has its answer; the app hears that nobody waits any more, and has a moment to take leave."""
        if not self.answer.outlives:
            await self.answer.give_up(cause, send)
        self._is_over.set()
        await asyncio.wait({serving}, timeout=_CHECK_SECONDS)
        if self.answer.outlives:
            await self.answer.give_up(cause, send)

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


def _settle(serving: asyncio.Future[None]) -> None:
    """What an app that was given up says last is for nobody."""
    if not serving.cancelled():
        serving.exception()


_CHECK_SECONDS = 1.0
_SHORTEST_CHECK_SECONDS = 0.01
_KEEP_ALIVE_SECONDS = 10.0
