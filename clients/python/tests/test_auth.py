"""The authentication classes, before a server that is the guard with its fakes."""

from __future__ import annotations

import asyncio
import json
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import deputize.auth
import deputize.httpx_auth
from broker_stub import RESOURCE, Broker
from deputize import ConfigurationError, ExchangeError, ToolChangedError, UnsafeRequestError
from deputize.auth import CallingOptions
from deputize.call.jws import parse
from deputize.guard import IncomingCall, Refusal, VerifiedCall
from guard_fixture import (
    PROMPTS,
    Fixture,
    call,
    definitions,
    l0,
    l1,
    l3,
    listing,
    material,
    prompt_token,
    read_token,
)

LIBRARIES = pytest.mark.parametrize("library", [httpx2, httpx], ids=["httpx2", "httpx"])


class World:
    """A broker that grants whatever is asked, a guard that verifies it, and a client with the auth between."""

    def __init__(self, library: ModuleType = httpx2, **options: Any) -> None:
        self.f = Fixture()
        self.broker = Broker(answer=self.grant, clock=self.f.clock)
        self.library = library
        self.options = CallingOptions(**options)
        self.passed: list[Any] = []
        self.refused: list[str] = []
        self.requests: list[Any] = []
        self.live: Any = definitions()

    def grant(self, _: httpx2.Request, form: dict[str, str]) -> httpx2.Response:
        asked = json.loads(form.get("authorization_details", "[{}]"))[0]
        tool = asked.get("identifier")
        if tool == "forbidden":
            return httpx2.Response(400, json={"error": "access_denied", "reason": "policy", "decision_id": "d-1"})
        if asked.get("actions", ["tools/call"]) != ["tools/call"]:
            detail = prompt_token(tool) if asked["actions"] == ["prompts/get"] else read_token(tool)
        else:
            detail = self.grant_of(tool, asked)
        token = self.f.token(detail)
        members = {"token_type": "DPoP", "expires_in": 60, "scope": "tool", "transaction_id": "t", "decision_id": "d-2"}
        return httpx2.Response(200, json={**members, "access_token": token, "authorization_details": [detail]})

    def grant_of(self, tool: str | None, asked: Any) -> dict[str, Any]:
        return l0() if tool is None else l3(tool, asked["arguments"]) if "arguments" in asked else l1(tool)

    def serve(self, request: Any) -> Any:
        self.requests.append(request)
        headers = tuple((name.decode(), value.decode()) for name, value in request.headers.raw)
        try:
            verified = asyncio.run(self.f.guard.verify(IncomingCall(request.method, headers, request.content)))
        except Refusal as refusal:
            self.refused.append(refusal.error)
            return self.library.Response(refusal.status, json=refusal.body(), headers=refusal.headers())
        self.passed.append(verified)
        result: dict[str, Any] = {"tools": self.live}
        if isinstance(verified, VerifiedCall):
            result = {"content": []}
        answer = {"jsonrpc": "2.0", "id": json.loads(request.content).get("id"), "result": result}
        return self.library.Response(200, json=answer, headers={"dpop-nonce": verified.next_nonce})

    def auth(self, client: Any) -> Any:
        module = deputize.auth if self.library is httpx2 else deputize.httpx_auth
        return module.ToolCallAuth(client, RESOURCE, "user-token", self.options)

    def http(self) -> Any:
        auth = self.auth(self.broker.sync_client(dpop_key=self.f.agent))
        return self.library.Client(transport=self.library.MockTransport(self.serve), auth=auth)

    def calls(self) -> list[VerifiedCall]:
        return [verified for verified in self.passed if isinstance(verified, VerifiedCall)]


@LIBRARIES
def test_each_call_has_a_token_of_its_own_out_of_its_body(library: ModuleType) -> None:
    world = World(library)
    with world.http() as http:
        for amount in (1, 2, 2):
            response = http.post(RESOURCE, json=call("refund", {"amount_cents": amount}))
            assert response.status_code == 200
    tokens = [each.token for each in world.calls()]
    assert len(set(tokens)) == 3
    assert [each.arguments for each in world.calls()] == [{"amount_cents": amount} for amount in (1, 2, 2)]
    # One challenge at the very beginning; afterwards each answer brought the nonce for the next request.
    assert world.refused == ["use_dpop_nonce"]


@LIBRARIES
async def test_in_an_event_loop_as_well(library: ModuleType) -> None:
    world = World(library)

    async def serve(request: Any) -> Any:
        return await asyncio.to_thread(world.serve, request)

    auth = world.auth(world.broker.client(dpop_key=world.f.agent))
    async with library.AsyncClient(transport=library.MockTransport(serve), auth=auth) as http:
        assert (await http.post(RESOURCE, json=listing())).status_code == 200
        assert (await http.post(RESOURCE, json=call("refund", {}))).status_code == 200
    assert len(world.calls()) == 1


async def test_a_client_of_the_wrong_kind_is_said_to_be_so() -> None:
    world = World()
    with pytest.raises(ConfigurationError):
        httpx2.Client(auth=world.auth(world.broker.client())).post(RESOURCE, json=listing())
    async with httpx2.AsyncClient(auth=world.auth(world.broker.sync_client())) as http:
        with pytest.raises(ConfigurationError):
            await http.post(RESOURCE, json=listing())
    with pytest.raises(ConfigurationError):
        deputize.auth.ToolCallAuth(world.broker.client(), "http://pay.example.com/mcp", "user-token")


def test_what_calls_nothing_shares_a_token_that_only_looks() -> None:
    world = World()
    with world.http() as http:
        for method in ("initialize", "tools/list", "ping"):
            assert http.post(RESOURCE, json=listing(method)).status_code == 200
    assert [form.get("authorization_details") for form in world.broker.forms] == [None]


def test_the_tools_are_listed_before_the_first_call_in_the_same_session_and_protocol() -> None:
    world = World()
    asked = call("refund", {})
    asked["params"]["_meta"] = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": 1}
    headers = {"mcp-method": "tools/call", "mcp-name": "refund", "mcp-protocol-version": "2026-07-28"}
    with world.http() as http:
        assert http.post(RESOURCE, json=asked, headers=headers).status_code == 200
        assert http.post(RESOURCE, json=asked, headers=headers).status_code == 200
    methods = [json.loads(request.content)["method"] for request in world.requests]
    assert methods == ["tools/list", "tools/list", "tools/call", "tools/call"], "challenged once, listed once"
    listed = world.requests[0]
    assert listed.headers["mcp-method"] == "tools/list"
    assert listed.headers["mcp-protocol-version"] == "2026-07-28"
    assert "mcp-name" not in listed.headers
    meta = json.loads(listed.content)["params"]["_meta"]
    assert meta == {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}


@pytest.mark.parametrize(
    ("member", "value"), [("description", "refund."), ("title", "x"), ("annotations", {"readOnlyHint": True})]
)
def test_a_tool_that_is_not_what_was_approved_is_not_called(member: str, value: Any) -> None:
    world = World()
    world.live[2][member] = value
    with world.http() as http:
        with pytest.raises(ToolChangedError):
            http.post(RESOURCE, json=call("refund", {}))
        assert world.calls() == []
        assert http.post(RESOURCE, json=call("lookup", {})).status_code == 200
        world.live = definitions()
        http.post(RESOURCE, json=listing())
        assert http.post(RESOURCE, json=call("refund", {})).status_code == 200


def test_a_tool_that_is_not_listed_or_stands_twice_is_not_called() -> None:
    world = World()
    world.live = [*definitions()[:2], definitions()[0]]
    with world.http() as http:
        for name in ("refund", "lookup", "nothing"):
            with pytest.raises(ToolChangedError):
                http.post(RESOURCE, json=call(name, {}))
        assert world.calls() == []
        assert http.post(RESOURCE, json=call("transfer", {})).status_code == 200


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","id":1,"result":{"tools":[],"tools":[]}}',
        '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"refund","x":1e300}]}}',
        "not JSON",
    ],
)
def test_a_list_that_others_read_differently_is_not_shown(text: str) -> None:
    world = World()
    honest = world.serve

    def serve(request: Any) -> Any:
        if (response := honest(request)).status_code != 200:
            return response
        return httpx2.Response(200, text=text, headers={"content-type": "application/json"})

    auth = world.auth(world.broker.sync_client(dpop_key=world.f.agent))
    with httpx2.Client(transport=httpx2.MockTransport(serve), auth=auth) as http, pytest.raises(deputize.DeputizeError):
        http.post(RESOURCE, json=listing())


def test_a_list_that_comes_as_an_event_stream_is_read_too() -> None:
    world = World()
    honest = world.serve

    def serve(request: Any) -> Any:
        response = honest(request)
        if response.status_code != 200 or json.loads(request.content)["method"] != "tools/list":
            return response
        events = f"event: message\r\nid: 1\r\ndata: \r\n\r\nevent: message\r\ndata: {response.text}\r\n\r\n"
        return httpx2.Response(200, text=events, headers={"content-type": "text/event-stream"})

    world.live[2]["description"] = "another"
    auth = world.auth(world.broker.sync_client(dpop_key=world.f.agent))
    with httpx2.Client(transport=httpx2.MockTransport(serve), auth=auth) as http:
        assert "data: " in http.post(RESOURCE, json=listing()).text
        with pytest.raises(ToolChangedError):
            http.post(RESOURCE, json=call("refund", {}))
        assert http.post(RESOURCE, json=call("lookup", {})).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund"}}]',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping","params":{"name":"refund"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund","arguments":{"a":1e300}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund","arguments":[]}}',
        b"not JSON",
    ],
)
def test_what_no_token_can_be_for_is_not_sent(body: bytes) -> None:
    world = World()
    with world.http() as http, pytest.raises(UnsafeRequestError):
        http.post(RESOURCE, content=body, headers={"content-type": "application/json"})
    assert world.requests == []
    assert world.broker.forms == []


@pytest.mark.parametrize(
    "url", ["https://evil.example.com/mcp", "http://pay.example.com/mcp", "https://pay.example.com:8443/mcp"]
)
def test_a_token_goes_to_no_other_place(url: str) -> None:
    world = World()
    with world.http() as http, pytest.raises(UnsafeRequestError):
        http.post(url, json=call("refund", {}))
    assert world.requests == []


def test_a_refused_exchange_sends_nothing() -> None:
    world = World()
    world.live.append({"name": "forbidden", "inputSchema": {"type": "object"}})
    with world.http() as http, pytest.raises(ExchangeError) as refused:
        http.post(RESOURCE, json=call("forbidden", {}))
    assert refused.value.decision_id == "d-1"
    assert all(json.loads(request.content)["method"] == "tools/list" for request in world.requests)


def test_a_cached_token_that_is_no_longer_good_is_exchanged_anew_once() -> None:
    world = World()
    with world.http() as http:
        http.post(RESOURCE, json=listing())
        cached = parse(world.requests[-1].headers["authorization"].removeprefix("DPoP "))
        world.f.guard.revoke(deputize.guard.Revocation("token", str(cached.claims["jti"])))
        assert http.post(RESOURCE, json=listing()).status_code == 200
        assert world.refused == ["use_dpop_nonce", "invalid_token"]
        world.f.guard.revoke(deputize.guard.Revocation("everything"))
        assert http.post(RESOURCE, json=listing()).status_code == 401
        assert world.refused[2:] == ["invalid_token", "invalid_token"]


def test_a_loose_level_is_asked_for_and_tightened_where_the_server_wants_it() -> None:
    world = World(level=lambda _: "L1")
    with world.http() as http:
        for _ in range(2):
            assert http.post(RESOURCE, json=call("lookup", {})).status_code == 200
        assert http.post(RESOURCE, json=call("refund", {})).status_code == 200
    assert [each.level.name for each in world.calls()] == ["L1", "L1", "L3"]
    assert world.calls()[0].token == world.calls()[1].token


def test_prompts_and_resources_have_tokens_of_their_own() -> None:
    world = World()
    world.f.guard.install(world.f.snapshot(version=2, **material()))
    world.f.guard.observe_prompts(PROMPTS)
    with world.http() as http:
        http.post(RESOURCE, json={**listing("prompts/get"), "params": {"name": "greet", "arguments": {"city": "Bonn"}}})
        http.post(RESOURCE, json={**listing("resources/read"), "params": {"uri": "demo://docs/a"}})
        with pytest.raises(UnsafeRequestError):
            http.post(RESOURCE, json={**listing("resources/read"), "params": {"name": "a"}})
    assert [verified.action for verified in world.calls()] == ["prompts/get", "resources/read"]
    asked = [json.loads(form.get("authorization_details", "[{}]"))[0] for form in world.broker.forms]
    said = [(each.get("actions"), each.get("identifier"), each.get("arguments")) for each in asked]
    assert said == [
        (["prompts/get"], "greet", {"city": "Bonn"}),
        (["resources/read"], "demo://docs/a", {}),
    ]


def test_a_server_that_never_takes_its_nonce_is_asked_twice() -> None:
    world = World()
    challenge = {"www-authenticate": 'DPoP error="use_dpop_nonce"', "dpop-nonce": "n"}
    asked: list[Any] = []

    def serve(request: Any) -> Any:
        asked.append(request)
        return httpx2.Response(401, headers=challenge)

    auth = world.auth(world.broker.sync_client(dpop_key=world.f.agent))
    with httpx2.Client(transport=httpx2.MockTransport(serve), auth=auth) as http:
        assert http.post(RESOURCE, json=listing()).status_code == 401
    assert len(asked) == 2
