"""What a guard knows, and what it does when it does not know."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from deputize.call.keys import SigningKey
from deputize.guard import Refusal, Revocation, Snapshot, SnapshotRefused
from guard_fixture import (
    NOW,
    RESOURCE,
    Fixture,
    Request,
    call,
    definitions,
    digest_of,
    jwks_of,
    l0,
    l1,
    l2,
    l3,
    listing,
    refusal_of,
)

LOOKUP = call("lookup", {})


async def look(f: Fixture) -> Any:
    return await f.with_grant(l1("lookup"), LOOKUP)


@pytest.mark.parametrize(
    ("revocation", "reaches_all"),
    [
        ({"kind": "token", "jti": "{jti}"}, False),
        ({"kind": "token", "jti": "{pjti}"}, False),
        ({"kind": "transaction", "txn": "{txn}"}, False),
        ({"kind": "person", "sub": "{sub}"}, False),
        ({"kind": "client", "client_id": "{client_id}"}, False),
        ({"kind": "actor", "sub": "agent:support"}, False),
        ({"kind": "actor", "sub": "agent:planner"}, False),
        ({"kind": "tool", "name": "lookup"}, False),
        ({"kind": "key", "thumbprint": "{jkt}"}, True),
        ({"kind": "everything"}, True),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
async def test_revocations_reach_what_they_name(revocation: dict[str, str], reaches_all: bool) -> None:
    f = Fixture()
    claims = f.claims(l1("lookup"))
    other = f.claims(l3("refund", {}), sub="user:acme:x:bob", client_id="other", act=None)
    await f.send(f.request(f.sign(claims), LOOKUP))
    named = {**claims, "jkt": f.agent.public.thumbprint}
    f.guard.revoke(Revocation.read({key: value.format(**named) for key, value in revocation.items()}))
    refusal = await f.refused(f.request(f.sign(claims), LOOKUP))
    assert (refusal.status, refusal.error) == (401, "invalid_token")
    neighbour = f.send(f.request(f.sign(other), call("refund", {})))
    if reaches_all:
        await refusal_of(neighbour)
    else:
        await neighbour


@pytest.mark.parametrize("document", [None, {}, {"kind": "x"}, {"kind": "token"}, {"kind": "everything", "a": 1}])
def test_what_is_no_revocation_is_not_read_as_one(document: Any) -> None:
    with pytest.raises(ValueError, match="not a revocation"):
        Revocation.read(document)


async def test_silence_about_revocations_stops_calls() -> None:
    f = Fixture()
    f.clock.advance(60)
    await look(f)
    f.clock.advance(1)
    assert (await refusal_of(look(f))).status == 503
    assert (await refusal_of(f.with_grant(l0(), listing()))).status == 503
    f.guard.hear_revocations()
    await look(f)


async def test_a_revocation_that_comes_while_a_token_is_redeemed_still_counts() -> None:
    f = Fixture()

    async def redeem_slowly(_: str) -> Any:
        f.guard.revoke(Revocation("everything"))
        return "yes"

    f.outside.redeem = redeem_slowly  # type: ignore[method-assign]
    assert (await refusal_of(f.with_grant(l3("refund", {}), call("refund", {})))).status == 401


async def test_a_newer_snapshot_lifts_a_kill_switch_and_keeps_revoked_tokens() -> None:
    f = Fixture()
    claims = f.claims(l1("lookup"))
    f.guard.revoke(Revocation("everything"))
    f.guard.revoke(Revocation("token", claims["jti"]))
    f.guard.install(f.snapshot())
    assert (await refusal_of(look(f))).status == 401, "the same version knows nothing of the switch"
    f.guard.install(f.snapshot(version=2))
    await look(f)
    assert (await f.refused(f.request(f.sign(claims), LOOKUP))).status == 401


async def test_a_snapshot_brings_its_revocations() -> None:
    f = Fixture()
    f.guard.install(f.snapshot(version=2, revocations=[{"kind": "tool", "name": "lookup"}]))
    assert (await refusal_of(look(f))).status == 401


async def test_a_guard_without_knowledge_refuses() -> None:
    f = Fixture()
    f.guard = f.new_guard()
    bare = Request(json.dumps(LOOKUP).encode())
    bare.header("Authorization", "DPoP x")
    assert (await f.refused(bare)).status == 503
    f.guard.install(f.snapshot())
    assert (await refusal_of(look(f))).status == 503, "the server's tools were not seen"
    f.guard.observe_tools(definitions())
    await look(f)
    f.clock.advance(1800)
    f.guard.hear_revocations()
    assert (await f.refused(bare)).status == 503, "the snapshot has expired"


def test_snapshots_never_go_back_and_never_come_from_elsewhere() -> None:
    f = Fixture()
    f.guard.install(f.snapshot(version=5))
    for changes in ({"version": 4}, {"version": 6, "resource": "https://x.example/"}, {"version": 6, "issuer": "x"}):
        with pytest.raises(SnapshotRefused):
            f.guard.install(f.snapshot(**changes))
    f.guard.install(f.snapshot(version=5))


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": NOW},
        {"expires_at": NOW + 3600},
        {"issued_at": NOW + 61},
        {"issued_at": 1.5},
        {"version": -1},
        {"jwks": {"keys": []}},
        {"jwks": []},
        {"tools": {}},
        {"tenant": 1},
        {"manifest_digest": "x"},
        {"revocations": [{"kind": "unheard of"}]},
        {"unknown": 1},
    ],
)
def test_snapshots_hold_within_their_time_and_form(changes: dict[str, Any]) -> None:
    f = Fixture()
    f.snapshot()
    with pytest.raises(SnapshotRefused):
        f.snapshot(**changes)


def test_snapshots_hold_with_their_tools() -> None:
    f = Fixture()
    good = f.document()["tools"]
    for broken in (
        {**good[0], "tool_digest": digest_of("refund")},
        {**good[0], "least_level": "L0"},
        {**good[0], "least_level": "L4"},
        {**good[0], "unknown": 1},
        good[1],
    ):
        with pytest.raises(SnapshotRefused):
            f.snapshot(tools=[good[1], broken])
    with pytest.raises(SnapshotRefused):
        Snapshot.read(b'{"version":1,"version":2}', NOW)


def test_a_signed_snapshot_is_signed_by_a_configured_key() -> None:
    f = Fixture()
    signed = f.sign_snapshot(f.document())
    keys = f.settings.snapshot_keys
    assert Snapshot.open(signed, keys, NOW).version == 1
    assert Snapshot.open(json.dumps(signed).encode(), keys, NOW).version == 1
    altered = {**signed, "snapshot": signed["snapshot"].replace('"version": 1', '"version": 9')}
    assert altered != signed
    for refused in (
        f.sign_snapshot(f.document(), f.broker),
        altered,
        f.sign_snapshot(f.document(), typ="at+jwt"),
        f.sign_snapshot(f.document(), aud="https://crm.example.com/mcp"),
        f.sign_snapshot(f.document(), iss="https://other.example.com"),
        f.sign_snapshot(f.document(), exp=NOW - 61),
        {"snapshot": signed["snapshot"]},
        {**signed, "more": 1},
        [],
        b"{",
    ):
        with pytest.raises(SnapshotRefused):
            Snapshot.open(refused, keys, NOW)  # type: ignore[arg-type]
    with pytest.raises(SnapshotRefused):
        Snapshot.open(signed, keys, NOW + 3600)
    with pytest.raises(SnapshotRefused):
        Snapshot.open(signed, jwks_of(SigningKey.generate()), NOW)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("description", "lookup."),
        ("title", "new"),
        ("annotations", {"readOnlyHint": True}),
        ("inputSchema", {"type": "object"}),
    ],
)
async def test_a_tool_that_changed_is_not_called(member: str, value: Any) -> None:
    f = Fixture()
    live = copy.deepcopy(definitions())
    live[0][member] = value
    observed = f.guard.observe_tools(live)
    assert (observed.drifted, observed.approved) == (("lookup",), ("transfer", "refund"))
    assert (await refusal_of(look(f))).status == 403
    f.guard.observe_tools(definitions())
    await look(f)  # it may return as it was approved


async def test_a_tool_that_vanished_or_stands_twice_is_not_called() -> None:
    f = Fixture()
    f.guard.observe_tools(definitions()[1:])
    assert (await refusal_of(look(f))).status == 403
    more = [*definitions(), {"name": "new", "inputSchema": {}}, definitions()[1]]
    observed = f.guard.observe_tools(more)
    assert (observed.unknown, observed.drifted) == (("new",), ("transfer",))
    await look(f)


async def test_a_token_for_an_earlier_definition_or_an_unapproved_tool_is_refused() -> None:
    f = Fixture()
    stale = l1("lookup", tool_digest=digest_of("refund"))
    assert (await refusal_of(f.with_grant(stale, LOOKUP))).status == 403
    unapproved = l1("lookup", identifier="unapproved")
    assert (await refusal_of(f.with_grant(unapproved, call("unapproved", {})))).status == 403


async def test_tokens_with_counted_uses_from_before_the_start_are_refused() -> None:
    f = Fixture()
    started = NOW - 1000
    grant = l2("transfer", {"/payment_id": {"enum": ["a"]}}, 5)

    async def counted(iat: int) -> Any:
        return await f.with_grant(grant, call("transfer", {"payment_id": "a"}), iat=iat, nbf=iat)

    assert (await refusal_of(counted(started + 4))).status == 401
    await counted(started + 5)


async def test_the_count_of_uses_is_bounded_and_forgets_only_what_expired() -> None:
    f = Fixture(counted_tokens=4)

    async def counted() -> int:
        try:
            await f.with_grant(l1("lookup", max_uses=1), LOOKUP)
        except Refusal as refusal:
            return refusal.status
        return 200

    assert [await counted() for _ in range(3)] == [200, 200, 503]
    f.clock.advance(71)
    f.guard.hear_revocations()
    assert await counted() == 200


async def test_a_token_of_another_server_is_refused_whatever_else_is_right() -> None:
    f = Fixture()
    assert RESOURCE.endswith("/mcp")
    for resource in ("https://pay.example.com/mcp/", "https://pay.example.com", "https://PAY.example.com/mcp"):
        detail = l1("lookup", locations=[resource])
        assert (await refusal_of(f.with_grant(detail, LOOKUP, aud=resource))).status == 401
