"""The app's answer on its way back: screened message by message, within bounds."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from .breaker import Breaker
from .call.claims import ToolCallClaims
from .call.strict_json import serialize
from .events import Event, EventParser, EventsRefused
from .guard import Refused
from .guard.sessions import Caller, Session, Sessions
from .limits import Limits
from .screen import INTERNAL_ERROR, Screen, rpc_error

Message: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Manner: TypeAlias = Literal["waiting", "nothing", "json", "error", "events", "over"]
logger = logging.getLogger("deputize.guard")
_NOTHING_YET = "no_answer"
_SILENCE = frozenset({"server_timeout", "server_down"})


@dataclass
class Answer:
    """What the app says to one request, as far as the client may hear it."""

    screen: Screen
    session: Session | None
    """The session of the request; or, once it has begun, the one that it began."""
    next_nonce: str
    request_id: str
    max_bytes: int
    """The longest message."""
    limits: Limits
    sessions: Sessions
    """Where sessions are kept."""
    begins: bool = False
    """The request begins a session."""
    listens: bool = False
    """The request listens to whatever the server says, and is no call or question itself."""
    ends: bool = False
    """The request ends its session, whatever the server says to that."""
    sent_bytes: int = 0
    is_left: bool = False
    """The client went away before there was a response; the app may have done what was asked."""
    trouble: str = _NOTHING_YET
    """In a word: what was wrong with the answer."""
    _manner: Manner = "waiting"
    has_failed: bool = False
    """The client was told that there is no answer: nothing that comes is of any use."""
    _begun: float = 0.0
    """Uptime at which it began."""
    _start: Message = field(default_factory=dict)
    _held: bytearray = field(default_factory=bytearray)
    _parser: EventParser | None = None
    _is_resumable: bool = False
    _is_answered: bool = False
    _is_open: bool = False
    """Its beginning was sent, its end was not."""

    @property
    def outlives(self) -> bool:
        """Whether it outlives its token: on it the client only hears of news, until that is revoked."""
        return self.listens or self.screen.subscribes

    @property
    def went_well(self) -> bool:
        """Whether the client has the response."""
        return self._is_answered

    async def pass_on(self, message: Message, send: Send) -> list[bytes]:
        """Take in what the app says, and send what of it may be heard.

        Returns:
            Errors that the server is to be told, because it does not get what it asked for.
        """
        errors: list[bytes] = []
        if self._manner == "over":
            return errors
        try:
            if message["type"] == "http.response.start":
                await self._begin(message, send)
            elif message["type"] == "http.response.body":
                piece, more = message.get("body", b""), message.get("more_body", False)
                errors = await self._continue(piece, more, send)
        except (Refused, EventsRefused) as cause:
            refused = cause if isinstance(cause, Refused) else Refused("server_error", str(cause))
            logger.warning("answer not passed on", extra={"reason": str(refused), "request_id": self.request_id})
            self.trouble = refused.reason
            await self._fail(refused, send)
        except OSError:
            # So servers say that the client is gone.
            self.is_left = True
            raise
        return errors

    def tell(self, breaker: Breaker, claims: ToolCallClaims) -> None:
        """What this says of the server's health, as far as its caller is concerned."""
        caller = Caller.of(claims)
        if self.trouble in _SILENCE:
            breaker.silent(caller, self.screen.guard.clock.uptime())
        elif self.trouble != _NOTHING_YET:
            breaker.answered(caller)

    def end(self, *, failed: bool) -> None:
        """The app is done with it."""
        asked, session = self.screen.asked, self.session
        if session is None or asked is None or self._is_answered:
            return
        # A call that nobody waits for may still run: its response comes on another stream.
        if not (self.is_left or (self._is_resumable and not failed)):
            session.take_requested(asked.id)
            if self.begins:
                self.sessions.forget(session)

    def due(self, started: float) -> float:
        """The uptime at which it has taken too long.

        Args:
            started: Uptime at which the app was asked.
        """
        if self._manner == "over":
            return -math.inf if self.has_failed else math.inf
        if self._manner == "events":
            return self._begun + self.limits.stream_seconds
        return (started if self._manner == "waiting" else self._begun) + self.limits.answer_seconds

    def ending(self, started: float) -> Refused | None:
        """Why it is waited for no longer, if it is not.

        A stream ends when what it stands for is revoked: it lasts far longer than a token.
        """
        if self.screen.guard.clock.uptime() >= self.due(started):
            return Refused("server_timeout")
        return self.screen.revoked() if self.outlives or self._manner == "events" else None

    async def give_up(self, cause: Refused, send: Send) -> None:
        """It has taken too long, or what it stands for is revoked."""
        if self._manner == "events" and self.outlives:
            await self.close(send)
        elif self._manner != "over" and (self._manner == "events" or not self._is_open):
            # What was asked may run on: its response comes on another stream.
            self.is_left, self.trouble = True, cause.reason
            logger.warning("answer given up", extra={"reason": str(cause), "request_id": self.request_id})
            await self._fail(cause, send)

    async def close(self, send: Send) -> None:
        """End what is still open: a subscription with the word that there is for it."""
        self._manner = "over"
        if self._is_open:
            self._is_open = False
            owes = self.screen.subscribes and not self._is_answered
            last = Event(self.screen.farewell().decode()).to_bytes() if owes else b""
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def keep_alive(self, send: Send) -> None:
        """Say that a stream is alive, where it is one: whoever stands between closes what is silent for long."""
        if self._manner == "events" and self._is_open:
            await send({"type": "http.response.body", "body": b": alive\n\n", "more_body": True})

    async def _begin(self, message: Message, send: Send) -> None:
        self._start = {**message, "headers": [*message.get("headers", [])]}
        self._begun = self.screen.guard.clock.uptime()
        status = message["status"]
        self.trouble = f"status_{status}"
        if status == 200:
            self._begin_session()
        self._manner = self._manner_of(status)
        if self._manner == "events":
            await self._send_start(send)

    def _manner_of(self, status: int) -> Manner:
        """How an answer goes on. A page, or a redirect to where nobody approved, does not: nobody could look at it."""
        if self.screen.asked is None and not self.listens:
            if not self.ends and status not in (200, 202, 204):
                raise self._no_answer(status)
            self._start["status"] = 204 if self.ends else 202
            return "nothing"
        media = self._header(b"content-type").partition(";")[0].strip().lower()
        if self._header(b"content-encoding").lower() not in ("", "identity"):
            media = "compressed"
        if status == 200 and media == "text/event-stream":
            self._parser = EventParser(self.max_bytes)
            return "events"
        if media == "application/json" and not self.listens:
            if status == 200:
                return "json"
            if status == 400 or (status == 404 and self.session is None):
                return "error"
        raise self._no_answer(status)

    def _no_answer(self, status: int) -> Refused:
        """What a status means that comes with no answer."""
        if self.listens and status in (400, 405):
            return Refused("no_stream", f"status {status}")
        if status in (401, 403):
            return Refused("server_refuses", f"status {status}")
        if status == 404 and self.session is not None:
            # The server forgot it: so does the guard.
            self.sessions.forget(self.session)
            return Refused("session", "the server forgot it")
        if status in (502, 503, 504):
            return Refused("server_down", f"status {status}")
        return Refused("server_error", f"status {status}, or neither JSON nor an event stream")

    def _begin_session(self) -> None:
        session_id = self._header(b"mcp-session-id")
        asked = self.screen.asked
        if not self.begins or not session_id or asked is None:
            return
        self.session = self.sessions.begin(session_id, self.screen.claims)
        self.session.note_requested(asked.id, asked.method, fixed=False)
        self.screen.session = self.session

    def _header(self, name: bytes) -> str:
        values = [value for each, value in self._start["headers"] if each.lower() == name]
        return values[0].decode("latin-1") if values else ""

    async def _continue(self, piece: bytes, more: bool, send: Send) -> list[bytes]:
        errors: list[bytes] = []
        if self._manner == "nothing" and not more:
            await self._send_whole(b"", send)
        elif self._manner in ("json", "error"):
            self._held += piece
            if len(self._held) > self.max_bytes:
                raise Refused("server_too_long")
            if not more:
                await self._send_whole(self._judged(), send)
        elif self._manner == "events":
            errors = await self._pass_events(piece, send)
            if not more and self._manner == "events":
                await self._end_events(send)
        return errors

    def _judged(self) -> bytes:
        """The one message that the answer is."""
        if self._manner == "error":
            error = self.screen.error_of(bytes(self._held))
            if error is None:
                raise self._no_answer(self._start["status"])
            return error
        judged = self.screen.judge(bytes(self._held))
        if judged.verdict != "last":
            raise Refused("server_error", "no response")
        self._is_answered = True
        return judged.text

    async def _pass_events(self, piece: bytes, send: Send) -> list[bytes]:
        errors: list[bytes] = []
        for event in self._parser.push(piece) if self._parser is not None else []:
            cause = self.screen.revoked()
            if cause is not None:
                await self.give_up(cause, send)
                return errors
            session, cursor = self.session, event.id
            if session is None:
                # Nobody could be told whose a cursor is.
                event.id = None
            elif cursor is not None:
                self._is_resumable = True
                session.note_cursor(cursor)
            judged = self.screen.judge(event.data) if event.data else None
            if judged is not None and judged.verdict in ("held", "refused"):
                errors += [judged.text] if judged.text else []
                continue
            if judged is not None:
                event.data = judged.text.decode()
            await self._send_body(event.to_bytes(), True, send)
            if judged is not None and judged.verdict == "last" and not self.listens:
                # On the stream of a request its response is the end.
                self._is_answered = True
                await self.close(send)
                return errors
        return errors

    async def _end_events(self, send: Send) -> None:
        is_owed = self.screen.asked is not None and not self.screen.subscribes
        if is_owed and not self._is_resumable and not self.is_left:
            # Another stream than one that can be resumed owes its response.
            raise Refused("server_error", "a stream without a response")
        await self.close(send)

    async def _fail(self, refused: Refused, send: Send) -> None:
        """Say that the server's answer cannot be had, in whatever way is left."""
        self.has_failed = True
        asked, refusal = self.screen.asked, self.screen.guard.refusal(refused)
        if self._manner == "events" and self._is_open:
            if asked is not None and not self.screen.subscribes:
                error = Event(rpc_error(asked.id, INTERNAL_ERROR, refusal.description).decode())
                await send({"type": "http.response.body", "body": error.to_bytes(), "more_body": True})
            await self.close(send)
        elif self._manner != "over":
            headers = [(name.encode(), value.encode("latin-1")) for name, value in refusal.headers()]
            self._start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
            await self._send_whole(serialize(refusal.body()), send)

    async def _send_whole(self, body: bytes, send: Send) -> None:
        await self._send_start(send, len(body))
        await self._send_body(body, False, send)

    async def _send_body(self, body: bytes, more: bool, send: Send) -> None:
        self.sent_bytes += len(body)
        if self.sent_bytes > max(self.max_bytes, _MAX_STREAM_BYTES):
            raise Refused("server_too_long")
        if not more:
            self._manner, self._is_open = "over", False
        await send({"type": "http.response.body", "body": body, "more_body": more})

    async def _send_start(self, send: Send, length: int | None = None) -> None:
        """The beginning: with the nonce for the next request, and no session id that is not its caller's."""
        headers = [(name, value) for name, value in self._start["headers"] if name.lower() not in _DROPPED]
        said = {"dpop-nonce": self.next_nonce, "x-request-id": self.request_id}
        if length is not None:
            said["content-length"] = str(length)
        if self.session is not None:
            said["mcp-session-id"] = self.session.id
        headers += [(name.encode(), value.encode()) for name, value in said.items()]
        self._is_open = True
        await send({**self._start, "headers": headers})


_DROPPED = frozenset(
    {b"dpop-nonce", b"mcp-session-id", b"x-request-id", b"content-length", b"transfer-encoding", b"connection"}
)
_MAX_STREAM_BYTES = 64 * 1024 * 1024
