"""One request straight over ASGI, whose answer can be read as it comes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from deputize.events import EventParser


class Wire:
    """A connection: begun when it is made, read with `event` or `rest`, left with `leave`."""

    def __init__(self, app: Any, method: str, headers: list[tuple[str, str]], body: bytes = b"", **scope: Any) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._body = [body]
        self._begun = asyncio.Event()
        self._gone = asyncio.Event()
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._parser = EventParser(1_000_000)
        self._events: list[Any] = []
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        full = {
            "type": "http",
            "method": method,
            "path": "/mcp",
            "query_string": b"",
            "headers": encoded,
            "state": {},
            **scope,
        }
        self.task = asyncio.create_task(app(full, self._receive, self._send))
        self.task.add_done_callback(lambda _: self._begun.set())

    async def begun(self) -> Wire:
        """Waits for the beginning of the answer."""
        await asyncio.wait_for(self._begun.wait(), _SECONDS)
        if self.task.done() and self.status == 0:
            await self.task
        return self

    async def event(self) -> Any:
        """The next message of a stream; `None` at its end."""
        await self.begun()
        while not self._events:
            piece = await asyncio.wait_for(self._pieces.get(), _SECONDS)
            if piece is None:
                return None
            self._events += self._parser.push(piece)
        event = self._events.pop(0)
        return json.loads(event.data) if event.data else ""

    async def rest(self) -> bytes:
        """All that comes until the end."""
        await self.begun()
        whole = b""
        while (piece := await asyncio.wait_for(self._pieces.get(), _SECONDS)) is not None:
            whole += piece
        return whole

    async def json(self) -> Any:
        """A whole answer of one message."""
        return json.loads(await self.rest())

    def leave(self) -> None:
        """The client goes away."""
        self._gone.set()

    async def done(self) -> None:
        """Waits until the app is done with it."""
        await asyncio.wait_for(self.task, _SECONDS)

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            self._begun.set()
        elif message["type"] == "http.response.body":
            if message.get("body"):
                self._pieces.put_nowait(message["body"])
            if not message.get("more_body", False):
                self._pieces.put_nowait(None)


# Far beyond what anything takes: a busy machine is no failure.
_SECONDS = 30.0
