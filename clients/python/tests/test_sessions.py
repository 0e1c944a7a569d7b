"""Sessions of MCP up to 2025-11-25 behind the middleware: whose they are, and what goes on in them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deputize.call.keys import SigningKey
from deputize.guard import Refused, Revocation
from deputize.limits import Limits
from guard_broker import until
from guard_fixture import call, definitions, l0, l1, l2, l3
from session_server import LIST, LOOKUP, REFUND, VERSION, Stream, World, again, world

ELICIT = {"jsonrpc": "2.0", "id": "e1", "method": "elicitation/create", "params": {"message": "which?"}}
SAMPLE = {"jsonrpc": "2.0", "id": "m1", "method": "sampling/createMessage", "params": {}}
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x"}}


def response(request_id: Any, result: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": {} if result is None else result}


async def test_a_session_is_its_callers_alone() -> None:
    async with world() as w:
        session = await w.begin()
        assert (await w.send(LOOKUP, l1("lookup"), mcp_session_id=session).begun()).status == 200
        other = SigningKey.generate()
        strangers: list[dict[str, Any]] = [
            {"claims": {"sub": "user:acme:x:bob"}},
            {"claims": {"act": {"sub": "agent:other"}}},
            {"claims": {"act": None}},
            {"claims": {"client_id": "another"}},
            {"claims": {"cnf": {"jkt": other.public.thumbprint}}, "key": other},
        ]
        spent = len(w.broker.redeemed)
        for stranger in strangers:
            for body, detail in ((REFUND, l3("refund", {})), (LIST, l0()), (NOTE, l0()), (response("e1"), l0())):
                sent = w.send(body, detail, mcp_session_id=session, **stranger)
                assert (await w.refused(sent, 404))["error"] == "unknown_session"
            for method in ("GET", "DELETE"):
                sent = w.send(None, method=method, mcp_session_id=session, **stranger)
                await w.refused(sent, 404)
        await w.refused(w.send(LIST, mcp_session_id="made-up"), 404)
        assert len(w.broker.redeemed) == spent, "nothing was spent"
        assert (await w.send(REFUND, l3("refund", {}), mcp_session_id=session).begun()).status == 200


async def test_the_server_hears_of_a_session_what_the_guard_says() -> None:
    async with world() as w:
        session = await w.begin(mcp_session_id="brought-along")
        headers, begun = w.server.received[0]
        assert "mcp-session-id" not in headers, "what begins is in no session"
        assert begun["params"]["capabilities"] == {"roots": {}}
        sent = w.send(LIST, mcp_session_id=session, mcp_protocol_version=VERSION)
        assert [tool["name"] for tool in (await sent.json())["result"]["tools"]] == ["lookup", "transfer", "refund"]
        headers, _ = w.server.received[1]
        assert headers["mcp-session-id"] == session
        assert headers["mcp-protocol-version"] == VERSION
        assert (await w.send(LIST).begun()).status == 200
        assert "mcp-session-id" not in w.server.received[2][0]


async def test_a_server_that_gives_one_id_twice_begins_no_second_session() -> None:
    async with world() as w:
        w.server.session_ids = iter(["s1", "s1", "no name", "s2"])
        session = await w.begin()
        begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        bob = {"sub": "user:acme:x:bob"}
        for _ in range(2):
            taken = w.send(begin, claims=bob)
            assert (await taken.json())["error"] == "server_error"
            assert taken.status == 502
        await w.refused(w.send(LIST, claims=bob, mcp_session_id=session), 404)
        assert (await w.send(LIST, mcp_session_id=session).begun()).status == 200


async def test_an_id_serves_one_request_at_a_time() -> None:
    async with world() as w:
        session, go = await w.begin(), asyncio.Event()

        async def slow(stream: Stream) -> None:
            await stream.say(NOTE)
            await go.wait()
            await stream.answer({"content": []})

        w.server.serve = slow
        first = w.send(REFUND, l3("refund", {}), mcp_session_id=session)
        assert (await first.event())["method"] == "notifications/message"
        for body in (REFUND, again(LIST, 1)):
            sent = w.send(body, l3("refund", {}) if body is REFUND else l0(), mcp_session_id=session)
            assert "id" in (await w.refused(sent, 400))["error_description"]
        assert len(w.broker.redeemed) == 1, "the second was not spent"
        elsewhere = await w.begin()
        assert (await w.send(again(LIST, 1), mcp_session_id=elsewhere).begun()).status == 200
        assert (await w.send(again(LIST, "1"), mcp_session_id=session).begun()).status == 200, "a text is no number"
        go.set()
        assert "result" in await first.event()
        assert await first.event() is None
        await first.done()
        assert (await w.send(again(LIST, 1), mcp_session_id=session).begun()).status == 200


async def test_what_the_server_asks_is_answered_once_by_who_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        session, answered = await w.begin(), asyncio.Event()

        async def asks(stream: Stream) -> None:
            await stream.say(ELICIT)
            await answered.wait()
            await stream.answer({"content": []})

        w.server.serve = asks
        calling = w.send(LOOKUP, l1("lookup"), mcp_session_id=session)
        assert await calling.event() == ELICIT
        await w.refused(w.send(response("e2"), mcp_session_id=session), 400)
        await w.refused(w.send(response("e1")), 400)
        await w.refused(w.send(response("e1"), l1("lookup"), mcp_session_id=session), 403)
        await w.refused(w.send(response("e1"), mcp_session_id=session, claims={"sub": "user:acme:x:bob"}), 404)
        for broken in (
            {**response("e1"), "error": {"code": 1, "message": ""}},
            {"jsonrpc": "2.0", "id": "e1"},
            {"jsonrpc": "2.0", "id": "e1", "result": 1},
            {"jsonrpc": "2.0", "result": {}},
            {**response("e1"), "params": {}},
            [response("e1")],
        ):
            await w.refused(w.send(broken, mcp_session_id=session), 400)
        good = response("e1", {"action": "accept", "content": {}})

        async def down(_: Any) -> None:
            raise Refused("unavailable", "the server is down")

        with monkeypatch.context() as patched:
            patched.setattr(w.app.guard, "_admit", down)
            await w.refused(w.send(good, mcp_session_id=session), 503)
        accepted = w.send(good, mcp_session_id=session)
        assert (await accepted.begun()).status == 202, "what was refused before did not cost the server its answer"
        headers, received = w.server.received[-1]
        assert received == good
        assert not {"mcp-method", "mcp-name", "deputize-call", "authorization"} & set(headers)
        await w.refused(w.send(good, mcp_session_id=session), 400)
        answered.set()
        assert "result" in await calling.event()


@pytest.mark.parametrize(
    ("detail", "body"),
    [(l3("refund", {}), REFUND), (l2("transfer", {"/note": {"enum": ["x"]}}), call("transfer", {"note": "x"}))],
)
async def test_nothing_is_asked_while_a_call_runs_whose_token_fixes_it(detail: Any, body: Any) -> None:
    async with world() as w:
        session = await w.begin()

        async def asks(stream: Stream) -> None:
            await stream.say(ELICIT)
            await until(lambda: "error" in w.server.received[-1][1])
            await stream.answer({"content": []})

        w.server.serve = asks
        w.f.clock.advance(10)  # so that the token is younger than the guard
        calling = w.send(body, detail, mcp_session_id=session)
        assert "result" in await calling.event(), "the client hears nothing of the question"
        headers, told = w.server.received[-1]
        assert (told["id"], told["error"]["code"]) == ("e1", 1)
        assert headers["mcp-session-id"] == session
        await w.refused(w.send(response("e1"), mcp_session_id=session), 400)


async def test_a_call_that_nobody_waits_for_is_still_under_way() -> None:
    async with world() as w:
        session, left = await w.begin(), asyncio.Event()

        async def hangs(stream: Stream) -> None:
            await stream.say(NOTE)
            await stream.gone.wait()
            left.set()

        w.server.serve = hangs
        calling = w.send(REFUND, l3("refund", {}), mcp_session_id=session)
        await calling.event()
        calling.leave()
        await asyncio.wait_for(left.wait(), 5)
        await calling.done()
        await w.refused(w.send(again(LIST, 1), mcp_session_id=session), 400)
        listening = await w.send(None, method="GET", mcp_session_id=session).begun()
        stream = w.server.streams[0]
        await stream.say(ELICIT)
        await until(lambda: "error" in w.server.received[-1][1])
        await stream.say(response(1, {"content": []}))
        assert (await listening.event())["id"] == 1
        await stream.say({**ELICIT, "id": "e2"})
        assert (await listening.event())["id"] == "e2"
        assert (await w.send(again(LIST, 1), mcp_session_id=session).begun()).status == 200


async def test_a_call_whose_connection_breaks_is_under_way_and_one_that_fails_is_not() -> None:
    async with world() as w:
        session = await w.begin()

        async def hangs(stream: Stream) -> None:
            await stream.say(NOTE)
            await asyncio.Event().wait()

        async def fails(stream: Stream) -> None:
            await stream.say(NOTE, cursor="c1")
            raise ValueError("no")

        w.server.serve = hangs
        broken = w.send(REFUND, l3("refund", {}), mcp_session_id=session)
        await broken.event()
        broken.task.cancel()
        await asyncio.gather(broken.task, return_exceptions=True)
        await w.refused(w.send(again(LIST, 1), mcp_session_id=session), 400)
        w.server.serve = fails
        failed = w.send(again(REFUND, 2), l3("refund", {}), mcp_session_id=session)
        with pytest.raises(ValueError, match="no"):
            await failed.done()
        assert (await w.send(again(LIST, 2), mcp_session_id=session).begun()).status == 200


async def test_sampling_is_refused_wherever_the_server_asks() -> None:
    async with world() as w:
        session = await w.begin()

        async def samples(stream: Stream) -> None:
            await stream.say(SAMPLE)
            await until(lambda: "error" in w.server.received[-1][1])
            await stream.answer({"content": []})

        w.server.serve = samples
        assert "result" in await w.send(LOOKUP, l1("lookup"), mcp_session_id=session).event()
        assert w.server.received[-1][1]["error"]["message"] == "sampling is refused by the guard"
        listening = await w.send(None, method="GET", mcp_session_id=session).begun()
        await w.server.streams[0].say({**SAMPLE, "id": "m2"})
        await w.server.streams[0].say(NOTE)
        assert await listening.event() == NOTE, "the client hears nothing of it"
        await until(lambda: w.server.received[-1][1].get("id") == "m2")

        # Without a session there is nobody to tell; the client hears nothing all the same.
        async def alone(stream: Stream) -> None:
            await stream.say(SAMPLE)
            await stream.say(ELICIT)
            await stream.answer({"content": []})

        w.server.serve = alone
        assert "result" in await w.send(LOOKUP, l1("lookup")).event()


async def test_what_the_server_says_is_heard_by_the_sessions_owner() -> None:
    async with world() as w:
        session = await w.begin()
        await w.refused(without_token(w, session), 401)
        await w.refused(w.send(None, l1("lookup"), method="GET", mcp_session_id=session), 403)
        none = w.send(None, method="GET")
        await w.refused(none, 405)
        assert none.headers["allow"] == "POST"
        await w.refused(w.send(None, method="GET", mcp_session_id=session, mcp_protocol_version="2026-07-28"), 405)
        await w.refused(w.send(b"{}", method="GET", mcp_session_id=session), 400)
        token = w.f.token(l0())
        await w.refused(w.send(None, token=token, method="GET", dpop=w.f.proof(token), mcp_session_id=session), 401)
        listening = await w.send(None, method="GET", mcp_session_id=session, cookie="a=b").begun()
        assert listening.status == 200
        method, headers = w.server.bare[0]
        assert (method, headers["mcp-session-id"]) == ("GET", session)
        assert not {"authorization", "dpop", "cookie", "last-event-id"} & set(headers)
        await w.server.streams[0].say(NOTE)
        assert await listening.event() == NOTE
        w.f.clock.advance(200)
        w.app.guard.hear_revocations()
        await w.server.streams[0].say(NOTE)
        assert await listening.event() == NOTE, "a stream outlives its token"
        w.app.guard.revoke(Revocation("person", "user:acme:x:alice"))
        assert await listening.event() is None
        await listening.done()
        assert w.server.streams[0].gone.is_set()


def without_token(w: World, session: str) -> Any:
    """A GET without a token."""
    return w.send(None, method="GET", mcp_session_id=session, authorization=None, dpop=None)


async def test_a_stream_is_resumed_from_a_cursor_of_its_session() -> None:
    async with world() as w:
        session, other = await w.begin(), await w.begin()

        async def breaks(stream: Stream) -> None:
            await stream.say("", cursor="c1")
            await stream.say(NOTE, cursor="c2")

        w.server.serve = breaks
        broken = w.send(again(LOOKUP, 5), l1("lookup"), mcp_session_id=session)
        assert await broken.event() == ""
        assert await broken.event() == NOTE
        assert await broken.event() is None, "what can be resumed ends without a word"
        await w.refused(w.send(None, method="GET", mcp_session_id=session, last_event_id="c3"), 404)
        await w.refused(w.send(None, method="GET", mcp_session_id=other, last_event_id="c2"), 404)
        resumed = await w.send(None, method="GET", mcp_session_id=session, last_event_id="c2").begun()
        assert w.server.bare[-1][1]["last-event-id"] == "c2"
        await w.server.streams[0].say(response(5, {"content": []}), cursor="c4")
        assert (await resumed.event())["id"] == 5
        await w.server.streams[0].say(response(6, {"content": []}))
        assert await resumed.event() is None, "a response to nothing"


async def test_a_list_that_comes_on_another_stream_is_filtered_too() -> None:
    async with world() as w:
        session = await w.begin()

        async def breaks(stream: Stream) -> None:
            await stream.say("", cursor="c1")

        w.server.serve_lists = breaks
        assert await w.send(again(LIST, 9), mcp_session_id=session).event() == ""
        listening = await w.send(None, method="GET", mcp_session_id=session, last_event_id="c1").begun()
        unapproved = {"name": "unapproved", "inputSchema": {"type": "object"}}
        await w.server.streams[0].say(response(9, {"tools": [*definitions(), unapproved]}))
        listed = (await listening.event())["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["lookup", "transfer", "refund"]


async def test_a_session_ends_with_delete() -> None:
    async with world() as w:
        session = await w.begin()
        await w.refused(w.send(None, l1("lookup"), method="DELETE", mcp_session_id=session), 403)
        ended = w.send(None, method="DELETE", mcp_session_id=session)
        assert (await ended.begun()).status == 204
        assert w.server.bare == [("DELETE", w.server.bare[0][1])]
        assert w.server.bare[0][1]["mcp-session-id"] == session
        await w.refused(w.send(LIST, mcp_session_id=session), 404)
        await w.refused(w.send(None, method="DELETE", mcp_session_id=session), 404)


async def test_a_change_of_the_tools_is_looked_at_when_the_server_says_so() -> None:
    async with world(tools_max_age_seconds=1e9) as w:
        session = await w.begin()
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200
        listening = await w.send(None, method="GET", mcp_session_id=session).begun()
        w.server.live[0]["description"] = "another"
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200, "not looked at yet"
        await w.server.streams[0].say({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        assert (await listening.event())["method"] == "notifications/tools/list_changed"
        await w.refused(w.send(LOOKUP, l1("lookup")), 403)


async def test_one_caller_opens_so_many_streams_and_sessions() -> None:
    async with world(limits=Limits(burst=100)) as w:
        session = await w.begin()
        open_streams = [await w.send(None, method="GET", mcp_session_id=session).begun() for _ in range(16)]
        limited = w.send(None, method="GET", mcp_session_id=session)
        await w.refused(limited, 429)
        assert limited.headers["retry-after"] == "1"
        await w.refused(w.send(LIST), 429)
        open_streams[0].leave()
        await open_streams[0].done()
        open_streams.append(await w.send(None, method="GET", mcp_session_id=session).begun())
        assert open_streams[-1].status == 200
        for stream in open_streams[1:]:
            stream.leave()
            await stream.done()
        for _ in range(63):
            await w.begin()
        begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        await w.refused(w.send(begin), 503)
        assert (await w.send(begin, claims={"sub": "user:acme:x:bob"}).begun()).status == 200
