"""A server's list of tools: asked for over ASGI, and filtered to what was approved."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from .call.strict_json import JsonObject, JsonValue, parse_value, serialize
from .live_tools import events_in, messages_in

LOOK_KEY: Final = "deputize_look"
"""Marks, in `scope["state"]`, the guard's own look at the tools."""


async def list_tools(
    app: Callable[..., Awaitable[None]], like: MutableMapping[str, Any], max_pages: int = 20
) -> list[JsonObject]:
    """Ask an ASGI app for its tools, as a client without a session would, at the path of a request that came.

    Raises:
        RuntimeError: where it does not answer with a list.
    """
    definitions: list[JsonObject] = []
    cursor: str | None = None
    for _ in range(max_pages):
        tools, cursor = await _page(app, like, cursor)
        definitions += tools
        if cursor is None:
            return definitions
    raise RuntimeError("the server's tools/list does not end")


def only_approved(content_type: str, body: bytes, names: frozenset[str]) -> bytes:
    """The answer to `tools/list` without the tools that are not exactly what was approved."""
    media = content_type.partition(";")[0].strip().lower()
    if media == "text/event-stream":
        texts = [_filtered(data, names) for data in events_in(body) if data]
        return b"".join(b"event: message\r\ndata: " + text + b"\r\n\r\n" for text in texts)
    if media == "application/json":
        return _filtered(body, names)
    raise RuntimeError("the server's tools/list is neither JSON nor an event stream")


def _filtered(text: bytes, names: frozenset[str]) -> bytes:
    message = parse_value(text, _MAX_LEVELS)
    result = message.get("result") if isinstance(message, dict) else None
    tools = result.get("tools") if isinstance(result, dict) else None
    if isinstance(result, dict) and isinstance(tools, list):
        result["tools"] = [tool for tool in tools if isinstance(tool, dict) and tool.get("name") in names]
    return serialize(message)


async def _page(
    app: Callable[..., Awaitable[None]], like: MutableMapping[str, Any], cursor: str | None
) -> tuple[list[JsonObject], str | None]:
    params: JsonObject = {"_meta": dict(_ENVELOPE)}
    if cursor is not None:
        params["cursor"] = cursor
    body = serialize({"jsonrpc": "2.0", "id": "deputize-list", "method": "tools/list", "params": params})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": _VERSION,
        "mcp-method": "tools/list",
    }
    headers |= {name.decode(): value.decode("latin-1") for name, value in like["headers"] if name == b"host"}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    state = {**like.get("state", {}), LOOK_KEY: True}
    scope = {**like, "method": "POST", "query_string": b"", "headers": encoded, "state": state}
    status, content_type, answer = await _ask(app, scope, body)
    if status != 200:
        raise RuntimeError(f"the server answers tools/list with status {status}")
    for message in messages_in(content_type, answer):
        result = message.get("result") if isinstance(message, dict) else None
        tools = result.get("tools") if isinstance(result, dict) else None
        if isinstance(result, dict) and isinstance(tools, list):
            following = result.get("nextCursor")
            definitions = [tool for tool in tools if isinstance(tool, dict)]
            return definitions, following if isinstance(following, str) else None
    raise RuntimeError("the server's answer to tools/list is no list")


async def _ask(
    app: Callable[..., Awaitable[None]], scope: MutableMapping[str, Any], body: bytes
) -> tuple[int, str, bytes]:
    """One request to the app, from inside of this process."""
    status, content_type, answer = 0, "", bytearray()
    waiting = [body]
    answered = asyncio.Event()

    async def receive() -> MutableMapping[str, Any]:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, content_type
        if message["type"] == "http.response.start":
            status = message["status"]
            named = {name.lower(): value for name, value in message.get("headers", [])}
            content_type = named.get(b"content-type", b"").decode("latin-1")
        elif message["type"] == "http.response.body":
            answer.extend(message.get("body", b""))
            if not message.get("more_body", False):
                answered.set()

    await asyncio.wait_for(app(scope, receive, send), _TIMEOUT_SECONDS)
    return status, content_type, bytes(answer)


_VERSION = "2026-07-28"
_ENVELOPE: dict[str, JsonValue] = {
    "io.modelcontextprotocol/protocolVersion": _VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "deputize-guard", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_MAX_LEVELS = 40
_TIMEOUT_SECONDS = 10.0
