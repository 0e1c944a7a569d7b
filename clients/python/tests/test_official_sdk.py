"""A server of the official SDK behind the middleware, over HTTP: the official client calls it in a session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
import uvicorn
from mcp.client.client import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from broker_stub import Broker
from deputize.asgi import MiddlewareOptions, ToolCallMiddleware
from deputize.auth import CallingOptions, ToolCallAuth
from deputize.call.digest import call_digest, tool_digest
from deputize.listing import list_tools
from deputize.mcp import http_client
from guard_broker import GuardBroker, eventually, until
from guard_fixture import RESOURCE, Fixture, l0, l1, listing

SCOPE: dict[str, Any] = {"type": "http", "path": "/mcp", "headers": [(b"host", b"127.0.0.1:1")], "scheme": "http"}


class Which(BaseModel):
    payment: str


def server() -> MCPServer:
    mcp = MCPServer("pay")

    @mcp.tool()
    async def ask(ctx: Context) -> str:  # type: ignore[type-arg]
        """Asks which payment."""
        try:
            answer = await ctx.elicit("which?", Which)
        except MCPError as refused:
            return str(refused)
        return str(answer.data.payment) if answer.action == "accept" and answer.data is not None else answer.action

    @mcp.tool()
    async def think(ctx: Context) -> str:  # type: ignore[type-arg]
        """Borrows the client's model."""
        said = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="think"))
        try:
            await ctx.session.create_message(messages=[said], max_tokens=5)
        except Exception as refused:  # noqa: BLE001 - however the SDK says it
            return f"refused: {refused}"
        return "it thought"

    return mcp


class Running:
    """The server at a free port, and clients of it."""

    def __init__(self, f: Fixture, digests: dict[str, str], port: int) -> None:
        self.f = f
        self.digests = digests
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.exchange = Broker(answer=self.grant, clock=f.clock)
        self.asked: list[str] = []

    def grant(self, _: httpx2.Request, form: dict[str, str]) -> httpx2.Response:
        asked = json.loads(form.get("authorization_details", "[{}]"))[0]
        name = asked.get("identifier")
        detail = (
            l0(list(self.digests))
            if name is None
            else {**l1("lookup"), "identifier": name, "tool_digest": self.digests[name]}
        )
        if "arguments" in asked:
            steering = [asked[part] for part in ("inputResponses", "requestState") if part in asked]
            digest = call_digest("tools/call", name, asked["arguments"], *steering)
            detail |= {"call_digest": digest, "max_uses": 1}
        members = {"token_type": "DPoP", "expires_in": 60, "scope": "tool", "transaction_id": "t", "decision_id": "d-2"}
        return httpx2.Response(
            200, json={**members, "access_token": self.f.token(detail), "authorization_details": [detail]}
        )

    @asynccontextmanager
    async def client(self, mode: str, level: Any = None) -> AsyncIterator[McpClient]:
        async def elicit(_: Any, params: Any) -> types.ElicitResult:
            self.asked.append(params.message)
            return types.ElicitResult(action="accept", content={"payment": "pay_81"})

        async def sample(_: Any, __: Any) -> types.CreateMessageResult:
            raise AssertionError("the client was asked for its model")

        client = self.exchange.client(dpop_key=self.f.agent)
        auth = ToolCallAuth(client, self.f.settings.public_url, "user-token", CallingOptions(level=level))
        async with http_client(auth) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with McpClient(transport, mode=mode, elicitation_callback=elicit, sampling_callback=sample) as mcp:
                yield mcp


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    bare = server().streamable_http_app(host="127.0.0.1")
    async with bare.router.lifespan_context(bare):
        definitions = await list_tools(bare, SCOPE)
    config = uvicorn.Config(app := _Later(), host="127.0.0.1", port=0, log_level="warning")
    web = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    port = sockets[0].getsockname()[1]
    f = Fixture()
    object.__setattr__(f.settings, "public_url", f"http://127.0.0.1:{port}/mcp")
    object.__setattr__(f.settings, "resource", RESOURCE)
    digests = {str(each["name"]): tool_digest(each) for each in definitions}
    document = f.document
    tools = [
        {"definition": each, "tool_digest": digests[str(each["name"])], "least_level": "L1", "tier": "low"}
        for each in definitions
    ]
    f.document = lambda **changes: document(**{"tools": tools, **changes})  # type: ignore[method-assign]
    broker = GuardBroker(f)
    options = MiddlewareOptions(clock=f.clock, broker=broker.client())
    app.app = ToolCallMiddleware(server().streamable_http_app(host="127.0.0.1"), f.settings, options)
    serving = asyncio.create_task(web.serve(sockets=sockets))
    try:
        await until(lambda: web.started)
        async with httpx2.AsyncClient() as http:
            url = f"http://127.0.0.1:{port}/mcp"
            await eventually(lambda: http.post(url, json=listing("ping")), lambda answer: answer.status_code != 503)
        yield Running(f, digests, port)
    finally:
        web.should_exit = True
        await serving


class _Later:
    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


async def test_a_loose_call_may_ask_its_user_and_no_call_the_model() -> None:
    async with running() as r, r.client("legacy", level=lambda _: "L1") as mcp:
        result = await mcp.call_tool("ask", {})
        assert not result.is_error, result
        assert "pay_81" in str(result.content)
        assert r.asked == ["which?"]
        assert "refused: " in str((await mcp.call_tool("think", {})).content)


async def test_a_call_that_was_decided_as_it_stands_asks_nobody() -> None:
    async with running() as r, r.client("legacy") as mcp:
        result = await mcp.call_tool("ask", {})
        assert "fixes it" in str(result.content)
        assert r.asked == []
        # The session goes on.
        assert [tool.name for tool in (await mcp.list_tools()).tools] == ["ask", "think"]
