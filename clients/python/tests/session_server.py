"""An MCP server with sessions (2025-11-25) that says what a test wants, and an agent that speaks to it past a guard."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deputize.asgi import MiddlewareOptions, ToolCallMiddleware
from deputize.call.keys import SigningKey
from guard_broker import GuardBroker, until
from guard_fixture import PROMPTS, Fixture, call, definitions, l0, listing
from wire import Wire

VERSION = "2025-11-25"


@dataclass
class Stream:
    """An answer in the making: events as they are said."""

    send: Any
    message: Any
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, message: Any, cursor: str | None = None) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        lines = ("" if cursor is None else f"id: {cursor}\n") + f"data: {text}\n\n"
        await self.send({"type": "http.response.body", "body": lines.encode(), "more_body": True})

    async def answer(self, result: Any, cursor: str | None = None) -> None:
        await self.say({"jsonrpc": "2.0", "id": self.message["id"], "result": result}, cursor)


Serve = Callable[[Stream], Awaitable[None]]


class SessionServer:
    """Answers `initialize` with a session; of the rest, what it is told to."""

    def __init__(self) -> None:
        self.live: Any = definitions()
        self.prompts: Any = copy.deepcopy(PROMPTS)
        self.received: list[tuple[dict[str, str], Any]] = []
        """Every POST but the guard's own looks: headers and message."""
        self.bare: list[tuple[str, dict[str, str]]] = []
        """Every GET and DELETE."""
        self.scopes: list[Any] = []
        self.looks = 0
        self.session_ids = iter(f"s{number}" for number in range(1, 1000))
        self.streams: list[Stream] = []
        """Open GET streams."""
        self.serve_lists: Serve | None = None
        """Serves `tools/list` as a stream."""
        self.serve: Serve | None = None
        """Serves calls as a stream; without it they are answered in JSON."""
        self.answers: dict[str, Any] = {}
        """Results of methods that a test wants otherwise, or whole answers as bytes."""

        self.media = "application/json"
        """The media type of whole answers."""
        self.status = 200
        """The status of whole answers, and of streams to listen to."""
        self.noted = 202
        """The status of what is no answer."""
        self.more: list[tuple[bytes, bytes]] = []
        """Further header fields of whole answers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        self.scopes.append(scope)
        if scope["method"] == "POST":
            message = json.loads((await receive())["body"])
            if "deputize_look" in scope["state"]:
                self.looks += 1
                is_of_prompts = message["method"] == "prompts/list"
                await self._one(send, message, {"prompts": self.prompts} if is_of_prompts else {"tools": self.live})
                return
            self.received.append((headers, message))
            await self._post(message, receive, send)
            return
        self.bare.append((scope["method"], headers))
        if scope["method"] == "DELETE":
            await _whole(send, 204, b"")
            return
        await self._listen(receive, send)

    async def _post(self, message: Any, receive: Any, send: Any) -> None:
        method = message.get("method")
        if method is None or method.startswith("notifications/"):
            await _whole(send, self.noted, b"")
        elif method in self.answers:
            answer = self.answers[method]
            if isinstance(answer, bytes):
                await _whole(send, self.status, answer, self.media, more=self.more)
            else:
                await self._one(send, message, answer)
        elif method == "initialize":
            result = {"protocolVersion": VERSION, "capabilities": {"tools": {}, "logging": {}}}
            await self._one(send, message, result, next(self.session_ids))
        elif method == "tools/list" and self.serve_lists is None:
            await self._one(send, message, {"tools": self.live})
        elif (serve := self.serve_lists if method == "tools/list" else self.serve) is not None:
            stream = Stream(send, message)
            await _begin(send, "text/event-stream")
            leaving = asyncio.create_task(_watch(receive, stream.gone))
            try:
                await serve(stream)
            finally:
                leaving.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._one(send, message, {"content": []})

    async def _listen(self, receive: Any, send: Any) -> None:
        stream = Stream(send, None)
        await _begin(send, "text/event-stream", status=self.status)
        self.streams.append(stream)
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass
        stream.gone.set()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _one(self, send: Any, message: Any, result: Any, session: str | None = None) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        await _whole(send, 200, body, "application/json", session)


async def _watch(receive: Any, gone: asyncio.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


async def _begin(send: Any, media: str, session: str | None = None, status: int = 200, *, more: Any = ()) -> None:
    headers = [(b"content-type", media.encode()), *more] if media else []
    if session is not None:
        headers.append((b"mcp-session-id", session.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _whole(
    send: Any, status: int, body: bytes, media: str = "", session: str | None = None, *, more: Any = ()
) -> None:
    await _begin(send, media, session, status, more=more)
    await send({"type": "http.response.body", "body": body, "more_body": False})


class World:
    """The server behind its middleware, and requests to it."""

    def __init__(self, f: Fixture, **options: Any) -> None:
        self.f = f
        self.server = SessionServer()
        self.looking = l0()
        """What is granted where nothing else is said."""
        self.broker = GuardBroker(f)
        given = MiddlewareOptions(clock=f.clock, broker=self.broker.client(), **options)
        self.app = ToolCallMiddleware(self.server, f.settings, given)
        f.guard = self.app.guard

    def send(
        self,
        body: Any,
        detail: Any = None,
        *,
        method: str = "POST",
        key: SigningKey | None = None,
        token: str | None = None,
        claims: dict[str, Any] | None = None,
        scope: dict[str, Any] | None = None,
        **headers: str | None,
    ) -> Wire:
        """Sends as an honest agent does, but for what is said otherwise."""
        token = token or self.f.token(detail or self.looking, **(claims or {}))
        proof = self.f.proof(token, key, htm=method)
        said: dict[str, str | None] = {"authorization": f"DPoP {token}", "dpop": proof}
        if method == "POST":
            said["content-type"] = "application/json"
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        fields = [(name, value) for name, value in said.items() if value is not None]
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return Wire(self.app, method, fields, content, **(scope or {}))

    async def begin(self, **more: Any) -> str:
        """A session of alice's."""
        params = {"protocolVersion": VERSION, "capabilities": {"sampling": {}, "roots": {}}}
        begun = self.send({"jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params}, **more)
        await begun.rest()
        assert begun.status == 200
        return begun.headers["mcp-session-id"]

    async def refused(self, wire: Wire, status: int) -> Any:
        """The body of a refusal; nothing of the request reached the server."""
        before = len(self.server.received), len(self.server.bare)
        body = await wire.json()
        assert wire.status == status, body
        assert (len(self.server.received), len(self.server.bare)) == before
        return body


@asynccontextmanager
async def world(**options: Any) -> AsyncIterator[World]:
    made = World(Fixture(), **options)
    made.app.start()
    await until(lambda: made.app.guard.snapshot is not None)
    try:
        yield made
    finally:
        await made.app.stop()


def again(message: Any, request_id: Any) -> dict[str, Any]:
    """The message under another id."""
    return {**message, "id": request_id}


LOOKUP = call("lookup", {})
REFUND = call("refund", {})
LIST = listing()
