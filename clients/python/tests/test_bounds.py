"""What is remembered, and how much of it: once-only sets, counts, sessions, clocks, events."""

from __future__ import annotations

import pytest

from deputize.call.claims import ToolCallClaims, read_claims
from deputize.call.digest import sha256
from deputize.call.once import OnceSet
from deputize.events import Event, EventParser, EventsRefused
from deputize.guard import Refusal, Refused
from deputize.guard.clocks import ClockWatch
from deputize.guard.sessions import Owner, Session, Sessions
from deputize.guard.uses import Uses
from guard_fixture import Fixture, TestClock, call, l1, l2, refusal_of


def tag(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_one_owner_leaves_room_for_all_others() -> None:
    once, serial = OnceSet(60, 1000), iter(range(10_000))

    def take_all(owner: str, uptime: float) -> int:
        taken = 0
        while once.take(owner, tag(next(serial)), uptime) == "first":
            taken += 1
        return taken

    assert take_all("greedy", 0) == 500, "alone: half"
    assert take_all("greedy", 0) == 0
    assert take_all("second", 0) == 250
    assert take_all("third", 0) == 125
    assert once.take("small", tag(99_999), 0) == "first"
    assert once.take("greedy", tag(99_999), 0) == "seen", "what is seen is seen by all"
    assert take_all("greedy", 60) == 500, "a new generation is shared anew"


async def test_a_client_that_sends_very_many_proofs_leaves_room_for_the_others() -> None:
    f = Fixture(proof_capacity=4)

    async def send(client: str) -> int:
        try:
            await f.with_grant(l1("lookup"), call("lookup", {}), client_id=client)
        except Refusal as refusal:
            return refusal.status
        return 200

    assert [await send("greedy") for _ in range(3)] == [200, 200, 503]
    assert await send("other") == 200
    assert await send("greedy") == 503


async def test_a_client_with_very_many_counted_tokens_leaves_room_for_the_others() -> None:
    f = Fixture(counted_tokens=4)
    detail, body = l2("transfer", {"/note": {"enum": ["x"]}}), call("transfer", {"note": "x"})

    async def refused(client: str) -> int:
        return (await refusal_of(f.with_grant(detail, body, client_id=client))).status

    for _ in range(2):
        await f.with_grant(detail, body, client_id="greedy")
    assert await refused("greedy") == 503
    await f.with_grant(detail, body, client_id="other")
    assert await refused("other") == 503
    f.clock.advance(100)
    f.guard.hear_revocations()
    await f.with_grant(detail, body, client_id="greedy")


def test_counts_stay_until_their_tokens_cannot_pass() -> None:
    uses = Uses(4)
    for jti in ("a", "b"):
        uses.take("greedy", jti, 2, (0, 60))
    for jti, uptime in (("c", 0), ("c", 60)):
        with pytest.raises(Refused, match="too many"):
            uses.take("greedy", jti, 1, (uptime, 60))
    uses.take("greedy", "a", 2, (60, 60))
    with pytest.raises(Refused, match="used_up"):
        uses.take("greedy", "a", 2, (60, 60))
    uses.take("greedy", "c", 1, (61, 60))
    with pytest.raises(Refused, match="used_up"):
        uses.take("greedy", "d", 0, (61, 60))


def test_sessions_end_when_they_are_idle() -> None:
    clock, f = TestClock(), Fixture()
    sessions = Sessions(clock)
    claims = claims_of(f)
    for number in range(64):
        sessions.begin(str(number), claims)
    in_use = sessions.find("0", claims)
    in_use.under_way = 1
    with pytest.raises(Refused, match="no_room"):
        sessions.check_room(claims)
    clock.advance(1800)
    sessions.find("1", claims)
    clock.advance(1)
    sessions.check_room(claims)
    assert sessions.find("0", claims) is in_use
    assert sessions.find("1", claims).id == "1"
    with pytest.raises(Refused, match="session"):
        sessions.find("2", claims)
    clock.advance(1801)
    with pytest.raises(Refused, match="idle"):
        sessions.find("1", claims)


def test_new_keys_give_a_person_no_more_sessions() -> None:
    sessions, f = Sessions(TestClock()), Fixture()
    begun = 0
    for number in range(500):
        claims = claims_of(f, cnf={"jkt": sha256(str(number))})
        try:
            sessions.begin(str(number), claims)
        except Refused:
            break
        begun += 1
    assert begun == 256
    sessions.begin("bob", claims_of(f, sub="user:acme:x:bob"))


def test_what_a_session_remembers_is_bounded() -> None:
    session = Session("s", Owner.of(claims_of(Fixture())), 0.0)
    for number in range(300):
        session.note_requested(number, "ping", fixed=False)
    assert session.take_requested(0) is None, "the oldest is forgotten"
    assert session.take_requested(299) == "ping"
    assert all(session.note_asked(number) for number in range(64))
    assert not session.note_asked(64)
    session.take_asked(0)
    assert session.note_asked(64)
    for number in range(1100):
        session.note_cursor(str(number))
    assert session.knows_cursor("1099")
    assert not session.knows_cursor("0")


def test_a_call_that_its_token_fixes_is_not_forgotten_before_its_response() -> None:
    session = Session("s", Owner.of(claims_of(Fixture())), 0.0)
    session.note_requested("fixed", "tools/call", fixed=True)
    for number in range(300):
        session.note_requested(number, "ping", fixed=False)
    assert session.take_requested(0) is None, "what is not fixed makes room"
    assert not session.note_asked("q"), "the server asks nothing meanwhile"
    with pytest.raises(Refused, match="id_in_use"):
        session.note_requested("fixed", "tools/call", fixed=True)
    assert session.take_requested("fixed") == "tools/call"
    assert session.note_asked("q")


def test_a_session_full_of_fixed_calls_takes_no_other_request() -> None:
    session = Session("s", Owner.of(claims_of(Fixture())), 0.0)
    for number in range(256):
        session.note_requested(number, "tools/call", fixed=True)
    for fixed in (True, False):
        with pytest.raises(Refused, match="limited") as refused:
            session.note_requested("more", "tools/call", fixed=fixed)
        assert refused.value.retry_after_seconds == 1
    assert session.take_requested(7) == "tools/call"
    session.note_requested("more", "ping", fixed=False)
    assert session.take_requested("more") == "ping"
    assert all(session.take_requested(number) for number in range(256) if number != 7)


def claims_of(f: Fixture, **changes: object) -> ToolCallClaims:
    return read_claims(f.claims(l1("lookup"), **changes))


def test_clocks_that_part_stop_calls_until_they_agree() -> None:
    watch = ClockWatch()
    assert watch.agree(1000, 0.5)
    assert watch.agree(1010, 10.5)
    assert not watch.agree(1020 + 7200, 20.5)
    assert not watch.agree(1020 - 7200, 20.5)
    assert watch.agree(1020, 20.5)
    # A tenth of a percent is followed, however long it goes on.
    for step in range(1, 20_000):
        uptime = 20.5 + step * 10
        assert watch.agree(int(1020 + step * 10 * 1.0009), uptime), step


async def test_a_guard_whose_clocks_part_decides_nothing() -> None:
    f = Fixture()
    await f.with_grant(l1("lookup"), call("lookup", {}))
    f.clock.now += 10
    assert (await refusal_of(f.with_grant(l1("lookup"), call("lookup", {})))).status == 503
    f.clock.now -= 10
    await f.with_grant(l1("lookup"), call("lookup", {}))


TEXT = 'event: message\n: comment\nid: 1\ndata:\n\ndata: {"a":\ndata:1}\nid: 2\n\nretry: 500\n\nid: a b\n\ndata: cut'


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_read_however_they_are_cut_and_ended(piece: int, end: str) -> None:
    text, parser = TEXT.replace("\n", end).encode(), EventParser(1000)
    read = [event for at in range(0, len(text), piece) for event in parser.push(text[at : at + piece])]
    assert read == [Event("", "1"), Event('{"a":\n1}', "2"), Event("", None, 500)]


def test_events_are_bounded_and_text() -> None:
    parser = EventParser(10)
    for _ in range(100):
        parser.push(b"data: 1\n\n")
    for broken in (b"data: 12345678", b"data: \xff\n", b"data: 1234\ndata: 1234\n"):
        with pytest.raises(EventsRefused):
            EventParser(10).push(broken)
    for data in ("", "{}", '{"text":"é"}', "a\nb"):
        event = Event(data, "7", 3)
        assert EventParser(100).push(event.to_bytes()) == [event]
