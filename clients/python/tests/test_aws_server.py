"""Two calls in one server at once: each has its own AWS credentials, in tasks, in threads, and in FastMCP's tools."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from threading import Barrier
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest
from fastmcp import FastMCP
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aws_broker import AwsBroker, access_key_of, aws
from deputize import ConfigurationError
from deputize.asgi import MiddlewareOptions, ToolCallMiddleware, current_call
from deputize.call.digest import call_digest, tool_digest
from deputize.fastmcp import DeputizeProvider
from deputize.fastmcp import current_call as current_call_in_tool
from dev import ROOT
from guard_broker import GuardBroker, until
from guard_fixture import Fixture, call, definitions, granted, l3
from wire import Wire

EXAMPLES = ROOT / "clients" / "python" / "examples"
TOGETHER = 2


class World:
    """A server behind the middleware, whose tool says with which access key AWS saw it."""

    def __init__(self, act: Callable[[], str], *, in_thread: bool) -> None:
        self.f = Fixture()
        self.aws = AwsBroker(self.f)
        self.broker = GuardBroker(self.f)
        self._act = act
        self._in_thread = in_thread
        app = Starlette(routes=[Route("/mcp", self._serve, methods=["POST"])])
        options = MiddlewareOptions(
            clock=self.f.clock, broker=self.broker.client(), aws_broker=self.aws.client(), tools=self._tools
        )
        self.app = ToolCallMiddleware(app, self.f.settings, options)
        self.f.guard = self.app.guard

    async def _tools(self) -> Any:
        return definitions()

    async def _serve(self, request: Request) -> Response:
        message = await request.json()
        text = await anyio.to_thread.run_sync(self._act) if self._in_thread else await self._in_task()
        result = {"content": [{"type": "text", "text": text}]}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async def _in_task(self) -> str:
        before = (await current_call().aws_credentials().aget()).access_key_id
        await anyio.sleep(0)
        # What was awaited waits for nobody any more: it may be used without an event loop.
        assert current_call().aws_credentials().access_key_id == before
        return before

    def send(self, jti: str) -> Wire:
        arguments = {"payment_id": jti}
        token = self.f.token(l3("refund", arguments), jti=jti, sub=f"user:acme:x:{jti}")
        fields = [("authorization", f"DPoP {token}"), ("dpop", self.f.proof(token))]
        body = json.dumps(call("refund", arguments)).encode()
        return Wire(self.app, "POST", [*fields, ("content-type", "application/json")], body)


@asynccontextmanager
async def world(act: Callable[[], str], *, in_thread: bool) -> AsyncIterator[World]:
    made = World(act, in_thread=in_thread)
    made.app.start()
    await until(lambda: made.app.guard.snapshot is not None)
    try:
        yield made
    finally:
        await made.app.stop()


async def test_calls_in_threads_have_their_own_each() -> None:
    together = Barrier(TOGETHER)
    with aws() as cloud:

        def act() -> str:
            client = current_call().boto3_session("eu-central-1").client("sts", endpoint_url=cloud.url)
            together.wait(30)
            return str(client.get_caller_identity()["Arn"]).rpartition("/")[2]

        async with world(act, in_thread=True) as w:
            wires = {jti: w.send(jti) for jti in ("alice-1", "bob-1")}
            answers = {jti: await wire.json() for jti, wire in wires.items()}
        for jti, answer in answers.items():
            assert answer["result"]["content"][0]["text"] == access_key_of(jti)
        own = {(access_key_of(jti), f"session-of-{jti}==") for jti in wires}
        assert (set(cloud.signed_by), len(w.aws.asked)) == (own, 2), "never one's key with another's token"


async def test_calls_in_tasks_have_their_own_each() -> None:
    async with world(lambda: "", in_thread=False) as w:
        wires = {jti: w.send(jti) for jti in ("alice-1", "bob-1", "carol-1")}
        for jti, wire in wires.items():
            assert (await wire.json())["result"]["content"][0]["text"] == access_key_of(jti)
        assert len(w.aws.asked) == 3


async def test_a_thread_of_ones_own_knows_no_call_but_what_it_is_given() -> None:
    def act() -> str:
        credentials = current_call().aws_credentials()
        with ThreadPoolExecutor(1) as thread:
            with pytest.raises(LookupError):
                thread.submit(current_call).result(30)
            return thread.submit(lambda: credentials.access_key_id).result(30)

    async with world(act, in_thread=True) as w:
        assert (await w.send("alice-1").json())["result"]["content"][0]["text"] == access_key_of("alice-1")


async def test_tools_of_fastmcp_have_their_own_each() -> None:
    server = FastMCP("pay")
    together = Barrier(TOGETHER)

    @server.tool
    def refund(payment_id: str) -> str:
        """Refunds."""
        together.wait(30)
        return f"{payment_id} by {current_call_in_tool().aws_credentials().access_key_id}"

    async with tool_of_fastmcp(server, "refund", Fixture()) as w:
        wires = {jti: w.send(jti, {"payment_id": jti}) for jti in ("alice-1", "bob-1")}
        for jti, wire in wires.items():
            answer = await wire.json()
            assert answer["result"]["content"][0]["text"] == f"{jti} by {access_key_of(jti)}", answer
        assert len(w.aws.asked) == TOGETHER


class FastMcpWorld:
    """A FastMCP server with one tool, before a broker that hands out AWS credentials."""

    def __init__(self, app: Any, f: Fixture, tool: Any, aws_broker: AwsBroker) -> None:
        self.f, self.aws = f, aws_broker
        self._app = app
        self._tool = tool

    def send(self, jti: str, arguments: Any) -> Wire:
        name = self._tool["name"]
        digest = call_digest("tools/call", name, arguments)
        detail = {**granted(), "actions": ["tools/call"], "identifier": name, "tool_digest": tool_digest(self._tool)}
        token = self.f.token({**detail, "call_digest": digest, "max_uses": 1}, jti=jti, sub=f"user:acme:x:{jti}")
        fields = [("authorization", f"DPoP {token}"), ("dpop", self.f.proof(token)), ("host", "pay.example.com")]
        fields += [("content-type", "application/json"), ("accept", "application/json, text/event-stream")]
        return Wire(self._app, "POST", fields, json.dumps(call(name, arguments)).encode())


@asynccontextmanager
async def tool_of_fastmcp(server: FastMCP, name: str, f: Fixture) -> AsyncIterator[FastMcpWorld]:
    tool = await server.get_tool(name)
    assert tool is not None
    definition = tool.to_mcp_tool().model_dump(mode="json", by_alias=True, exclude_none=True)
    pinned = {"definition": definition, "tool_digest": tool_digest(definition), "least_level": "L3", "tier": "low"}
    document = f.document
    f.document = lambda **changes: document(**{"tools": [pinned], **changes})  # type: ignore[method-assign]
    broker = AwsBroker(f)
    options = MiddlewareOptions(clock=f.clock, broker=GuardBroker(f).client(), aws_broker=broker.client())
    server.auth = DeputizeProvider(f.settings, options)
    app = server.http_app(path="/mcp", stateless_http=True, json_response=True)
    async with app.lifespan(app):
        app.middleware_stack = layer = app.build_middleware_stack()
        while not hasattr(layer, "_guarded"):
            layer = getattr(layer, "app", None) or layer._app
        guarded = layer._guarded
        guarded.start()
        await until(lambda: guarded.guard.snapshot is not None)
        f.guard = guarded.guard
        try:
            yield FastMcpWorld(app, f, definition, broker)
        finally:
            await guarded.stop()


async def test_an_async_client_alone_is_no_way_for_threads() -> None:
    f = Fixture()
    broker = GuardBroker(f)
    app = ToolCallMiddleware(Starlette(), f.settings, MiddlewareOptions(clock=f.clock, broker=broker.client()))
    with pytest.raises(ConfigurationError, match="aws_broker"):
        app._aws.kept_for("t", b"{}").get()
    await app.stop()


async def test_by_default_the_settings_are_enough() -> None:
    f = Fixture()
    app = ToolCallMiddleware(Starlette(), f.settings, MiddlewareOptions(clock=f.clock))
    made = app._aws._connected()
    assert (made.broker.issuer, made.broker.client_id) == (f.settings.issuer, f.settings.client_id)
    assert app._aws._connected() is made, "one for all calls"
    await app.stop()


async def test_the_example_restarts_the_instance_in_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    example = importlib.import_module("aws_server")
    f, instance = Fixture(), {"instance_id": "i-0123456789abcdef0"}
    with aws() as cloud:
        monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)
        async with tool_of_fastmcp(example.server, "restart_instance", f) as w:
            answer = await w.send("alice-1", instance).json()
            assert answer["result"]["structuredContent"]["restarted"] == "i-0123456789abcdef0", answer
            assert cloud.signed_by == [(access_key_of("alice-1"), "session-of-alice-1==")]
            assert "InstanceId.1=i-0123456789abcdef0" in cloud.bodies[0]
            w.aws.answer = lambda _: httpx2.Response(404, json={"error": "not_found", "error_description": "nothing"})
            failed = await w.send("bob-1", instance).json()
            assert failed["result"]["isError"]
            assert len(cloud.signed_by) == 1
