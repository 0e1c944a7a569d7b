"""A broker as guards see it: the stream of events, redemption and reports, behind httpx2's mock transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import httpx2

from deputize.call.jws import parse
from deputize.client import AsyncClient
from guard_fixture import ISSUER, Fixture


class Stream(httpx2.AsyncByteStream):
    """Events as they are pushed, until the broker ends the stream."""

    def __init__(self, queue: asyncio.Queue[bytes | None]) -> None:
        self._queue = queue

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._queue.get()) is not None:
            yield chunk


class GuardBroker:
    """Answers as the broker does; what it heard is kept."""

    def __init__(self, f: Fixture, *, first_snapshot: bool = True) -> None:
        self.f = f
        self.first_snapshot = first_snapshot
        self.queues: list[asyncio.Queue[bytes | None]] = []
        self.redeemed: list[str] = []
        self.reported: list[dict[str, Any]] = []
        self.assertions: list[str] = []
        self.status = 200
        self.version = 1

    def client(self) -> AsyncClient:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self._answer))
        return AsyncClient(ISSUER, self.f.settings.client_id, self.f.settings.private_key, http=http)

    def push(self, event: str, data: Any) -> None:
        """Says something on the newest stream."""
        text = data if isinstance(data, str) else json.dumps(data)
        self.queues[-1].put_nowait(f"event: {event}\ndata: {text}\n\n".encode())

    def snapshot(self, **changes: Any) -> dict[str, Any]:
        return self.f.sign_snapshot(self.f.document(version=self.version, **changes))

    def end(self) -> None:
        """Ends the newest stream."""
        self.queues[-1].put_nowait(None)

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        if path.startswith("/.well-known/"):
            return httpx2.Response(200, json={"issuer": ISSUER})
        if path == "/redeem":
            form = dict(parse_qsl(request.content.decode()))
            self.authenticate(form["client_assertion"])
            first = form["token"] not in self.redeemed
            self.redeemed.append(form["token"])
            return httpx2.Response(
                200, json={"redeemed": True} if first else {"redeemed": False, "reason": "already_used"}
            )
        self.authenticate(request.headers["authorization"].removeprefix("Bearer "))
        if self.status != 200:
            return httpx2.Response(self.status)
        if request.method == "POST":
            self.reported += json.loads(request.content)["events"]
            return httpx2.Response(200, json={"accepted": 1})
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.queues.append(queue)
        if self.first_snapshot:
            self.push("snapshot", self.snapshot())
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=Stream(queue))

    def authenticate(self, assertion: str) -> None:
        jws = parse(assertion)
        self.f.settings.private_key.public.verify(jws)
        assert jws.claims["aud"] == ISSUER
        assert jws.claims["sub"] == self.f.settings.client_id
        assert jws.claims["jti"] not in self.assertions, "an assertion serves once"
        self.assertions.append(str(jws.claims["jti"]))


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Waits for a condition, not for a time."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it never came to that"
        await asyncio.sleep(0.005)


async def eventually(ask: Any, holds: Any, seconds: float = 5.0) -> Any:
    """Asks until an answer holds, and gives it back."""
    end = asyncio.get_running_loop().time() + seconds
    while not holds(answer := await ask()):
        assert asyncio.get_running_loop().time() < end, "it never came to that"
        await asyncio.sleep(0.005)
    return answer
