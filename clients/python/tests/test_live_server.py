"""The example servers, as anybody starts them, before `deputize dev`: called by the official client and attacked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client.client import Client as McpClient
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from deputize import AsyncClient, Call, ExchangeRequest, ToolToken
from deputize.auth import ToolCallAuth
from deputize.mcp import http_client
from dev import ROOT, Dev

EXAMPLES = ROOT / "clients" / "python" / "examples"
NOTE = {"customer_id": "cus_17", "text": "called"}
START_SECONDS = 60.0
VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}


class Server:
    """An example server in a process of its own, registered in a development environment of its own."""

    def __init__(self, dev: Dev, url: str) -> None:
        self.dev = dev
        self.url = url

    async def token(self, client: AsyncClient, arguments: Any = NOTE) -> ToolToken:
        detail = Call("add_note", arguments)
        return await client.exchange(ExchangeRequest(resource=self.url, subject_token=self.dev.alice, detail=detail))

    async def send(
        self, http: httpx2.AsyncClient, client: AsyncClient, token: ToolToken, body: Any, **headers: str
    ) -> httpx2.Response:
        """Sends as an honest agent does, but for what is said otherwise."""
        nonce = (await http.post(self.url, json={})).headers["dpop-nonce"]
        said = {
            "authorization": token.authorization,
            "dpop": client.proof_for("POST", self.url, token.access_token, nonce),
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": VERSION,
            **routed(body),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await http.post(self.url, content=content, headers=said)


def routed(body: Any) -> dict[str, str]:
    """The headers that say what the body says, where it says something."""
    try:
        message = json.loads(body) if isinstance(body, bytes) else body
    except ValueError:
        return {}
    name = message["params"].get("name") if isinstance(message, dict) and "params" in message else None
    said = {"mcp-method": message["method"]} if isinstance(message, dict) else {}
    return said if name is None else {**said, "mcp-name": name}


@contextmanager
def started(example: str, folder: Path) -> Iterator[Server]:
    port = free_port()
    environment = {**os.environ, "PORT": str(port), "FASTMCP_CHECK_FOR_UPDATES": "off"}
    record = folder / "record.json"
    with record.open("wb") as file:
        command = [sys.executable, "record.py", example]
        subprocess.run(command, cwd=EXAMPLES, env=environment, stdout=file, check=True, timeout=START_SECONDS)
    url = f"http://127.0.0.1:{port}/mcp"
    with Dev("--register", str(record)) as dev:
        ready = folder / "ready.json"
        ready.write_text(json.dumps(dev.ready))
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, f"{example}.py", str(ready)],
                cwd=EXAMPLES,
                env=environment,
                stdout=output,
                stderr=output,
            )
        try:
            wait_until_it_answers(process, url, log)
            yield Server(dev, url)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until it has its snapshot: before, it answers 503."""
    end = time.monotonic() + START_SECONDS
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    while process.poll() is None and time.monotonic() < end:
        try:
            if httpx2.post(url, json=body, trust_env=False).status_code == 401:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the example did not start:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", params=["fastmcp_server", "starlette_server"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_official_client_calls_it(server: Server, mode: str) -> None:
    async with server.dev.client() as client, http_client(ToolCallAuth(client, server.url, server.dev.alice)) as http:
        async with McpClient(streamable_http_client(server.url, http_client=http), mode=mode) as mcp:
            assert [tool.name for tool in (await mcp.list_tools()).tools] == ["add_note"]
            for text in ("called", "called again", "called again"):
                noted = (await mcp.call_tool("add_note", {**NOTE, "text": text})).structured_content
                assert noted is not None
                assert (noted["text"], noted["agent"]) == (text, "spiffe://corp.example/agent/support-bot")
                assert "alice" in noted["by"]
            with pytest.raises(MCPError) as refused:
                await mcp.call_tool("add_note", {**NOTE, "more": 1})
            assert refused.value.error.data["error"] == "invalid_authorization_details"


async def test_a_token_is_good_for_its_call_alone(server: Server) -> None:
    async with server.dev.client() as client, httpx2.AsyncClient(trust_env=False) as http:
        token = await server.token(client)
        for body, status in (
            (call({**NOTE, "text": "another"}), 403),
            (call({"customer_id": "cus_17"}), 403),
            (call({**NOTE, "more": "x"}), 403),
            (call({}), 403),
            (call(NOTE, name="delete_everything"), 403),
            ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, 403),
            ([call(NOTE), call(NOTE)], 400),
            ({**call(NOTE), "id": {}}, 400),
            ({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "add_note", "arguments": NOTE}}, 400),
            (json.dumps(call(NOTE)).replace('"method"', '"method": "ping", "method"').encode(), 400),
            (json.dumps(call(NOTE)).encode() + b"x", 400),
            (b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}', 403),
        ):
            refused = await server.send(http, client, token, body)
            assert refused.status_code == status, body
            assert refused.json()["error"] in ("insufficient_scope", "invalid_request")
        for headers, status in (
            ({"mcp_name": "other"}, 400),
            ({"mcp_method": "tools/list"}, 400),
            ({"content_encoding": "gzip"}, 415),
            ({"authorization": f"Bearer {token.access_token}"}, 401),
            ({"dpop": "x.y.z"}, 401),
        ):
            assert (await server.send(http, client, token, call(NOTE), **headers)).status_code == status, headers
        # None of this used the token up; written in another order it is the same call, once.
        assert (await server.send(http, client, token, call(dict(reversed(NOTE.items()))))).status_code == 200
        again = await server.send(http, client, token, call(NOTE))
        assert (again.status_code, again.json()["error"]) == (401, "invalid_token")


async def test_a_stolen_token_or_a_proof_shown_twice_is_worth_nothing(server: Server) -> None:
    async with server.dev.client() as client, server.dev.client() as thief:
        async with httpx2.AsyncClient(trust_env=False) as http:
            token = await server.token(client)
            stolen = await server.send(http, thief, token, call(NOTE))
            assert (stolen.status_code, stolen.json()["error"]) == (401, "invalid_dpop_proof")
            nonce = (await http.post(server.url, json={})).headers["dpop-nonce"]
            proof = client.proof_for("POST", server.url, token.access_token, nonce)
            assert (await server.send(http, client, token, call({}), dpop=proof)).status_code == 403
            replayed = await server.send(http, client, token, call(NOTE), dpop=proof)
            assert (replayed.status_code, replayed.json()["error"]) == (401, "invalid_dpop_proof")
            foreign = await client.exchange(
                ExchangeRequest(
                    resource=server.dev.server()["resource"],
                    subject_token=server.dev.alice,
                    detail=Call("lookup_customer", {"customer_id": "cus_17"}),
                )
            )
            assert (await server.send(http, client, foreign, call(NOTE))).status_code == 401


async def test_a_revoked_token_is_refused_at_once(server: Server) -> None:
    async with server.dev.client() as client, httpx2.AsyncClient(trust_env=False) as http:
        token = await server.token(client)
        await client.revoke(token.access_token)
        refused = await server.send(http, client, token, call(NOTE))
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


async def test_metadata_names_the_broker(server: Server) -> None:
    async with httpx2.AsyncClient(trust_env=False) as http:
        challenge = (await http.post(server.url, json=call(NOTE))).headers["www-authenticate"]
        where = challenge.partition('resource_metadata="')[2].partition('"')[0]
        said = (await http.get(where)).json()
    assert (said["resource"], said["authorization_servers"]) == (server.url, [server.dev.ready["issuer"]])


def test_a_chunk_extension_or_trailing_bytes_change_nothing(server: Server) -> None:
    host, port = "127.0.0.1", int(server.url.rsplit(":", 1)[1].partition("/")[0])
    head = f"POST /mcp HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    body = json.dumps(call(NOTE)).encode()
    chunked = f"{len(body):x};x={'y' * 100_000}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    for request in (
        head.encode() + b"transfer-encoding: chunked\r\n\r\n" + chunked,
        head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body + body,
        head.encode() + f"content-length: {len(body)}\r\ntransfer-encoding: chunked\r\n\r\n".encode() + chunked,
    ):
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(request)
            answer = connection.recv(65_536)
        assert answer.split(b" ")[1] in (b"400", b"401"), answer[:200]


def test_the_example_agent_runs_as_its_readme_says(server: Server, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text(json.dumps(server.dev.ready))

    def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "agent.py", str(ready), *arguments]
        return subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=60, check=False)

    own = agent()
    assert (own.returncode, "Grace Gray" in own.stdout) == (0, True), own.stderr
    here = agent("add_note", json.dumps(NOTE), server.url)
    assert (here.returncode, "spiffe://corp.example/agent/support-bot" in here.stdout) == (0, True), here.stderr
    refused = agent("export_customers", '{"format": "json"}')
    assert refused.returncode == 3
    assert "decision" in refused.stderr


def call(arguments: Any, name: str = "add_note") -> dict[str, Any]:
    params = {"name": name, "arguments": arguments, "_meta": META}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
