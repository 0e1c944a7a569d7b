"""A server's list of tools, asked for over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from .call.strict_json import JsonObject, JsonValue, serialize
from .live_tools import messages_in

Kind: TypeAlias = Literal["tools", "prompts"]
LOOK_KEY: Final = "deputize_look"
"""Marks, in `scope["state"]`, the guard's own look at the tools."""


async def list_tools(app: Callable[..., Awaitable[None]], like: MutableMapping[str, Any]) -> list[JsonObject]:
    """All tools of an ASGI app, asked for at the path of a request that came.

    Raises:
        RuntimeError: where the app does not answer with a list.
    """
    return await Lister(app).listed(like)


class Lister:
    """Asks an ASGI app for its tools: as clients of MCP 2026-07-28 do, and where that fails in a session of its own."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self._wants_session = False

    async def listed(self, like: MutableMapping[str, Any], kind: Kind = "tools") -> list[JsonObject]:
        """All of a kind, asked for at the path of a request that came.

        Raises:
            RuntimeError: where the app does not answer with a list.
        """
        if not self._wants_session:
            try:
                headers = {"mcp-protocol-version": _STATELESS, "mcp-method": f"{kind}/list"}
                return await self._pages(_Place(like, headers), kind)
            except RuntimeError:
                pass
        listed = await self._in_session(like, kind)
        # Whoever knows only earlier versions is not asked in vain each time.
        self._wants_session = True
        return listed

    async def _in_session(self, like: MutableMapping[str, Any], kind: Kind) -> list[JsonObject]:
        client: JsonObject = {"name": "deputize-guard", "version": "1"}
        params: JsonObject = {"protocolVersion": _WITH_SESSIONS, "capabilities": {}, "clientInfo": client}
        begun = await self._post(_Place(like, {}), "initialize", params)
        result = _result(begun)
        version = result.get("protocolVersion")
        headers = {"mcp-protocol-version": version if isinstance(version, str) else _WITH_SESSIONS}
        if begun.session_id:
            headers["mcp-session-id"] = begun.session_id
        place = _Place(like, headers)
        try:
            await self._post(place, "notifications/initialized", None)
            return await self._pages(place, kind)
        finally:
            if begun.session_id:
                await ask(self._app, place.scope("DELETE", b""), b"")

    async def _pages(self, place: _Place, kind: Kind) -> list[JsonObject]:
        definitions: list[JsonObject] = []
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            params: JsonObject = {} if cursor is None else {"cursor": cursor}
            if "mcp-session-id" not in place.headers and "mcp-method" in place.headers:
                params["_meta"] = dict(_ENVELOPE)
            result = _result(await self._post(place, f"{kind}/list", params))
            listed, following = result.get(kind), result.get("nextCursor")
            if not isinstance(listed, list):
                raise RuntimeError(f"the server's answer to {kind}/list is no list")
            definitions += [definition for definition in listed if isinstance(definition, dict)]
            if not isinstance(following, str):
                return definitions
            cursor = following
        raise RuntimeError(f"the server's {kind}/list does not end")

    async def _post(self, place: _Place, method: str, params: JsonObject | None) -> Answered:
        message: JsonObject = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message |= {"id": f"deputize-{method}", "params": params}
        body = serialize(message)
        answered = await ask(self._app, place.scope("POST", body), body)
        if answered.status not in (200, 202):
            raise RuntimeError(f"the server answers {method} with status {answered.status}")
        return answered


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the server is asked, and as whom."""

    like: MutableMapping[str, Any]
    headers: dict[str, str]

    def scope(self, method: str, body: bytes) -> MutableMapping[str, Any]:
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "accept": "application/json, text/event-stream",
            **self.headers,
        }
        headers |= {name.decode(): value.decode("latin-1") for name, value in self.like["headers"] if name == b"host"}
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        state = {**self.like.get("state", {}), LOOK_KEY: True}
        return {**self.like, "method": method, "query_string": b"", "headers": encoded, "state": state}


@dataclass(slots=True)
class Answered:
    """What the app answered, whole."""

    status: int = 0
    content_type: str = ""
    session_id: str = ""
    body: bytes = b""


async def ask(app: Callable[..., Awaitable[None]], scope: MutableMapping[str, Any], body: bytes) -> Answered:
    """One request to the app, from inside of this process."""
    answered, answer = Answered(), bytearray()
    waiting = [body]
    is_whole = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        await is_whole.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            named = {name.lower(): value.decode("latin-1") for name, value in message.get("headers", [])}
            answered.status = message["status"]
            answered.content_type = named.get(b"content-type", "")
            answered.session_id = named.get(b"mcp-session-id", "")
        elif message["type"] == "http.response.body":
            answer.extend(message.get("body", b""))
            if not message.get("more_body", False):
                is_whole.set()

    await asyncio.wait_for(app(scope, receive, send), _TIMEOUT_SECONDS)
    answered.body = bytes(answer)
    return answered


def _result(answered: Answered) -> JsonObject:
    for message in messages_in(answered.content_type, answered.body):
        result = message.get("result") if isinstance(message, dict) else None
        if isinstance(result, dict):
            return result
    raise RuntimeError("the server gives no result")


_STATELESS = "2026-07-28"
_WITH_SESSIONS = "2025-11-25"
_ENVELOPE: dict[str, JsonValue] = {
    "io.modelcontextprotocol/protocolVersion": _STATELESS,
    "io.modelcontextprotocol/clientInfo": {"name": "deputize-guard", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_MAX_PAGES = 20
_TIMEOUT_SECONDS = 10.0
