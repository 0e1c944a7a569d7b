"""How much one caller may, and how long the app may take: what is refused then, and what is not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from deputize import breaker as breaker_module
from deputize import limits, passage
from deputize.breaker import Breaker
from deputize.guard import Refused
from deputize.guard.sessions import Caller
from deputize.limits import Limits
from guard_broker import until
from guard_fixture import call, get, l0, l1, l3, listing, material, prompt_token
from session_server import LIST, LOOKUP, REFUND, Stream, again, world

BOB = {"sub": "user:acme:x:bob"}
NOTE = {"jsonrpc": "2.0", "method": "notifications/message", "params": {}}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "_CHECK_SECONDS", 0.01)


async def test_rates_are_each_persons_and_refuse_before_the_token_is_spent() -> None:
    async with world(limits=Limits(calls_per_minute=60, burst=2)) as w:
        for _ in range(2):
            assert (await w.send(REFUND, l3("refund", {})).begun()).status == 200
        token = w.f.token(l3("refund", {}))
        limited = w.send(REFUND, token=token)
        assert (await w.refused(limited, 429))["error"] == "temporarily_unavailable"
        assert limited.headers["retry-after"] == "2"
        assert token not in w.broker.redeemed
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200, "another tool"
        assert (await w.send(REFUND, l3("refund", {}), claims=BOB).begun()).status == 200, "another person"
        w.f.clock.advance(1)
        assert (await w.send(REFUND, token=token).begun()).status == 200, "the token was not spent"
        await w.refused(w.send(REFUND, l3("refund", {})), 429)
        assert len([1 for _, message in w.server.received if message["method"] == "tools/call"]) == 5


async def test_what_is_chosen_by_the_client_has_one_rate() -> None:
    async with world(limits=Limits(calls_per_minute=1, burst=2)) as w:
        w.broker.push("snapshot", w.f.sign_snapshot(w.f.document(version=2, **material())))
        await until(lambda: w.app.guard.snapshot is not None and w.app.guard.snapshot.version == 2)
        for number in range(3):
            noted = w.send({"jsonrpc": "2.0", "method": f"notifications/x{number}"})
            pinged = w.send(again(listing("ping"), number))
            greeted = w.send(get("greet", {"city": str(number)}), prompt_token("greet"))
            statuses = [(await each.begun()).status for each in (noted, pinged, greeted)]
            assert statuses == ([202, 200, 200] if number < 2 else [429, 429, 429])


async def test_streams_to_listen_to_have_one_rate() -> None:
    async with world(limits=Limits(calls_per_minute=1, burst=2)) as w:
        session = await w.begin()
        for _ in range(2):
            stream = w.send(None, method="GET", mcp_session_id=session)
            assert (await stream.begun()).status == 200
            stream.leave()
            await stream.done()
        limited = w.send(None, method="GET", mcp_session_id=session)
        await w.refused(limited, 429)
        assert limited.headers["retry-after"] == "61"
        limited.leave()
        assert (await w.send(LIST).begun()).status == 200, "another method"


async def test_a_caller_has_only_so_many_under_way() -> None:
    async with world(limits=Limits(concurrent=2)) as w:
        go = asyncio.Event()

        async def slow(stream: Stream) -> None:
            await stream.say(NOTE)
            await go.wait()
            await stream.answer({"content": []})

        w.server.serve = slow
        under_way = [w.send(again(LOOKUP, number), l1("lookup")) for number in range(2)]
        for each in under_way:
            await each.event()
        limited = w.send(LIST)
        await w.refused(limited, 429)
        assert limited.headers["retry-after"] == "1"
        assert (await w.send(LIST, claims=BOB).begun()).status == 200
        go.set()
        for each in under_way:
            assert "result" in await each.event()
            await each.done()
        for refused in (w.send(call("lookup", {"unknown": 1}), l1("lookup")), w.send(LIST, mcp_session_id="none")):
            assert (await refused.begun()).status in (403, 404)
        assert w.app._meter._under_way == {}, "nothing is counted that is over"
        assert (await w.send(LIST).begun()).status == 200


async def test_a_server_that_does_not_answer_in_time_is_given_up() -> None:
    async with world(limits=Limits(answer_seconds=5, concurrent=1)) as w:
        session, given_up = await w.begin(), asyncio.Event()

        async def hangs(message: Any, receive: Any, send: Any) -> None:
            assert (await receive())["type"] == "http.disconnect"
            try:
                await asyncio.Event().wait()
            finally:
                given_up.set()

        original, w.server._post = w.server._post, hangs  # type: ignore[method-assign]
        calling = w.send(REFUND, l3("refund", {}), mcp_session_id=session)
        await until(lambda: len(w.server.received) == 2)
        w.f.clock.advance(4)
        assert not calling._begun.is_set()
        w.f.clock.advance(1)
        assert (await calling.json())["error"] == "server_timeout"
        assert calling.status == 504
        await calling.done()
        assert given_up.is_set()
        w.server._post = original  # type: ignore[method-assign]
        await w.refused(w.send(again(LIST, 1), mcp_session_id=session), 400)
        assert (await w.send(REFUND, l3("refund", {})).begun()).status == 200, "the next honest call"
        await until(lambda: any(event["kind"] == "failed" for event in w.broker.reported))
        failed = next(event for event in w.broker.reported if event["kind"] == "failed")
        assert (failed["tool"], failed["class"]) == ("refund", "server_timeout")


async def test_what_was_given_up_and_still_runs_is_counted_still() -> None:
    async with world(limits=Limits(answer_seconds=5, concurrent=1)) as w:
        finish, finished = asyncio.Event(), asyncio.Event()

        async def insists(message: Any, receive: Any, send: Any) -> None:
            # As a tool in a thread, which nothing stops.
            with contextlib.suppress(asyncio.CancelledError):
                await finish.wait()
            await finish.wait()
            finished.set()

        original, w.server._post = w.server._post, insists  # type: ignore[method-assign]
        calling = w.send(LOOKUP, l1("lookup"))
        await until(lambda: len(w.server.received) == 1)
        w.f.clock.advance(5)
        assert (await calling.json())["error"] == "server_timeout"
        await calling.done()
        w.server._post = original  # type: ignore[method-assign]
        assert not finished.is_set()
        assert (await w.refused(w.send(LIST), 429))["error"] == "temporarily_unavailable"
        assert (await w.send(LIST, claims=BOB).begun()).status == 200
        finish.set()
        await finished.wait()
        await until(lambda: w.app._meter._under_way == {})
        assert (await w.send(LIST).begun()).status == 200


@pytest.mark.parametrize("begun", [b"{", b""])
async def test_an_answer_that_does_not_end_in_time_is_none(begun: bytes) -> None:
    async with world(limits=Limits(answer_seconds=5)) as w:

        async def stalls(message: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": begun, "more_body": True})
            w.f.clock.advance(6)
            assert (await receive())["type"] == "http.disconnect"
            # Whatever it says then is for nobody.
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            raise ValueError("no")

        w.server._post = stalls  # type: ignore[method-assign]
        late = w.send(LOOKUP, l1("lookup"))
        assert (await late.json())["error"] == "server_timeout"
        assert late.status == 504
        await late.done()


async def test_a_stream_lasts_only_so_long() -> None:
    async with world(limits=Limits(answer_seconds=5, stream_seconds=50)) as w:

        async def slow(stream: Stream) -> None:
            await stream.say(NOTE)
            await stream.gone.wait()

        w.server.serve = slow
        calling = w.send(LOOKUP, l1("lookup"))
        assert await calling.event() == NOTE
        w.f.clock.advance(40)
        assert await asyncio.wait_for(calling._pieces.get(), 5) == b": alive\n\n"
        w.f.clock.advance(10)
        late = await calling.event()
        assert (late["id"], late["error"]["code"]) == (1, -32603)
        assert late["error"]["message"] == "the MCP server did not answer in time"
        assert await calling.event() is None
        await calling.done()


async def test_where_no_more_can_be_counted_new_ones_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_BUCKETS", 1)
    async with world(limits=Limits(calls_per_minute=60, burst=2)) as w:
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200
        new = w.send(LOOKUP, l1("lookup"), claims=BOB)
        await w.refused(new, 429)
        assert new.headers["retry-after"] == "1"
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200, "who is counted goes on"
        w.f.clock.advance(2)
        assert (await w.send(LOOKUP, l1("lookup"), claims=BOB).begun()).status == 200, "the other is forgotten"


def test_who_can_be_forgotten_is_looked_for_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_BUCKETS", 1)
    meter = limits.Meter(Limits(calls_per_minute=60, burst=2))

    def waits(person: str, uptime: float) -> None:
        with pytest.raises(Refused) as caught:
            meter.count(person, "ping", uptime)
        assert caught.value.retry_after_seconds == 1

    for _ in range(2):
        meter.count("alice", "ping", 0)
    waits("bob", 1.5)
    waits("bob", 2.25)
    meter.count("bob", "ping", 2.5)
    waits("alice", 3.25)
    meter.count("alice", "ping", 3.5)


async def test_a_look_of_others_is_not_counted_for_anybody() -> None:
    async with world(limits=Limits(calls_per_minute=1, burst=1)) as w:
        await w.refused(w.send(LOOKUP, l1("refund")), 403)
        await w.refused(w.send(LOOKUP, l1("lookup"), dpop="forged"), 401)
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200
        limited = w.send(LOOKUP, l1("lookup"))
        await w.refused(limited, 429)
        assert limited.headers["retry-after"] == "61"
        assert (await w.send(LIST, l0()).begun()).status == 200


@pytest.mark.parametrize("name", ["calls_per_minute", "burst", "concurrent", "answer_seconds", "stream_seconds"])
def test_limits_are_bounds(name: str) -> None:
    for none in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=name):
            Limits(**{name: none})  # type: ignore[arg-type]


async def test_a_caller_who_gets_no_answers_is_stopped_and_nobody_else() -> None:
    async with world() as w:
        w.server.status, w.server.answers["tools/call"] = 503, b"{}"
        for _ in range(5):
            assert (await w.send(LOOKUP, l1("lookup")).json())["error"] == "server_unavailable"
        token = w.f.token(l3("refund", {}))
        stopped = w.send(REFUND, token=token)
        await w.refused(stopped, 503)
        assert stopped.headers["retry-after"] == "2"
        assert token not in w.broker.redeemed
        w.server.status = 200
        del w.server.answers["tools/call"]
        assert (await w.send(REFUND, l3("refund", {}), claims=BOB).begun()).status == 200, "another caller"
        await w.refused(w.send(LOOKUP, l1("lookup")), 503)
        w.f.clock.advance(2)
        assert (await w.send(REFUND, token=token).begun()).status == 200, "one goes through, and closes it"
        assert (await w.send(LOOKUP, l1("lookup")).begun()).status == 200


async def test_a_caller_whom_the_server_answers_now_and_then_is_not_stopped() -> None:
    async with world() as w:
        for turn in range(12):
            is_down = turn % 5 != 4
            w.server.status = 503 if is_down else 200
            if is_down:
                w.server.answers["tools/call"] = b"{}"
            else:
                del w.server.answers["tools/call"]
            answered = w.send(LOOKUP, l1("lookup"))
            await answered.rest()
            assert answered.status == w.server.status
        # Twelve, of which ten came to nothing: never five one after another.
        assert len([1 for _, message in w.server.received if message["method"] == "tools/call"]) == 12


def test_the_breaker_is_bounded_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_module, "_MAX_CALLERS", 3)
    breaker = Breaker()
    callers = [Caller("acme", f"user-{number}", "platform", ()) for number in range(4)]
    for caller in callers:
        for _ in range(5):
            breaker.silent(caller, 0.0)
    for caller in callers[:3]:
        with pytest.raises(Refused):
            breaker.check(caller, 1.0)
    breaker.check(callers[3], 1.0)
    breaker.check(callers[0], 2.0)
    with pytest.raises(Refused):
        breaker.check(callers[0], 3.9)
    breaker.check(callers[1], 600.0)
    for _ in range(5):
        breaker.silent(callers[3], 602.0)
    with pytest.raises(Refused):
        breaker.check(callers[3], 603.0)
