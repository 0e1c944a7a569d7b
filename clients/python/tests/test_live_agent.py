"""An agent with the official MCP client, against `deputize dev` as it runs for anybody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from fastmcp import Client as FastMCPClient
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.client import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from deputize import AccessDeniedError, AsyncClient, Call, ExchangeError, ExchangeRequest, Tool, ToolToken
from deputize.auth import ToolCallAuth
from deputize.httpx_auth import ToolCallAuth as HttpxToolCallAuth
from deputize.mcp import CALL_REFUSED, http_client, http_client_factory
from dev import Dev


@asynccontextmanager
async def connected(dev: Dev, mode: str) -> AsyncIterator[McpClient]:
    resource = dev.server()["resource"]
    async with dev.client() as client, http_client(ToolCallAuth(client, resource, dev.alice)) as http:
        async with McpClient(streamable_http_client(resource, http_client=http), mode=mode) as mcp:
            yield mcp


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_calls_tools_with_nothing_but_the_auth(dev: Dev, mode: str) -> None:
    tool = dev.server()["tools"][0]
    async with connected(dev, mode) as mcp:
        assert tool["name"] in [each.name for each in (await mcp.list_tools()).tools]
        for _ in range(2):
            result = await mcp.call_tool(tool["name"], tool["example_arguments"])
            assert not result.is_error
            assert result.structured_content is not None
            assert result.structured_content["customer_id"] == tool["example_arguments"]["customer_id"]


async def test_a_call_is_bound_at_l3_without_listing_first(dev: Dev) -> None:
    tool = dev.server()["tools"][1]
    async with connected(dev, "legacy") as mcp:
        result = await mcp.call_tool(tool["name"], {**tool["example_arguments"], "amount_cents": 1})
        assert result.structured_content is not None
        assert result.structured_content["refunded_cents"] == 1


async def test_a_refused_call_fails_alone_and_says_what_to_do(dev: Dev) -> None:
    lookup, _, critical = dev.server()["tools"]
    async with connected(dev, "legacy") as mcp:
        with pytest.raises(MCPError) as refused:
            await mcp.call_tool(critical["name"], critical["example_arguments"])
        assert refused.value.error.code == CALL_REFUSED
        assert refused.value.error.data["error"] == "access_denied"
        assert refused.value.error.data["decision_id"]
        assert refused.value.error.data["what_to_do"]
        with pytest.raises(MCPError):
            await mcp.call_tool(lookup["name"], {"customer_id": "cus_17", "unknown": 1})
        with pytest.raises(MCPError):
            await mcp.call_tool("no_such_tool", {})
        # The connection is as good as before.
        assert not (await mcp.call_tool(lookup["name"], lookup["example_arguments"])).is_error


async def test_a_factory_serves_who_makes_clients_himself(dev: Dev) -> None:
    resource = dev.server()["resource"]
    async with dev.client() as client:
        factory = http_client_factory(ToolCallAuth(client, resource, lambda: dev.alice))
        async with factory(headers={"user-agent": "framework"}) as http:
            async with McpClient(streamable_http_client(resource, http_client=http), mode="legacy") as mcp:
                assert (await mcp.list_tools()).tools


async def test_a_framework_that_takes_an_auth_needs_nothing_else(dev: Dev) -> None:
    resource, tool = dev.server()["resource"], dev.server()["tools"][0]
    async with dev.client() as client:
        transport = StreamableHttpTransport(resource, auth=ToolCallAuth(client, resource, dev.alice))
        async with FastMCPClient(transport) as fastmcp:
            result = await fastmcp.call_tool(tool["name"], tool["example_arguments"])
            assert result.structured_content is not None
            assert result.structured_content["customer_id"] == tool["example_arguments"]["customer_id"]


def test_httpx_and_no_event_loop(dev: Dev) -> None:
    resource, tool = dev.server()["resource"], dev.server()["tools"][0]
    with dev.sync_client() as client:
        with httpx.Client(auth=HttpxToolCallAuth(client, resource, dev.alice), trust_env=False) as http:
            response = http.post(resource, json=message(tool["name"], tool["example_arguments"]))
    assert response.status_code == 200
    assert not response.json()["result"]["isError"]


async def test_what_was_granted_is_good_for_itself_alone(dev: Dev) -> None:
    resource, tool = dev.server()["resource"], dev.server()["tools"][0]
    name, arguments = tool["name"], tool["example_arguments"]
    async with dev.client() as client, httpx2.AsyncClient(trust_env=False) as http:
        token = await client.exchange(asking(dev, Call(name, arguments)))

        async def send(body: Any, to: str = resource, proof: str | None = None) -> httpx2.Response:
            nonce = (await http.post(to, json=body)).headers["dpop-nonce"]
            headers = {"authorization": token.authorization}
            headers["dpop"] = proof or client.proof_for("POST", to, token.access_token, nonce)
            return await http.post(to, json=body, headers=headers)

        for other in ({"customer_id": "cus_18"}, {**arguments, "more": 1}, {}):
            refused = await send(message(name, other))
            assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
        assert (await send(message("refund_payment", arguments))).status_code == 403
        assert (await send({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).status_code == 403
        elsewhere = await send(message(name, arguments), dev.server(1)["resource"])
        assert (elsewhere.status_code, elsewhere.json()["error"]) == (401, "invalid_token")
        assert (await send(message(name, arguments))).status_code == 200
        again = await send(message(name, arguments))
        assert (again.status_code, again.json()["error"]) == (401, "invalid_token")


async def test_a_proof_serves_once_and_a_bound_token_is_no_bearer_token(dev: Dev) -> None:
    resource, tool = dev.server()["resource"], dev.server()["tools"][0]
    body = message(tool["name"], tool["example_arguments"])
    async with dev.client() as client, httpx2.AsyncClient(trust_env=False) as http:
        token = await client.exchange(asking(dev, Tool(tool["name"])))
        nonce = (await http.post(resource, json=body)).headers["dpop-nonce"]
        headers = proving(client, token, resource, nonce)
        assert (await http.post(resource, json=body, headers=headers)).status_code == 200
        replayed = await http.post(resource, json=body, headers=headers)
        assert (replayed.status_code, replayed.json()["error"]) == (401, "invalid_dpop_proof")
        bearer = {**proving(client, token, resource, nonce), "authorization": f"Bearer {token.access_token}"}
        assert (await http.post(resource, json=body, headers=bearer)).status_code == 401
        async with dev.client() as thief:
            stolen = await http.post(resource, json=body, headers=proving(thief, token, resource, nonce))
            assert (stolen.status_code, stolen.json()["error"]) == (401, "invalid_dpop_proof")


async def test_a_revoked_token_is_no_longer_good(dev: Dev) -> None:
    resource, tool = dev.server()["resource"], dev.server()["tools"][0]
    body = message(tool["name"], tool["example_arguments"])
    async with dev.client() as client, httpx2.AsyncClient(trust_env=False) as http:
        token = await client.exchange(asking(dev, Tool(tool["name"])))
        nonce = (await http.post(resource, json=body)).headers["dpop-nonce"]
        assert (await http.post(resource, json=body, headers=proving(client, token, resource, nonce))).is_success
        assert (await client.introspect(token.access_token))["active"] is True
        await client.revoke(token.access_token)
        assert (await client.introspect(token.access_token))["active"] is False
        refused = await http.post(resource, json=body, headers=proving(client, token, resource, nonce))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


async def test_the_broker_refuses_as_the_errors_say(dev: Dev) -> None:
    async with dev.client() as client:
        for request, error in (
            (asking(dev, resource="http://127.0.0.1:9/mcp"), "invalid_target"),
            (asking(dev, Tool("no_such_tool")), "invalid_authorization_details"),
            (asking(dev, subject_token="a.b.c"), "invalid_request"),
        ):
            with pytest.raises(ExchangeError) as refused:
                await client.exchange(request)
            assert refused.value.error == error
            assert refused.value.decision_id
        critical = dev.server()["tools"][2]
        with pytest.raises(AccessDeniedError):
            await client.exchange(asking(dev, Call(critical["name"], critical["example_arguments"])))


def asking(dev: Dev, detail: Any = None, **changes: Any) -> ExchangeRequest:
    detailed = {} if detail is None else {"detail": detail}
    return ExchangeRequest(**{"resource": dev.server()["resource"], "subject_token": dev.alice, **detailed, **changes})


def proving(client: AsyncClient, token: ToolToken, url: str, nonce: str) -> dict[str, str]:
    proof = client.proof_for("POST", url, token.access_token, nonce)
    return {"authorization": token.authorization, "dpop": proof}


def message(name: str, arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
