"""The middleware in front of an app, over ASGI: what reaches the app, and what it answers otherwise."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from deputize.asgi import MiddlewareOptions, ToolCallMiddleware, current_call
from deputize.call.keys import SigningKey
from deputize.starlette import verified, verified_call
from guard_broker import GuardBroker, eventually, until
from guard_fixture import ISSUER, NOW, RESOURCE, Fixture, call, definitions, l0, l1, l3, listing

METADATA = "/.well-known/oauth-protected-resource/mcp"


class App:
    """An MCP server of a few lines behind the middleware, and an agent that knows how to ask it."""

    def __init__(self, f: Fixture, **options: Any) -> None:
        self.f = f
        self.broker = GuardBroker(f)
        self.live: Any = definitions()
        self.ran: list[tuple[Request, bytes]] = []
        self.seen: list[str] = []
        self.looks = 0
        self.asked_at: list[tuple[str, str]] = []
        """Path and `Host` of each look."""
        self.host = "pay.example.com"
        """What `Host` the server answers to, as the MCP SDK has it."""
        self.events = False
        options = {"open_paths": ("/healthz", "/docs/"), **options}
        given = MiddlewareOptions(clock=f.clock, broker=self.broker.client(), **options)
        routes = [
            Route("/mcp", self.serve, methods=["GET", "POST", "DELETE"]),
            Route("/healthz", lambda request: Response(f"ok {request.headers.get('deputize-call')}")),
            Route("/docs/{page}", lambda _: Response("a page")),
            Route("/other", lambda _: Response("secret"), methods=["GET", "POST"]),
        ]
        self.starlette = Starlette(
            routes=routes, middleware=[Middleware(ToolCallMiddleware, settings=f.settings, options=given)]
        )
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.starlette), base_url="https://pay.example.com"
        )

    async def serve(self, request: Request) -> Response:
        body = await request.body()
        message = json.loads(body)
        if request.headers["host"] != self.host:
            return Response(status_code=421)
        if message["method"] == "tools/list":
            if message["id"] == "deputize-tools/list":
                self.looks += 1
                self.asked_at.append((request.url.path, request.headers["host"]))
                assert request.headers["mcp-protocol-version"] == "2026-07-28"
            else:
                self.seen.append(type(verified(request)).__name__)
            return self.answer(message, {"tools": self.live})
        if message["method"] == "initialize":
            return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": {}}, headers={"mcp-session-id": "s1"})
        self.ran.append((request, body))
        assert verified_call(request) is current_call()
        return self.answer(message, {"content": []})

    def answer(self, message: Any, result: Any) -> Response:
        said = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        if not self.events:
            return JSONResponse(said)
        chunks = [
            b"event: message\r\ndata: \r\n\r\n",
            b"event: message\r\nda",
            b"ta: " + json.dumps(said).encode(),
            b"\r\n\r\n",
        ]
        return StreamingResponse(iter(chunks), media_type="text/event-stream")

    async def ask(self, detail: Any, body: Any, path: str = "/mcp", **headers: str) -> httpx2.Response:
        """Asks as an honest agent does, but for what is said otherwise."""
        token = headers.pop("token", None) or self.f.token(detail)
        nonce = (await self.http.post("/mcp", json=listing("ping"))).headers["dpop-nonce"]
        proof = headers.pop("dpop", None) or self.f.proof(token, nonce=nonce)
        said = {"authorization": f"DPoP {token}", "dpop": proof, "content-type": "application/json", **headers}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in said.items() if value}
        return await self.http.post(path, content=content, headers=sent)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[App]:
    f = Fixture(**{name: options.pop(name) for name in ("max_body_bytes",) if name in options})
    app = App(f, **options)
    # The first request begins to follow the broker, where the server has no lifespan.
    await eventually(lambda: app.http.post("/mcp", json=listing("ping")), lambda answer: answer.status_code != 503)
    try:
        yield app
    finally:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[arg-type]
            task.cancel()


async def test_a_granted_call_runs_on_what_was_verified() -> None:
    async with running() as app:
        params = rb'{"arguments":{"note":"\u0041"},"name":"lookup"}'
        body = b' {"params":' + params + b', "method":"tools/call","id":7,"jsonrpc":"2.0"}'
        token = app.f.token(l1("lookup"))
        forged = {"deputize_call": "forged", "deputize_user": "root", "mcp_method": "tools/call", "x_user": "root"}
        response = await app.ask(None, body, token=token, **forged)
        assert response.status_code == 200
        assert response.headers["dpop-nonce"]
        (request, ran) = app.ran[0]
        assert json.loads(ran) == {**call("lookup", {"note": "A"}), "id": 7}
        assert ran == json.dumps(json.loads(ran), separators=(",", ":")).encode()
        assert request.headers.getlist("content-length") == [str(len(ran))]
        assert request.headers.getlist("deputize-call") == [token]
        assert request.headers.getlist("mcp-name") == ["lookup"]
        assert not {"authorization", "dpop", "deputize-user", "x-user"} & set(request.headers)
        assert request.state.verified_call.user == "user:acme:x:alice"
    with pytest.raises(LookupError):
        current_call()


async def test_what_is_not_granted_does_not_reach_the_app() -> None:
    async with running() as app:
        refund = {"payment_id": "pay_81", "amount_cents": 4200}
        for other in ({**refund, "amount_cents": 4201}, {"payment_id": "pay_81"}, {**refund, "note": ""}, {}):
            refused = await app.ask(l3("refund", refund), call("refund", other))
            assert refused.status_code == 403
            assert refused.json()["error"] == "insufficient_scope"
            assert refused.json()["authorization_details"][0]["arguments"] == other
            assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
        assert (await app.ask(l3("refund", refund), call("lookup", refund))).status_code == 403
        assert (await app.ask(l1("lookup", locations=["https://x.example"]), call("lookup", {}))).status_code == 401
        expired = app.f.token(l1("lookup"), iat=NOW - 90, nbf=NOW - 90, exp=NOW - 30)
        assert (await app.ask(None, call("lookup", {}), token=expired)).status_code == 401
        bearer = await app.ask(None, call("lookup", {}), authorization=f"Bearer {app.f.token(l1('lookup'))}")
        assert bearer.status_code == 401
        assert app.ran == []
        assert app.broker.redeemed == []
        # Reordered and written another way it is the same call.
        arguments = b'{"amount_cents":4200.0,"payment_id":"pay_81"}'
        same = json.dumps(call("refund", {})).encode().replace(b"{}", arguments)
        assert (await app.ask(l3("refund", refund), same)).status_code == 200


async def test_once_is_once() -> None:
    async with running() as app:
        token = app.f.token(l3("refund", {}))
        assert (await app.ask(None, call("refund", {}), token=token)).status_code == 200
        again = await app.ask(None, call("refund", {}), token=token)
        assert (again.status_code, again.json()["error"]) == (401, "invalid_token")
        loose = app.f.token(l1("lookup"))
        nonce = (await app.http.post("/mcp", json=listing("ping"))).headers["dpop-nonce"]
        proof = app.f.proof(loose, nonce=nonce)
        assert (await app.ask(None, call("lookup", {}), token=loose, dpop=proof)).status_code == 200
        replayed = await app.ask(None, call("lookup", {}), token=loose, dpop=proof)
        assert (replayed.status_code, replayed.json()["error"]) == (401, "invalid_dpop_proof")
        assert len(app.ran) == 2


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (json.dumps([call("lookup", {}), call("lookup", {})]).encode(), {}, 400),
        (json.dumps({**call("lookup", {}), "id": {}}).encode(), {}, 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"lookup"}}', {}, 400),
        (json.dumps({**call("lookup", {}), "id": None}).encode(), {}, 400),
        (b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"lookup"}}', {}, 400),
        (json.dumps(call("lookup", {})).encode() + b"{}", {}, 400),
        (json.dumps(call("lookup", {})).encode(), {"mcp_name": "refund"}, 400),
        (json.dumps(call("lookup", {})).encode(), {"mcp_method": "tools/list"}, 400),
        (json.dumps(call("lookup", {})).encode(), {"mcp_param_payment": "p"}, 400),
        (json.dumps(call("lookup", {})).encode(), {"content_encoding": "gzip"}, 415),
        (json.dumps(call("lookup", {})).encode(), {"content_type": "text/plain"}, 415),
        (json.dumps(call("lookup", {"note": "x" * 2000})).encode(), {}, 413),
        (json.dumps(listing("resources/read")).encode(), {}, 400),
        (json.dumps(listing("resources/subscribe")).encode(), {}, 403),
        (json.dumps(listing("sampling/createMessage")).encode(), {}, 403),
    ],
)
async def test_what_is_not_one_request_is_refused(body: bytes, headers: dict[str, str], status: int) -> None:
    async with running(max_body_bytes=1500) as app:
        refused = await app.ask(l1("lookup"), body, **headers)
        assert refused.status_code == status
        assert refused.json()["error_description"]
        assert app.ran == []


async def test_a_body_is_bounded_in_size_and_time_whatever_its_length_says() -> None:
    async with running(max_body_bytes=1000, body_timeout_seconds=0.05) as app:

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 400

        async def silent() -> AsyncIterator[bytes]:
            yield b"{"
            await asyncio.Event().wait()

        assert (await app.http.post("/mcp", content=endless())).status_code == 413
        for length in ("1001", "99999999999999999999", "-1", "1e3", "\u00b2"):
            response = await raw(app.starlette, [(b"content-length", length.encode("latin-1"))], [b"{}"])
            assert response == 413
        assert await raw(app.starlette, [], [b"{", None]) == 408
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200


async def raw(app: Any, headers: list[tuple[bytes, bytes]], chunks: list[bytes | None]) -> int:
    """One request straight over ASGI; `None` is silence."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        chunk = chunks.pop(0)
        if chunk is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return statuses[0]


async def test_nothing_that_is_said_to_be_open_opens_the_endpoint() -> None:
    for paths in (("/",), ("/mcp",), ("/mcp", "/mcp/")):
        async with running(open_paths=paths) as app:
            for path in ("/mcp", "/mcp/"):
                assert (await app.http.post(path, json=listing())).status_code == 401, (paths, path)
                assert (await app.http.get(path)).status_code == 401, (paths, path)
            assert app.ran == []


async def test_everything_is_guarded_but_what_is_said_to_be_open() -> None:
    async with running() as app:
        assert (await app.http.get("/healthz", headers={"Deputize-Call": "forged"})).text == "ok None"
        for method, path, status in (
            ("GET", "/other", 404),
            ("POST", "/other", 404),
            ("GET", "/healthz/", 404),
            ("GET", "/docs", 404),
            ("GET", "/docs/page", 200),
            ("GET", "/docs/../other", 404),
            ("POST", "/mcp/", 401),
            ("POST", "/%6dcp", 401),
            ("GET", "/mcp", 401),
            ("DELETE", "/mcp", 401),
            ("PUT", "/mcp", 405),
        ):
            answer = await app.http.request(method, path, json=None if method in ("GET", "DELETE") else listing())
            assert answer.status_code == status, (method, path)
        token = app.f.token(l1("lookup"))
        app.f.clock.advance(6)
        assert (await app.http.post("/other", json=call("lookup", {}))).status_code == 404
        assert app.looks == 0, "what is no endpoint is not asked for tools either"
        assert (await app.ask(None, call("lookup", {}), token=token, path="/other")).status_code == 404
        assert (await app.ask(None, call("lookup", {}), token=token)).status_code == 200
        assert (await app.http.put("/mcp")).headers["allow"] == "GET, POST, DELETE"
        closed: list[Any] = []

        async def send(message: Any) -> None:
            closed.append(message)

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        await app.starlette({"type": "websocket", "path": "/mcp", "headers": []}, receive, send)
        assert closed == [{"type": "websocket.close", "code": 1008}]


async def test_a_client_without_a_token_learns_whom_to_ask() -> None:
    async with running() as app:
        refused = await app.http.post("/mcp", json=call("lookup", {}))
        assert refused.status_code == 401
        assert "error=" not in refused.headers["www-authenticate"]
        assert f'resource_metadata="https://pay.example.com{METADATA}"' in refused.headers["www-authenticate"]
        said = (await app.http.get(METADATA)).json()
        assert (said["resource"], said["authorization_servers"]) == (RESOURCE, [ISSUER])
        assert said["dpop_bound_access_tokens_required"] is True
        assert (await app.http.post(METADATA)).status_code == 405


@pytest.mark.parametrize("events", [False, True])
async def test_a_list_shows_what_was_approved_as_it_is(events: bool) -> None:
    async with running() as app:
        app.events = events
        app.live[1]["description"] = "drifted"
        app.live.append({"name": "unapproved", "inputSchema": {"type": "object"}})
        app.f.clock.advance(6)
        listed = await app.ask(l0(), listing())
        assert listed.status_code == 200
        *_, text = (line.removeprefix("data: ") for line in listed.text.splitlines() if line)
        assert [tool["name"] for tool in json.loads(text)["result"]["tools"]] == ["lookup", "refund"]
        assert listed.headers.get("content-length", str(len(listed.content))) == str(len(listed.content))
        assert app.seen == ["VerifiedListing"]
        assert (await app.ask(l1("lookup"), listing())).status_code == 403
        assert (await app.ask(l3("transfer", {}), call("transfer", {}))).status_code == 403
        assert app.ran == []
        await until(lambda: any(event["kind"] == "drifted" for event in app.broker.reported))


async def test_the_tools_are_looked_at_again_when_the_last_look_is_old() -> None:
    async with running() as app:
        for _ in range(3):
            assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200
        assert app.looks == 1
        app.live[0]["title"] = "another"
        app.f.clock.advance(6)
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 403
        assert app.looks == 2


async def test_what_was_seen_counts_while_a_look_fails_and_the_next_waits_a_second() -> None:
    async with running() as app:
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200
        app.live = "no list"
        app.f.clock.advance(6)
        for _ in range(3):
            assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200
        assert app.looks == 2
        app.f.clock.advance(1)
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200
        assert app.looks == 3
        app.live = definitions()[1:]
        app.f.clock.advance(1)
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 403, "the look is what counts again"
        await until(lambda: kinds(app)[-1:] == ["list_changed"])
        assert kinds(app).count("list_changed") == 1, "a look that failed shows no change"


async def test_while_nothing_was_seen_nothing_is_called() -> None:
    async with running() as app:
        app.live = "no list"
        assert (await app.ask(l3("refund", {}), call("refund", {}))).status_code == 503
        assert app.broker.redeemed == []
        app.live = definitions()
        assert (await app.ask(l3("refund", {}), call("refund", {}))).status_code == 503, "not a second has passed"
        app.f.clock.advance(1)
        assert (await app.ask(l3("refund", {}), call("refund", {}))).status_code == 200


def kinds(app: App) -> list[str]:
    return [event["kind"] for event in app.broker.reported]


async def test_nobody_without_a_good_token_has_the_server_looked_at() -> None:
    async with running() as app:
        good, elsewhere = app.f.token(l1("lookup")), {"host": "evil.example.com"}
        expired = app.f.token(l1("lookup"), iat=NOW - 90, nbf=NOW - 90, exp=NOW - 30)
        stolen = app.f.proof(good, SigningKey.generate())

        async def refused() -> None:
            for path in ("/mcp", "/mcp/"):
                for headers in ({}, elsewhere):
                    assert (await app.http.post(path, json=listing(), headers=headers)).status_code == 401
                    for token, dpop in ((expired, None), (good, stolen), (good, "forged"), ("forged", "forged")):
                        more = {"token": token, "dpop": dpop, **headers}
                        assert (await app.ask(None, call("lookup", {}), path, **more)).status_code == 401

        await refused()
        assert app.looks == 0
        assert (await app.ask(None, call("lookup", {}), token=good)).status_code == 200
        app.f.clock.advance(6)
        await refused()
        assert app.looks == 1
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200
        assert app.looks == 2
        await until(lambda: kinds(app).count("executed") == 2)
        assert kinds(app) == ["discovered", "executed", "executed"]


async def test_the_server_is_looked_at_where_it_is_whatever_a_request_says() -> None:
    async with running() as app:
        # The app itself answers neither (307, 421); with a token it may be asked all the same.
        assert (await app.ask(l0(), listing(), "/mcp/")).status_code == 502
        app.f.clock.advance(6)
        assert (await app.ask(l0(), listing(), host="evil.example.com")).status_code == 502
        assert app.asked_at == [("/mcp", "pay.example.com")] * 2
        assert (await app.ask(l1("lookup"), call("lookup", {}))).status_code == 200
    async with running(mcp_host="127.0.0.1:8000") as app:
        app.host = "127.0.0.1:8000"
        assert (await app.ask(l1("lookup"), call("lookup", {}), host=app.host)).status_code == 200
        assert app.asked_at == [("/mcp", app.host)]


async def test_revocations_reach_calls() -> None:
    async with running() as app:
        token = app.f.token(l1("lookup"))
        assert (await app.ask(None, call("lookup", {}), token=token)).status_code == 200
        app.broker.push("revocation", {"kind": "person", "sub": "user:acme:x:alice"})
        refused = await eventually(
            lambda: app.ask(None, call("lookup", {}), token=token), lambda answer: answer.status_code != 200
        )
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


async def test_a_session_belongs_to_who_began_it() -> None:
    async with running() as app:
        begun = await app.ask(l0(), listing("initialize"))
        assert begun.headers["mcp-session-id"] == "s1"
        assert (await app.ask(l1("lookup"), call("lookup", {}), mcp_session_id="s1")).status_code == 200
        for changes in ({"sub": "user:acme:x:bob"}, {"act": {"sub": "agent:other"}}, {"act": None}):
            token = app.f.token(l3("refund", {}), **changes)
            stolen = await app.ask(None, call("refund", {}), token=token, mcp_session_id="s1")
            assert stolen.status_code == 404
        assert (await app.ask(l1("lookup"), call("lookup", {}), mcp_session_id="made-up")).status_code == 404
        assert app.broker.redeemed == [], "nothing was spent"


async def test_what_ran_is_reported() -> None:
    async with running() as app:
        token = app.f.token(l3("refund", {}))
        await app.ask(None, call("refund", {}), token=token)
        await until(lambda: any(event["kind"] == "executed" for event in app.broker.reported))
        executed = next(event for event in app.broker.reported if event["kind"] == "executed")
        assert (executed["tool"], executed["class"]) == ("refund", "ok")
        assert executed["txn"]
        assert executed["jti"]
        assert executed["bytes"] > 0


async def test_the_lifespan_begins_and_ends_the_link() -> None:
    f = Fixture()
    broker = GuardBroker(f)
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        started.set()
        assert (await receive())["type"] == "lifespan.shutdown"

    middleware = ToolCallMiddleware(app, f.settings, MiddlewareOptions(clock=f.clock, broker=broker.client()))
    messages: asyncio.Queue[Any] = asyncio.Queue()
    serving = asyncio.create_task(middleware({"type": "lifespan"}, messages.get, None))  # type: ignore[arg-type]
    messages.put_nowait({"type": "lifespan.startup"})
    await started.wait()
    await until(lambda: len(broker.queues) == 1)
    await asyncio.wait_for(middleware.wait_until_connected(), 5)
    messages.put_nowait({"type": "lifespan.shutdown"})
    await serving
    assert middleware._following is not None
    assert middleware._following.done()
