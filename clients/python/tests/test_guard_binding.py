"""A grant is good for what it names, at every level."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deputize.guard import LISTING_METHODS, Redeemed, Refusal, Refused, VerifiedListing
from guard_fixture import RESOURCE, Fixture, as_call, call, l0, l1, l2, l3, listing, refusal_of

REFUND = {"payment_id": "pay_81", "amount_cents": 4200, "lines": [{"sku": "a", "n": 1}]}


async def out_of_scope(verification: Any) -> Refusal:
    refusal = await refusal_of(verification)
    assert (refusal.status, refusal.error) == (403, "insufficient_scope"), refusal
    return refusal


async def test_l3_admits_the_one_call_and_nothing_beside_it() -> None:
    f = Fixture()
    verified = as_call(await f.with_grant(l3("refund", REFUND), call("refund", REFUND)))
    assert (verified.tool, verified.level.name, verified.arguments) == ("refund", "L3", REFUND)
    assert (verified.user, verified.agent) == ("user:acme:x:alice", "agent:support")
    for other in (
        {**REFUND, "payment_id": "pay_82"},
        {**REFUND, "amount_cents": 4201},
        {name: value for name, value in REFUND.items() if name != "lines"},
        {**REFUND, "note": ""},
        {**REFUND, "lines": []},
        {**REFUND, "lines": [{"sku": "a", "n": 1}, {"sku": "b"}]},
        {},
    ):
        refusal = await out_of_scope(f.with_grant(l3("refund", REFUND), call("refund", other)))
        # It says what would be needed, and that is exactly what was sent.
        needed = {"type": "mcp_tool_call", "locations": [RESOURCE], "actions": ["tools/call"], "identifier": "refund"}
        assert refusal.body()["authorization_details"] == [{**needed, "arguments": other}]
        assert 'scope="refund"' in refusal.challenges[0]
    await out_of_scope(f.with_grant(l3("refund", REFUND), call("transfer", REFUND)))


async def test_members_in_another_order_are_the_same_call() -> None:
    f = Fixture()
    reordered = dict(reversed(REFUND.items()))
    await f.with_grant(l3("refund", REFUND), call("refund", reordered))
    items = {**REFUND, "lines": [{"sku": "b"}, {"sku": "a"}]}
    swapped = {**REFUND, "lines": [{"sku": "a"}, {"sku": "b"}]}
    await out_of_scope(f.with_grant(l3("refund", items), call("refund", swapped)))


@pytest.mark.parametrize(
    ("written", "equal"),
    [("1", True), ("1.0", True), ("1e0", True), ("10e-1", True), ("1.1", False), ("-1", False), ('"1"', False)],
)
async def test_numbers_are_equal_as_the_canonical_form_has_them(written: str, equal: bool) -> None:
    f = Fixture()
    body = json.dumps(call("refund", {"amount_cents": "X"})).replace('"X"', written).encode()
    sending = f.with_grant(l3("refund", {"amount_cents": 1}), body)
    if equal:
        await sending
    else:
        await out_of_scope(sending)


async def test_an_l3_token_is_used_once() -> None:
    f = Fixture()
    token = f.token(l3("refund", REFUND))
    await f.send(f.request(token, call("refund", REFUND)))
    again = await f.refused(f.request(token, call("refund", REFUND)))
    assert (again.status, again.error) == (401, "invalid_token")


@pytest.mark.parametrize(("answer", "status"), [("already_used", 401), ("revoked", 401), ("unavailable", 503)])
async def test_a_token_that_cannot_be_redeemed_does_not_pass(answer: Redeemed, status: int) -> None:
    f = Fixture()
    f.outside.redemption = answer
    refusal = await refusal_of(f.with_grant(l3("refund", REFUND), call("refund", REFUND)))
    assert refusal.status == status
    f.outside.redemption = "yes"
    await f.with_grant(l3("refund", REFUND), call("refund", REFUND))


async def test_a_call_that_cannot_run_spends_no_token() -> None:
    f = Fixture()
    token = f.token(l3("refund", REFUND))
    for admission, status, retry_after in (
        (Refused("unavailable", "down"), 503, 1),
        (Refused("limited", retry_after_seconds=7), 429, 7),
    ):
        f.outside.admission = admission
        refusal = await f.refused(f.request(token, call("refund", REFUND)))
        assert (refusal.status, refusal.retry_after_seconds) == (status, retry_after)
    f.outside.admission = None
    await out_of_scope(f.send(f.request(token, call("refund", {}))))
    await out_of_scope(f.send(f.request(token, call("lookup", REFUND))))
    assert f.outside.redeemed == set()
    await f.send(f.request(token, call("refund", REFUND)))


async def test_steering_a_retry_is_part_of_the_call() -> None:
    f = Fixture()
    for steering in ({"inputResponses": {"confirm": True}}, {"requestState": "s"}, {"requestState": None}):
        steered = call("refund", REFUND)
        steered["params"].update(steering)
        await out_of_scope(f.with_grant(l3("refund", REFUND), steered))
        constraints = {
            "/payment_id": {"enum": ["pay_81"]},
            "/amount_cents": {"maximum": 5000},
            "/lines/0/sku": {"enum": ["a"]},
            "/lines/0/n": {"enum": [1]},
        }
        steered["params"]["name"] = "transfer"
        await f.with_grant(l2("transfer", constraints), call("transfer", REFUND))
        await out_of_scope(f.with_grant(l2("transfer", constraints), steered))
    # `_meta` and the id are outside: retries change them.
    retried = call("refund", REFUND)
    retried["params"]["_meta"] = {"progressToken": 7}
    retried["id"] = "another"
    await f.with_grant(l3("refund", REFUND), retried)


async def test_l2_admits_what_its_constraints_admit_as_often_as_it_says() -> None:
    f = Fixture()
    constraints = {"/payment_id": {"enum": ["a", "b"]}, "/amount_cents": {"minimum": 1, "maximum": 100}}
    token = f.token(l2("transfer", constraints, 2))

    def send(arguments: Any) -> Any:
        return f.send(f.request(token, call("transfer", arguments)))

    await out_of_scope(send({"payment_id": "c", "amount_cents": 5}))
    await out_of_scope(send({"payment_id": "a", "amount_cents": 101}))
    await out_of_scope(send({"payment_id": "a", "amount_cents": 5, "note": "unconstrained"}))
    await out_of_scope(send({"payment_id": "a"}))
    await send({"payment_id": "a", "amount_cents": 5})
    await send({"payment_id": "b", "amount_cents": 100})
    spent = await refusal_of(send({"payment_id": "a", "amount_cents": 5}))
    assert (spent.status, spent.error) == (401, "invalid_token")


async def test_a_tool_never_takes_a_looser_token_than_its_least_level() -> None:
    f = Fixture()
    arguments = {"payment_id": "pay_81"}
    constraints = {"/payment_id": {"enum": ["pay_81"]}}
    for tool, grant, passes in (
        ("lookup", l0(), False),
        ("lookup", l1("lookup"), True),
        ("lookup", l3("lookup", arguments), True),
        ("transfer", l1("transfer"), False),
        ("transfer", l2("transfer", constraints), True),
        ("refund", l1("refund"), False),
        ("refund", l2("refund", constraints), False),
        ("refund", l3("refund", arguments), True),
    ):
        sending = f.with_grant(grant, call(tool, arguments))
        if passes:
            await sending
        else:
            await out_of_scope(sending)


async def test_l0_looks_and_nothing_else_looks() -> None:
    f = Fixture()
    for method in LISTING_METHODS:
        looking = {**listing(method), "params": {"notifications": {}}}
        verified = await f.with_grant(l0(), looking)
        assert isinstance(verified, VerifiedListing)
        assert verified.method == method
        await out_of_scope(f.with_grant(l1("lookup"), looking))
        await out_of_scope(f.with_grant(l3("refund", REFUND), looking))


async def test_arguments_satisfy_the_schema_with_nothing_unknown() -> None:
    f = Fixture()
    for arguments, valid in (
        ({"payment_id": "p"}, True),
        ({"payment_id": 1}, False),
        ({"unknown": 1}, False),
        ({"lines": [{"sku": 1, "unknown": 2}]}, False),
    ):
        # Even a token for exactly these arguments does not make them valid.
        for name, grant in (("lookup", l1("lookup")), ("refund", l3("refund", arguments))):
            sending = f.with_grant(grant, call(name, arguments))
            if valid:
                await sending
            else:
                await out_of_scope(sending)


async def test_what_is_forwarded_is_what_was_verified() -> None:
    f = Fixture()
    token = f.token(l1("lookup"))
    body = rb' {"params":{"arguments":{"note":"\u0041"},"name":"lookup"},"method":"tools/call","id":7,"jsonrpc":"2.0"}'
    request = f.request(token, body)
    request.header("Cookie", "a=b")
    verified = as_call(await f.send(request))
    assert json.loads(verified.rebuilt_body) == {**call("lookup", {"note": "A"}), "id": 7}
    assert verified.rebuilt_body != body
    forwarded = dict(verified.forwarded_headers())
    assert set(forwarded) == {"content-type", "mcp-method", "mcp-name", "deputize-call"}
    assert forwarded["deputize-call"] == token
    assert token not in repr(verified)
    assert "note" not in repr(verified)


async def test_errors_name_no_values() -> None:
    f = Fixture()
    refusal = await refusal_of(f.with_grant(l1("lookup"), call("lookup", {"payment_id": ["canary-value"]})))
    assert "canary" not in refusal.description
    assert "canary" not in "".join(refusal.challenges)
    assert "/payment_id" in refusal.description
