"""AWS credentials of a call: asked for once, for this call alone, kept until they end, shown to nobody."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
from botocore.credentials import RefreshableCredentials

from aws_broker import Aws, AwsBroker, access_key_of, aws, serving
from deputize import (
    AccessDeniedError,
    AwsCredentialsExpiredError,
    AwsRequest,
    ConfigurationError,
    ExchangeError,
    ProtocolError,
    RetryLaterError,
    UnreachableError,
    VerifiedCall,
)
from deputize.aws import boto
from deputize.aws.door import BrokerDoor
from deputize.call.digest import call_digest
from deputize.guard import Guard, Revocation
from guard_fixture import Fixture, as_call, call, definitions, l1, l3

REFUND = {"payment_id": "pay_81", "amount_cents": 4200}


class Lab:
    """A guard whose calls have a way to a broker."""

    def __init__(self, **settings: Any) -> None:
        self.f = Fixture(**settings)
        self.broker = AwsBroker(self.f)
        client = self.broker.client(self.f.settings.encryption_key)
        door = BrokerDoor(self.f.settings, self.f.clock, client, may_make_one=False)
        f = self.f
        f.guard = Guard(f.settings, f.outside, aws=door, clock=f.clock)
        f.clock.advance(100)
        f.guard.install(f.snapshot(issued_at=f.clock.now - 1))
        f.guard.observe_tools(definitions())

    async def call(self, arguments: Any = None, **more: Any) -> VerifiedCall:
        """A verified call of `refund`."""
        arguments = dict(REFUND) if arguments is None else arguments
        return as_call(await self.f.with_grant(l3("refund", arguments), call("refund", arguments), **more))


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    with aws() as standing:
        yield standing


def identity(verified: VerifiedCall, cloud: Aws) -> Any:
    """A client of AWS, as a tool makes one."""
    return verified.boto3_session("eu-central-1").client("sts", endpoint_url=cloud.url)


async def test_what_is_asked_with_is_the_call_and_what_was_verified(lab: Lab) -> None:
    verified = await lab.call(jti="jti-1")
    assert lab.broker.asked == [], "nothing is asked before somebody wants it"
    verified.arguments["amount_cents"] = 1
    given = verified.aws_credentials().get()
    assert (given.access_key_id, given.secret_access_key) == (access_key_of("jti-1"), "secret/of+jti-1")
    assert (given.session_token, given.account_id) == ("session-of-jti-1==", "111122223333")
    assert (given.expires_at.timestamp(), given.decision_id) == (lab.f.clock.now + 300, "decision-jti-1")
    (form,) = lab.broker.asked
    assert form["subject_token"] == verified.token
    assert json.loads(form["arguments"]) == REFUND, "whatever a tool makes of its arguments"
    assert not {"input_responses", "request_state", "template"} & set(form)


async def test_what_steers_a_retry_is_asked_with(lab: Lab) -> None:
    steering: Any = {"inputResponses": {"q": {"action": "accept"}}, "requestState": "s"}
    body = call("refund", REFUND)
    body["params"] |= steering
    digest = call_digest("tools/call", "refund", REFUND, steering["inputResponses"], "s")
    verified = as_call(await lab.f.with_grant(l1("refund", call_digest=digest, max_uses=1), body))
    assert verified.aws_credentials().get().access_key_id
    (form,) = lab.broker.asked
    assert (json.loads(form["input_responses"]), form["request_state"]) == (steering["inputResponses"], '"s"')


async def test_with_other_arguments_there_are_none(lab: Lab) -> None:
    verified = await lab.call()
    for arguments in ({**REFUND, "amount_cents": 4201}, {}, {**REFUND, "note": "n"}):
        with pytest.raises(ExchangeError) as refused:
            lab.broker.client().aws_credentials(AwsRequest(token=verified.token, arguments=arguments))
        assert refused.value.error == "invalid_request"
        assert "with that call's arguments" in refused.value.what_to_do
    named = AwsRequest(token=verified.token, arguments=REFUND, template="restart")
    assert lab.broker.client().aws_credentials(named).access_key_id
    assert lab.broker.asked[-1]["template"] == "restart"


async def test_botocore_signs_all_it_sends_with_one_request_to_the_broker(lab: Lab, cloud: Aws) -> None:
    verified = await lab.call(jti="jti-1")
    client = identity(verified, cloud)
    assert isinstance(client._request_signer._credentials, RefreshableCredentials)
    for seconds in (0, 1, 60, 238):
        lab.f.clock.advance(seconds)
        assert client.get_caller_identity()["Arn"].endswith(access_key_of("jti-1"))
    assert identity(verified, cloud).get_caller_identity()["Arn"].endswith(access_key_of("jti-1"))
    assert set(cloud.signed_by) == {(access_key_of("jti-1"), "session-of-jti-1==")}
    assert (len(cloud.signed_by), len(lab.broker.asked)) == (5, 1)


async def test_after_the_window_there_is_an_error_and_nothing_is_signed(lab: Lab, cloud: Aws) -> None:
    verified = await lab.call()
    credentials, client = verified.aws_credentials(), identity(verified, cloud)
    client.get_caller_identity()
    lab.f.clock.advance(299)
    client.get_caller_identity()
    lab.f.clock.advance(1)
    for use in (client.get_caller_identity, credentials.get, lambda: credentials.secret_access_key):
        with pytest.raises(AwsCredentialsExpiredError) as over:
            use()
        assert "let the agent call again" in over.value.what_to_do
    with pytest.raises(AwsCredentialsExpiredError):
        await verified.aws_credentials().aget()
    assert (len(cloud.signed_by), len(lab.broker.asked)) == (2, 1), "and nothing is asked anew"


async def test_a_clock_that_is_put_back_makes_no_window_longer(lab: Lab) -> None:
    credentials = (await lab.call()).aws_credentials()
    credentials.get()
    lab.f.clock.now -= 3600
    lab.f.clock.up += 299
    assert credentials.get()
    lab.f.clock.up += 1
    with pytest.raises(AwsCredentialsExpiredError):
        credentials.get()


async def test_what_is_revoked_ends_with_the_guards_hearing_of_it(lab: Lab) -> None:
    for revocation, is_over in (
        (Revocation("token", "jti-1"), True),
        (Revocation("person", lab.f.claims(l3("refund", REFUND))["sub"]), True),
        (Revocation("token", "another"), False),
    ):
        fresh = Lab()
        credentials = (await fresh.call(jti="jti-1")).aws_credentials()
        assert credentials.get()
        fresh.f.guard.revoke(revocation)
        if not is_over:
            assert credentials.get()
            assert await credentials.aget()
            continue
        for _ in range(2):
            with pytest.raises(ExchangeError, match="revoked"):
                credentials.get()
            with pytest.raises(ExchangeError, match="revoked"):
                await credentials.aget()
        assert len(fresh.broker.asked) == 1


async def test_what_is_revoked_while_the_broker_is_asked_is_not_given(lab: Lab) -> None:
    def revoked_meanwhile(_: Any) -> None:
        lab.f.guard.revoke(Revocation("token", "jti-1"))

    lab.broker.answer = revoked_meanwhile
    with pytest.raises(ExchangeError, match="revoked"):
        (await lab.call(jti="jti-1")).aws_credentials().get()


async def test_what_has_ended_when_it_comes_is_not_used(lab: Lab) -> None:
    for ends, error in (
        ("2020-01-01T00:00:00Z", AwsCredentialsExpiredError),
        ("2099-01-01T00:00:00Z", ProtocolError),
    ):
        lab.broker.answer = lambda form, ends=ends: httpx2.Response(
            200, json=lab.broker.credentials(form, Expiration=ends)
        )
        with pytest.raises(error):
            (await lab.call()).aws_credentials().get()


async def test_threads_that_ask_at_once_make_one_request(lab: Lab, cloud: Aws) -> None:
    verified = await lab.call(jti="jti-1")
    lab.broker.may_answer.clear()
    here = threading.Barrier(17)
    clients = [identity(verified, cloud) for _ in range(3)]

    def act(number: int) -> str:
        here.wait(30)
        if number < len(clients):
            return str(clients[number].get_caller_identity()["Arn"])
        return verified.aws_credentials().access_key_id

    with ThreadPoolExecutor(16) as threads:
        acting = [threads.submit(act, number) for number in range(16)]
        here.wait(30)
        lab.broker.may_answer.set()
        assert all(each.result(30).endswith(access_key_of("jti-1")) for each in acting)
    assert len(lab.broker.asked) == 1


async def test_tasks_that_ask_at_once_make_one_request(lab: Lab) -> None:
    verified = await lab.call(jti="jti-1")
    lab.broker.may_answer.clear()
    asking = [asyncio.ensure_future(verified.aws_credentials().aget()) for _ in range(50)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    lab.broker.may_answer.set()
    given = await asyncio.gather(*asking[1:])
    assert {each.access_key_id for each in given} == {access_key_of("jti-1")}
    assert asking[0].cancelled(), "who made the request may go away"
    assert len(lab.broker.asked) == 1


@pytest.mark.parametrize(
    ("status", "error", "kind", "advice"),
    [
        (400, "invalid_request", ExchangeError, "while its token is fresh"),
        (400, "access_denied", AccessDeniedError, "which template or policy"),
        (401, "invalid_client", ExchangeError, "check client_id"),
        (404, "not_found", ExchangeError, "have `aws` configured"),
        (502, "server_error", ExchangeError, "AWS refused"),
    ],
)
async def test_a_refusal_says_what_to_do_and_stands(
    lab: Lab, status: int, error: str, kind: type[ExchangeError], advice: str
) -> None:
    said = {"error": error, "error_description": "no", "reason": "policy", "decision_id": "d-1"}
    lab.broker.answer = lambda _: httpx2.Response(status, json=said)
    credentials = (await lab.call()).aws_credentials()
    for _ in range(3):
        with pytest.raises(kind) as refused:
            credentials.get()
        assert not isinstance(refused.value, RetryLaterError)
        assert advice in refused.value.what_to_do
        assert refused.value.decision_id == "d-1"
        lab.f.clock.advance(10)
    assert len(lab.broker.asked) == 1


async def test_what_may_pass_is_asked_for_again_but_not_at_once(lab: Lab) -> None:
    def throttled(_: Any) -> httpx2.Response:
        said = {"error": "temporarily_unavailable", "error_description": "throttled"}
        return httpx2.Response(503, json=said, headers={"retry-after": "7"})

    lab.broker.answer = throttled
    credentials = (await lab.call()).aws_credentials()
    for seconds, asked in ((0, 1), (6, 1), (1, 2), (1, 2)):
        lab.f.clock.advance(seconds)
        with pytest.raises(RetryLaterError) as refused:
            credentials.get()
        assert refused.value.retry_after_seconds == 7
        assert len(lab.broker.asked) == asked
    lab.f.clock.advance(7)
    lab.broker.answer = lambda _: None
    assert credentials.get().access_key_id


async def test_a_broker_that_cannot_be_reached_is_asked_again_after_a_second(lab: Lab) -> None:
    def broken(_: Any) -> httpx2.Response:
        raise httpx2.ConnectError("secret/of+somebody")

    lab.broker.answer = broken
    credentials = (await lab.call()).aws_credentials()
    for seconds, asked in ((0, 1), (0, 1), (1, 2)):
        lab.f.clock.advance(seconds)
        with pytest.raises(UnreachableError) as failed:
            await credentials.aget()
        assert "secret" not in str(failed.value)
        assert len(lab.broker.asked) == asked


@pytest.mark.parametrize(
    "change",
    [
        {"Version": 2},
        {"AccessKeyId": None},
        {"AccessKeyId": "A\nB"},
        {"SecretAccessKey": ""},
        {"SecretAccessKey": "with space"},
        {"SessionToken": "x\r\nhost: evil"},
        {"SessionToken": "x" * 20_000},
        {"SessionToken": ["x"]},
        {"Expiration": "2027-01-15T08:00:00+00:00"},
        {"Expiration": "2027-13-15T08:00:00Z"},
        {"Expiration": 1_800_000_300},
    ],
)
async def test_what_is_malformed_is_not_signed_with(lab: Lab, change: dict[str, Any]) -> None:
    lab.broker.answer = lambda form: httpx2.Response(200, json=lab.broker.credentials(form, **change))
    with pytest.raises(ProtocolError) as refused:
        (await lab.call()).aws_credentials().get()
    assert_shows_nothing(refused.value)


async def test_rubbish_and_members_that_stand_twice_are_refused_and_shown_nowhere(lab: Lab) -> None:
    for body in (
        b"",
        b"[]",
        b"<html>secret/of+jti</html>",
        b'{"Version":1,"Version":1,"SecretAccessKey":"secret/of+j"}',
    ):
        lab.broker.answer = lambda _, body=body: httpx2.Response(200, content=body)
        with pytest.raises(ProtocolError) as refused:
            (await lab.call()).aws_credentials().get()
        assert_shows_nothing(refused.value)


def assert_shows_nothing(error: BaseException) -> None:
    """Neither the error nor anything behind it holds what was read."""
    behind: BaseException | None = error
    while behind is not None:
        assert "secret/of" not in f"{behind!r}{vars(behind)}"
        assert not hasattr(behind, "doc"), "the parser's error has the whole text"
        behind = behind.__context__
    assert "secret/of" not in "".join(traceback.format_exception(error))


async def test_nothing_shows_them(lab: Lab, cloud: Aws, caplog: pytest.LogCaptureFixture) -> None:
    verified = await lab.call(jti="jti-1")
    credentials = verified.aws_credentials()
    with caplog.at_level(logging.INFO):
        given, client = credentials.get(), identity(verified, cloud)
        client.get_caller_identity()
        frozen = credentials.get_frozen_credentials()  # type: ignore[attr-defined]
        assert frozen.secret_key == "secret/of+jti-1"
        lab.f.clock.advance(301)
        with pytest.raises(AwsCredentialsExpiredError) as over:
            client.get_caller_identity()
    shown = [repr(over.value), "".join(traceback.format_exception(over.value)), caplog.text]
    for each in (credentials, given, frozen, verified, verified.aws, client, client._request_signer._credentials):
        shown += [repr(each), str(each), f"{each}", repr([each])]
    for text in shown:
        for part in ("secret/of+jti-1", "session-of-jti-1", access_key_of("jti-1")):
            assert part not in text
    for each in (credentials, given, verified.aws, verified):
        with pytest.raises(TypeError, match="stay in the process"):
            pickle.dumps(each)
    assert copy.deepcopy(verified.aws) is verified.aws


async def test_no_others_are_looked_for(lab: Lab, cloud: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trapped: list[str] = []

    class Trap(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            trapped.append(self.path)
            self.send_error(404)

        def do_PUT(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    files = tmp_path / "credentials"
    files.write_text("[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = x\n[mine]\nregion = us-east-1\n")
    with serving(Trap) as trap:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "AKIAENVIRONMENT",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_SESSION_TOKEN": "x",
            "AWS_PROFILE": "a-profile-that-is-not-there",
            "AWS_SHARED_CREDENTIALS_FILE": str(files),
            "AWS_CONFIG_FILE": str(files),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{trap}/container",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": trap,
            "AWS_BEARER_TOKEN_BEDROCK": "bearer",
        }.items():
            monkeypatch.setenv(name, value)
        verified = await lab.call(jti="jti-1")
        session = verified.boto3_session("eu-central-1")
        client = session.client("sts", endpoint_url=cloud.url)
        assert client.get_caller_identity()["Arn"].endswith(access_key_of("jti-1"))
        assert session._session.get_auth_token(signing_name="bedrock") is None
        assert session.region_name == "eu-central-1"
        assert session.available_profiles == []
        lab.f.clock.advance(301)
        for each in (client, session.client("sts", endpoint_url=cloud.url)):
            with pytest.raises(AwsCredentialsExpiredError):
                each.get_caller_identity()
    assert trapped == []
    assert [key for key, _ in cloud.signed_by] == [access_key_of("jti-1")]


async def test_where_botocore_is_missing_they_are_a_plain_object(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, boto.__name__, None)
    monkeypatch.delattr("deputize.aws.boto")
    verified = await lab.call(jti="jti-1")
    credentials = verified.aws_credentials()
    assert not isinstance(credentials, RefreshableCredentials)
    assert credentials.access_key_id == access_key_of("jti-1")
    assert (credentials.secret_access_key, credentials.session_token) == ("secret/of+jti-1", "session-of-jti-1==")
    assert credentials.expires_at.timestamp() == lab.f.clock.now + 300
    with pytest.raises(ConfigurationError, match=r"deputize\[aws\]"):
        verified.boto3_session()


async def test_only_calls_of_tools_have_them_and_only_with_a_way_to_the_broker(lab: Lab) -> None:
    f = Fixture()
    with pytest.raises(ConfigurationError, match="no way to the broker"):
        (await f.lookup()).aws_credentials()
    verified = await lab.call()
    with pytest.raises(ConfigurationError, match="tools alone"):
        replace(verified, action="prompts/get").aws_credentials()
    door = BrokerDoor(f.settings, f.clock, None, may_make_one=False)
    with pytest.raises(ConfigurationError, match="aws_broker"):
        door.kept_for(verified.token, verified.rebuilt_body).get()
