"""Exchange: what is asked, what may serve again, and what each refusal becomes."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from broker_stub import ISSUER, KEY, RESOURCE, Broker, granted, metadata, refusing
from deputize import (
    AccessDeniedError,
    ApprovalPendingError,
    AsyncClient,
    Call,
    Client,
    ConfigurationError,
    Constrained,
    ExchangeError,
    ExchangeRequest,
    ProtocolError,
    RetryLaterError,
    SignInRequiredError,
    Tool,
    ToolChangedError,
    UnreachableError,
    UnsafeRequestError,
)
from deputize.call.dpop import Expected, parse_proof
from deputize.call.jws import parse
from deputize.client import CallDigest, Detail
from guard_fixture import digest_of

USER = "user-token"
CALL = Call("refund", {"payment_id": "pay_81"})


def asking(detail: Detail | None = None, **changes: Any) -> ExchangeRequest:
    detailed = {} if detail is None else {"detail": detail}
    return ExchangeRequest(**{"resource": RESOURCE, "subject_token": USER, **detailed, **changes})


async def test_an_exchange_proves_client_and_key() -> None:
    broker = Broker()
    token = await broker.client().exchange(asking(CALL))
    form, request = broker.forms[0], broker.requests[0]
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
    assert (form["subject_token"], form["subject_token_type"]) == (USER, "urn:ietf:params:oauth:token-type:jwt")
    assert (form["resource"], form["client_id"]) == (RESOURCE, "platform")
    assert json.loads(form["authorization_details"]) == [
        {
            "type": "mcp_tool_call",
            "locations": [RESOURCE],
            "actions": ["tools/call"],
            "identifier": "refund",
            "arguments": {"payment_id": "pay_81"},
        }
    ]
    assertion = parse(form["client_assertion"])
    KEY.public.verify(assertion)
    assert assertion.claims["aud"] == ISSUER
    assert assertion.claims["iss"] == assertion.claims["sub"] == "platform"
    now = broker.clock.now
    assert (assertion.claims["iat"], assertion.claims["exp"]) == (now, now + 60)
    parse_proof(request.headers["dpop"]).verify(Expected("POST", f"{ISSUER}/token", now, 0))
    assert token.authorization == f"DPoP {token.access_token}"
    assert token.access_token not in repr(token)
    assert USER not in repr(asking(CALL))


@pytest.mark.parametrize(
    ("detail", "level"),
    [
        (None, []),
        (Tool("lookup"), ["identifier"]),
        (Constrained("transfer", {"/a": {"enum": [1]}}), ["constraints", "identifier"]),
        (CallDigest("refund", digest_of("refund")), ["call_digest", "identifier"]),
        (Call("refund", {}, request_state="s"), ["arguments", "identifier", "requestState"]),
        (Call("refund", {}, input_responses=None), ["arguments", "identifier", "inputResponses"]),
    ],
)
async def test_each_level_asks_for_what_it_is(detail: Detail | None, level: list[str]) -> None:
    broker = Broker()
    await broker.client().exchange(asking(detail))
    asked = json.loads(broker.forms[0].get("authorization_details", "[{}]"))[0]
    assert sorted(set(asked) - {"type", "locations", "actions"}) == level


@pytest.mark.parametrize("action", ["prompts/get", "resources/read"])
async def test_prompts_and_resources_are_asked_for_as_what_they_are(action: Any) -> None:
    broker = Broker()
    await broker.client().exchange(asking(Call("refund"), action=action))
    asked = json.loads(broker.forms[0]["authorization_details"])[0]
    assert (asked["actions"], asked["identifier"], asked["arguments"]) == ([action], "refund", {})


async def test_a_client_asks_for_itself_without_a_subject() -> None:
    broker = Broker()
    await broker.client().exchange(ExchangeRequest(resource=RESOURCE))
    assert broker.forms[0]["grant_type"] == "client_credentials"
    assert "subject_token" not in broker.forms[0]


@pytest.mark.parametrize("arguments", [{"a": 2**53}, {"a": float("nan")}, {"a": "\ud800"}, {"a": (1,)}, {1: 1}])
async def test_arguments_that_others_read_differently_are_not_sent(arguments: Any) -> None:
    broker = Broker()
    with pytest.raises(UnsafeRequestError):
        await broker.client().exchange(asking(Call("refund", arguments)))
    assert broker.forms == []


async def test_a_nonce_is_answered_once_with_the_same_assertion() -> None:
    challenged = refusing(400, {"dpop-nonce": "n1"}, error="use_dpop_nonce")
    broker = Broker()
    broker.answer = lambda request, form: challenged(request, form) if len(broker.forms) == 1 else None
    client = broker.client()
    await client.exchange(asking(CALL))
    nonces = [parse_proof(request.headers["dpop"]).nonce for request in broker.requests]
    assert nonces == [None, "n1"]
    assert broker.forms[0]["client_assertion"] == broker.forms[1]["client_assertion"]
    # The nonce that came last goes into the next proof.
    await client.exchange(asking(CALL))
    assert parse_proof(broker.requests[-1].headers["dpop"]).nonce == "n1"
    assert broker.forms[-1]["client_assertion"] != broker.forms[0]["client_assertion"]


async def test_a_broker_that_never_takes_its_nonce_is_asked_twice() -> None:
    broker = Broker(answer=refusing(400, {"dpop-nonce": "n1"}, error="use_dpop_nonce"))
    with pytest.raises(ExchangeError) as refused:
        await broker.client().exchange(asking(CALL))
    assert (len(broker.forms), refused.value.error) == (2, "use_dpop_nonce")


@pytest.mark.parametrize(
    ("detail", "exchanges"),
    [(None, 1), (Tool("lookup"), 1), (CALL, 3), (CallDigest("refund", digest_of("refund")), 3)],
)
async def test_what_binds_one_call_is_never_cached(detail: Detail | None, exchanges: int) -> None:
    broker = Broker()
    client = broker.client()
    for _ in range(3):
        await client.exchange(asking(detail))
    assert len(broker.forms) == exchanges


async def test_a_cached_token_is_for_the_same_question_and_its_time() -> None:
    broker = Broker()
    client = broker.client()
    await client.exchange(asking())
    for other in (asking(subject_token="other"), asking(Tool("lookup")), asking(resource="https://crm.example.com/")):
        asked = len(broker.forms)
        await client.exchange(other)
        assert len(broker.forms) == asked + 1
    broker.clock.advance(54)
    asked = len(broker.forms)
    await client.exchange(asking())
    assert len(broker.forms) == asked
    broker.clock.advance(1)
    token = await client.exchange(asking())
    assert len(broker.forms) == asked + 1
    client.forget(token)
    await client.exchange(asking())
    assert len(broker.forms) == asked + 2


async def test_a_token_with_counted_uses_serves_as_often_and_one_that_binds_a_call_once() -> None:
    broker = Broker()
    client = broker.client()
    for details, exchanges in (({"max_uses": 2}, 2), ({"call_digest": "x"}, 4), ({"max_uses": 1}, 4)):
        broker.forms.clear()
        broker.answer = lambda _, form, details=details: httpx2.Response(  # type: ignore[misc]
            200, json=granted(form, authorization_details=[details])
        )
        for _ in range(4):
            await client.exchange(asking(Tool("lookup"), scope=str(details)))
        assert len(broker.forms) == exchanges, details


async def test_the_cache_is_bounded() -> None:
    broker = Broker()
    client = broker.client(cache_capacity=2)
    for scope in ("a", "b", "c", "c", "b"):
        await client.exchange(asking(scope=scope))
    assert [form["scope"] for form in broker.forms] == ["a", "b", "c"]
    await client.exchange(asking(scope="a"))
    assert len(broker.forms) == 4


@pytest.mark.parametrize(
    ("status", "members", "kind"),
    [
        (400, {"error": "invalid_request"}, ExchangeError),
        (400, {"error": "invalid_target"}, ExchangeError),
        (400, {"error": "invalid_scope"}, ExchangeError),
        (400, {"error": "invalid_authorization_details"}, ExchangeError),
        (401, {"error": "invalid_client"}, ExchangeError),
        (400, {"error": "invalid_dpop_proof"}, ExchangeError),
        (400, {"error": "access_denied", "reason": "policy"}, AccessDeniedError),
        (400, {"error": "authorization_pending", "approval_id": "a1"}, ApprovalPendingError),
        (400, {"error": "insufficient_user_authentication", "acr_values": "mfa"}, SignInRequiredError),
        (429, {"error": "temporarily_unavailable"}, RetryLaterError),
        (503, {"error": "temporarily_unavailable"}, RetryLaterError),
        (413, {}, ExchangeError),
        (302, {}, ExchangeError),
    ],
)
async def test_each_refusal_says_what_to_do(status: int, members: dict[str, Any], kind: type[ExchangeError]) -> None:
    said = {"error_description": "said \x1b[31mso", "decision_id": "d-1", **members}
    broker = Broker(answer=refusing(status, {"retry-after": "7", "location": "https://evil.example"}, **said))
    with pytest.raises(ExchangeError) as caught:
        await broker.client().exchange(asking(CALL))
    refused = caught.value
    assert type(refused) is kind
    assert (refused.status, refused.error) == (status, members.get("error", ""))
    assert refused.decision_id == "d-1"
    assert refused.description == "said [31mso"
    assert refused.what_to_do in str(refused)
    assert "d-1" in str(refused)
    if isinstance(refused, RetryLaterError):
        assert refused.retry_after_seconds == 7
    if isinstance(refused, SignInRequiredError):
        assert refused.acr_values == ("mfa",)
    if isinstance(refused, AccessDeniedError):
        assert refused.reason == "policy"


@pytest.mark.parametrize(
    "members",
    [
        {"token_type": "Bearer"},
        {"token_type": None},
        {"access_token": 1},
        {"expires_in": "60"},
        {"expires_in": True},
        {"authorization_details": {}},
        {"decision_id": None},
    ],
)
async def test_an_answer_that_is_none_is_no_token(members: dict[str, Any]) -> None:
    broker = Broker()
    broker.answer = lambda _, form: httpx2.Response(200, json=granted(form, **members))
    with pytest.raises(ProtocolError):
        await broker.client().exchange(asking(CALL))


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 100_000, b"{" + b" " * 300_000 + b"}"])
async def test_a_body_that_is_none_is_no_token(body: bytes) -> None:
    broker = Broker(answer=lambda _, __: httpx2.Response(200, content=body))
    with pytest.raises(ProtocolError):
        await broker.client().exchange(asking(CALL))


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "https://evil.example.com"},
        {"issuer": ISSUER + "/"},
        {"token_endpoint": "http://deputize.example.com/token"},
        {"token_endpoint": "https://user@deputize.example.com/token"},
        {"token_endpoint": 1},
        {"revocation_endpoint": "file:///etc/passwd"},
    ],
)
async def test_metadata_of_another_issuer_or_without_tls_is_refused(changes: dict[str, Any]) -> None:
    broker = Broker(metadata=metadata(**changes))
    with pytest.raises(ProtocolError):
        await broker.client().exchange(asking(CALL))
    assert broker.forms == []


async def test_a_token_for_another_definition_than_the_live_one_is_not_handed_out() -> None:
    broker = Broker()
    client = broker.client()
    live = digest_of("lookup")
    await client.exchange(asking(Tool("lookup"), live_tool_digest=live))
    for other in (digest_of("refund"), ""):
        with pytest.raises(ToolChangedError) as changed:
            await client.exchange(asking(Tool("lookup"), live_tool_digest=other))
        assert (changed.value.tool, changed.value.approved_digest) == ("lookup", live)
    # It is not kept for later either.
    asked = len(broker.forms)
    await client.exchange(asking(Tool("lookup"), live_tool_digest=live))
    assert len(broker.forms) == asked + 1


async def test_an_unreachable_broker_is_said_to_be_so() -> None:
    def fail(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route to user-token")

    client = AsyncClient(ISSUER, "platform", KEY, http=httpx2.AsyncClient(transport=httpx2.MockTransport(fail)))
    with pytest.raises(UnreachableError) as unreachable:
        await client.exchange(asking(CALL))
    assert USER not in str(unreachable.value)


@pytest.mark.parametrize(
    "issuer", ["http://deputize.example.com", "ftp://x", "https://", "https://a@b.example", "https://x.example/#f", "x"]
)
def test_an_issuer_is_reached_by_tls_or_on_loopback(issuer: str) -> None:
    with pytest.raises(ConfigurationError):
        Client(issuer, "platform", KEY)
    Client("http://127.0.0.1:1/", "platform", KEY).close()


async def test_a_call_that_waits_for_a_person_comes_back_with_the_approval() -> None:
    broker = Broker()
    pending = {
        "error": "authorization_pending",
        "approval_id": "a1",
        "approval_uri": "u",
        "interval": 0,
        "expires_in": 9,
    }

    def answer(_: httpx2.Request, form: dict[str, str]) -> httpx2.Response | None:
        return None if form.get("approval_id") == "a1" else httpx2.Response(400, json=pending)

    broker.answer = answer
    told: list[ApprovalPendingError] = []
    await broker.client().exchange_and_wait(asking(CALL), told.append)
    assert [each.approval_uri for each in told] == ["u"]
    assert broker.requests[-1].headers["prefer"] == "wait=30"
    broker.sync_client().exchange_and_wait(asking(CALL), told.append)
    assert len(told) == 2


async def test_a_person_who_says_no_or_nothing_ends_the_wait() -> None:
    for then, error in (
        ({"error": "access_denied", "reason": "human"}, "access_denied"),
        ({"error": "expired_token"}, "expired_token"),
        ({"error": "authorization_pending", "approval_id": "a1"}, "authorization_pending"),
    ):
        broker = Broker()
        pending = {"error": "authorization_pending", "approval_id": "a1", "interval": 0, "expires_in": 0}
        broker.answer = lambda _, form, then=then, pending=pending: httpx2.Response(  # type: ignore[misc]
            400, json=then if "approval_id" in form else pending
        )
        with pytest.raises(ExchangeError) as refused:
            await broker.client().exchange_and_wait(asking(CALL), lambda _: None)
        assert refused.value.error == error
        with pytest.raises(ExchangeError):
            broker.sync_client().exchange_and_wait(asking(CALL), lambda _: None)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"redeemed": True}, "redeemed"),
        ({"redeemed": False, "reason": "already_used"}, "already_used"),
        ({"redeemed": False, "reason": "revoked"}, "revoked"),
        ({"redeemed": False}, "revoked"),
    ],
)
async def test_redemption(members: dict[str, Any], expected: str) -> None:
    broker = Broker(answer=refusing(200, **members))
    assert await broker.client().redeem("t") == expected
    assert broker.sync_client().redeem("t") == expected
    assert str(broker.requests[0].url) == f"{ISSUER}/redeem"


@pytest.mark.parametrize("members", [{}, {"redeemed": "yes"}, {"redeemed": 1}])
async def test_an_unclear_redemption_is_none(members: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        await Broker(answer=refusing(200, **members)).client().redeem("t")


async def test_introspection_and_revocation() -> None:
    broker = Broker(answer=refusing(200, active=True))
    client = broker.client()
    assert (await client.introspect("t"))["active"] is True
    await client.revoke("t")
    assert [str(request.url) for request in broker.requests] == [f"{ISSUER}/introspect", f"{ISSUER}/revoke"]
    assert broker.sync_client().introspect("t") == {"active": True}
    broker.sync_client().revoke("t")
    with pytest.raises(ProtocolError):
        await Broker(answer=refusing(200, active="yes")).client().introspect("t")
    with pytest.raises(ExchangeError):
        await Broker(answer=refusing(401, error="invalid_client")).client().revoke("t")


def test_the_sync_client_exchanges_as_the_async_one_does() -> None:
    broker = Broker()
    with broker.sync_client() as client:
        client.exchange(asking(CALL))
        client.exchange(asking())
        client.exchange(asking())
    assert len(broker.forms) == 2
