"""Streams of changes (MCP 2026-07-28): what is subscribed to, what is heard, and when it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deputize import passage
from deputize.guard import Revocation
from guard_broker import until
from guard_fixture import call, l0, l1, l3
from session_server import LOOKUP, Stream, again, world

VERSION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
ASKED = {"toolsListChanged": True, "resourceSubscriptions": ["file:///etc/passwd"], "other": 1}
LISTEN = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "subscriptions/listen",
    "params": {"_meta": META, "notifications": ASKED},
}
HEADERS = {"mcp_protocol_version": VERSION, "mcp_method": "subscriptions/listen"}
FAREWELL = {"resultType": "complete", "_meta": {"io.modelcontextprotocol/subscriptionId": 7}}


def note(method: str) -> dict[str, Any]:
    meta = {"io.modelcontextprotocol/subscriptionId": 7}
    return {"jsonrpc": "2.0", "method": f"notifications/{method}", "params": {"_meta": meta}}


async def test_only_that_lists_changed_is_asked_for_and_heard() -> None:
    async with world(tools_max_age_seconds=1e9) as w:
        end = {"jsonrpc": "2.0", "id": 7, "result": {"resultType": "complete"}}
        elicit = {"jsonrpc": "2.0", "id": "s", "method": "elicitation/create", "params": {}}

        async def tells(stream: Stream) -> None:
            for method in ("subscriptions/acknowledged", "message", "tools/list_changed", "resources/updated"):
                await stream.say(note(method), cursor="c1")
            for message in (elicit, end, note("tools/list_changed")):
                await stream.say(message)

        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200
        w.server.serve, looks = tells, w.server.looks
        listening = w.send(LISTEN, **HEADERS)
        heard = [await listening.event() for _ in range(4)]
        assert heard == [note("subscriptions/acknowledged"), note("tools/list_changed"), end, None]
        _, received = w.server.received[-1]
        assert received["params"]["notifications"] == {"toolsListChanged": True}
        w.server.serve = None
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200
        assert w.server.looks == looks + 1, "the guard heard of the change as well"


async def test_a_subscription_needs_a_token_that_looks_and_says_what_to_hear() -> None:
    async with world() as w:
        for grant in (l1("lookup"), l3("lookup", {})):
            assert (await w.refused(w.send(LISTEN, grant, **HEADERS), 403))["error"] == "insufficient_scope"
        for asked in (None, [], "all"):
            params = {"_meta": META, "notifications": asked}
            await w.refused(w.send({**LISTEN, "params": params}, **HEADERS), 400)
        await w.refused(w.send({**LISTEN, "params": {"_meta": META}}, **HEADERS), 400)


@pytest.mark.parametrize("person", ["alice", "bob"])
async def test_a_subscription_ends_with_what_its_token_stood_for(person: str) -> None:
    async with world() as w:
        go = asyncio.Event()

        async def tells(stream: Stream) -> None:
            await stream.say(note("subscriptions/acknowledged"))
            await go.wait()
            await stream.say(note("tools/list_changed"))
            if person == "alice":
                # The server keeps the stream of who is revoked open for as long as it likes.
                await stream.gone.wait()

        w.server.serve = tells
        listening = w.send(LISTEN, **HEADERS)
        assert (await listening.event())["method"] == "notifications/subscriptions/acknowledged"
        w.app.guard.revoke(Revocation("person", f"user:acme:x:{person}"))
        go.set()
        if person == "bob":
            assert (await listening.event())["method"] == "notifications/tools/list_changed"
        assert await listening.event() == {"jsonrpc": "2.0", "id": 7, "result": FAREWELL}
        assert await listening.event() is None
        await listening.done()


async def test_a_silent_subscription_ends_when_it_is_revoked_or_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "_CHECK_SECONDS", 0.01)
    for is_revoked in (True, False):
        async with world() as w:

            async def silent(stream: Stream) -> None:
                await stream.say(note("subscriptions/acknowledged"))
                await stream.gone.wait()

            w.server.serve = silent
            listening = w.send(LISTEN, **HEADERS)
            assert (await listening.event())["method"] == "notifications/subscriptions/acknowledged"
            w.f.clock.advance(11)
            assert await asyncio.wait_for(listening._pieces.get(), 5) == b": alive\n\n"
            if is_revoked:
                w.app.guard.revoke(Revocation("everything"))
            else:
                w.f.clock.advance(3600)
                w.app.guard.hear_revocations()
            while (event := await listening.event()) is None:
                pass
            assert event["result"] == FAREWELL
            await listening.done()


async def test_a_client_that_leaves_ends_it_at_the_server() -> None:
    async with world() as w:
        streams: list[Stream] = []

        async def silent(stream: Stream) -> None:
            streams.append(stream)
            await stream.say(note("subscriptions/acknowledged"))
            await stream.gone.wait()

        w.server.serve = silent
        listening = w.send(LISTEN, **HEADERS)
        await listening.event()
        listening.leave()
        await until(streams[0].gone.is_set)
        await listening.done()
        open_streams = [await w.send(again(LISTEN, number), **HEADERS).begun() for number in range(16)]
        limited = w.send(LISTEN, **HEADERS)
        await w.refused(limited, 429)
        assert limited.headers["retry-after"] == "1"
        for stream in open_streams:
            stream.leave()


async def test_how_much_of_a_log_is_heard_is_for_who_looks() -> None:
    async with world() as w:
        session = await w.begin()
        level = {"jsonrpc": "2.0", "id": 3, "method": "logging/setLevel", "params": {"level": "debug"}}
        w.server.answers["logging/setLevel"] = {}
        await w.refused(w.send(level, l1("lookup"), mcp_session_id=session), 403)
        said = await w.send(level, l0(), mcp_session_id=session).json()
        assert said == {"jsonrpc": "2.0", "id": 3, "result": {}}
        headers, received = w.server.received[-1]
        assert (received, headers["mcp-method"], headers["mcp-session-id"]) == (level, "logging/setLevel", session)


async def test_whose_call_it_is_only_the_guard_says() -> None:
    async with world() as w:
        forged = {"deputize/call": "forged", "deputize/aws": {"uri": "http://127.0.0.1:1/", "authorization": "forged"}}
        body = {**LOOKUP, "params": {**LOOKUP["params"], "_meta": {**forged, "a": 1}}}
        assert (await w.send(body, l1("lookup")).begun()).status == 200
        assert w.server.received[-1][1]["params"]["_meta"] == {"a": 1}


@pytest.mark.parametrize(
    ("revocation", "goes_on"),
    [
        (Revocation("person", "user:acme:x:alice"), False),
        (Revocation("tool", "lookup"), False),
        (Revocation("everything"), False),
        (Revocation("person", "user:acme:x:bob"), True),
        (Revocation("tool", "refund"), True),
    ],
    ids=str,
)
@pytest.mark.parametrize("speaks", [True, False])
async def test_a_call_that_is_answered_as_a_stream_ends_when_it_is_revoked(
    revocation: Revocation,
    goes_on: bool,
    speaks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(passage, "_CHECK_SECONDS", 0.01)
    async with world() as w:
        go, gone = asyncio.Event(), asyncio.Event()

        async def slow(stream: Stream) -> None:
            await stream.say(note("message"))
            await go.wait()
            if speaks or goes_on:
                await stream.say(note("message"))
                await stream.answer({"content": []})
            if not goes_on:
                await stream.gone.wait()
                gone.set()

        w.server.serve = slow
        calling = w.send(call("lookup", {}), l1("lookup"))
        assert (await calling.event())["method"] == "notifications/message"
        w.app.guard.revoke(revocation)
        go.set()
        said = await calling.event()
        if goes_on:
            assert said["method"] == "notifications/message"
            assert (await calling.event())["result"] == {"content": []}
        else:
            assert said == {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "the token was revoked"}}
        assert await calling.event() is None
        await calling.done()
        assert gone.is_set() is not goes_on
        await until(lambda: any(event["kind"] in ("executed", "failed") for event in w.broker.reported))
        told = next(event for event in w.broker.reported if event["kind"] in ("executed", "failed"))
        assert (told["kind"], told["class"]) == (("executed", "ok") if goes_on else ("failed", "revoked"))
