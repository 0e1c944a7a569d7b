"""Behind the guard proxy: the credentials of a call from the address that came with it, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from botocore.config import Config

from aws_broker import aws, serving
from deputize import (
    AwsCredentialsExpiredError,
    ConfigurationError,
    ExchangeError,
    ProtocolError,
    RetryLaterError,
    UnreachableError,
    credentials_from_guard,
)
from guard_fixture import TestClock

SECRET = "a-secret-of-this-call"
PATH = "/aws/an-address-of-this-call"


class Door:
    """The guard's loopback address of one call."""

    def __init__(self) -> None:
        self.url = ""
        self.clock = TestClock()
        self.asked: list[tuple[str, str | None]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes | None = None

    def content(self, **changes: Any) -> bytes:
        ends = datetime.fromtimestamp(self.clock.now + 300, timezone.utc)
        content = {
            "AccessKeyId": "ASIAGUARD",
            "SecretAccessKey": "secret/of+guard",
            "Token": "session-of-guard==",
            "Expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "AccountId": "111122223333",
        }
        return json.dumps({**content, **changes}).encode()

    def request(self, **changes: Any) -> dict[str, str]:
        said = {"Deputize-Aws-Credentials-Uri": self.url + PATH, "Deputize-Aws-Authorization": SECRET, "Host": "x"}
        changed = {**said, **{name.replace("_", "-"): value for name, value in changes.items()}}
        return {name: value for name, value in changed.items() if value is not None}


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers.get("authorization")))
            body = made.content() if made.body is None else made.body
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as url:
        made.url = url
        yield made


def test_the_credentials_of_a_call_are_asked_for_once(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with aws() as cloud:
        credentials = credentials_from_guard(door.request(), clock=door.clock)
        assert door.asked == []
        client = credentials.boto3_session("eu-central-1").client(
            "sts", endpoint_url=cloud.url, config=Config(proxies={})
        )
        client.get_caller_identity()
        client.get_caller_identity()
        assert credentials.get().account_id == "111122223333"
        assert cloud.signed_by == [("ASIAGUARD", "session-of-guard==")] * 2
        assert door.asked == [(PATH, SECRET)]
        door.clock.advance(300)
        with pytest.raises(AwsCredentialsExpiredError):
            client.get_caller_identity()
    assert SECRET not in repr(credentials)
    assert len(door.asked) == 1


def test_a_request_that_came_past_the_guard_has_none(door: Door) -> None:
    for changes in ({"Deputize_Aws_Credentials_Uri": None}, {"Deputize_Aws_Authorization": None}):
        with pytest.raises(ConfigurationError, match="no address of AWS credentials") as refused:
            credentials_from_guard(door.request(**changes))
        assert "--aws-credentials" in refused.value.what_to_do


@pytest.mark.parametrize(
    "uri",
    [
        "https://127.0.0.1:8080/aws/an-address-of-this-call",
        "http://10.0.0.1:8080/aws/an-address-of-this-call",
        "http://169.254.169.254:80/aws/an-address-of-this-call",
        "http://localhost:8080/aws/an-address-of-this-call",
        "http://127.0.0.1/aws/an-address-of-this-call",
        "http://127.0.0.1:0x50/aws/an-address-of-this-call",
        "http://user@127.0.0.1:8080/aws/an-address-of-this-call",
        "http://127.0.0.1:8080@evil.example.com:80/aws/an-address-of-this-call",
        "http://127.0.0.1:8080/aws/an-address-of-this-call?x=1",
        "http://127.0.0.1:8080/aws/an-address-of-this-call#x",
        "http://127.0.0.1:8080/aws/../admin/of-this-machine",
        "http://127.0.0.1:8080/admin/an-address-of-this-call",
        "http://127.0.0.1:8080/aws/short",
        "http://127.0.0.1:8080/aws/an-address\r\nx: y",
        "file:///etc/passwd",
        "//127.0.0.1:8080/aws/an-address-of-this-call",
        "http://[::ffff:10.0.0.1]:80/aws/an-address-of-this-call",
        "http://[127.0.0.1:80/aws/an-address-of-this-call",
        "",
    ],
)
def test_no_other_address_is_asked(door: Door, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="no address of a guard on this machine"):
        credentials_from_guard(door.request(Deputize_Aws_Credentials_Uri=uri))


@pytest.mark.parametrize(
    "secret", ["", "short", "with space in it, as no secret has", "x" * 600, "line\r\nbreaks-in-it-are"]
)
def test_no_other_secret_is_sent(door: Door, secret: str) -> None:
    with pytest.raises(ConfigurationError, match="no secret of a guard"):
        credentials_from_guard(door.request(Deputize_Aws_Authorization=secret))


def test_redirects_are_not_followed_and_what_is_gone_has_ended(door: Door) -> None:
    door.headers = {"location": f"{door.url}/aws/another-address-of-this-call"}
    for status, error in (
        (302, ExchangeError),
        (307, ExchangeError),
        (502, ExchangeError),
        (404, AwsCredentialsExpiredError),
    ):
        door.status = status
        with pytest.raises(error):
            credentials_from_guard(door.request(), clock=door.clock).get()
    assert [path for path, _ in door.asked] == [PATH] * 4


def test_what_the_guard_was_refused_is_said_and_stands(door: Door) -> None:
    door.status, door.body = 403, b'{"code":"Denied","message":"access_denied: no\\u001b[2J (decision d-1)"}'
    credentials = credentials_from_guard(door.request(), clock=door.clock)
    for _ in range(2):
        with pytest.raises(ExchangeError, match=r"Denied: access_denied: no\[2J \(decision d-1\)") as refused:
            credentials.get()
        assert "the guard's log" in refused.value.what_to_do
        door.clock.advance(60)
    assert len(door.asked) == 1


def test_what_may_pass_is_asked_for_again_when_the_guard_says(door: Door) -> None:
    door.headers = {"retry-after": "3"}
    for status in (429, 503):
        door.status = status
        credentials = credentials_from_guard(door.request(), clock=door.clock)
        for seconds in (0, 2):
            door.clock.advance(seconds)
            with pytest.raises(RetryLaterError) as refused:
                credentials.get()
            assert refused.value.retry_after_seconds == 3
        asked = len(door.asked)
        door.clock.advance(1)
        door.status = 200
        assert credentials.get().access_key_id == "ASIAGUARD"
        assert len(door.asked) == asked + 1


def test_an_answer_is_bounded_and_read_strictly(door: Door) -> None:
    for body in (
        door.content(Token="x" * 70_000),
        door.content(Token="x\n"),
        door.content(AccessKeyId=1),
        door.content(Expiration="soon"),
        b"secret/of+guard",
        b"",
    ):
        door.body = body
        with pytest.raises(ProtocolError) as refused:
            credentials_from_guard(door.request(), clock=door.clock).get()
        assert refused.value.__context__ is None


def test_a_guard_that_is_gone_is_said_to_be(door: Door) -> None:
    request = door.request(Deputize_Aws_Credentials_Uri=f"http://127.0.0.1:1{PATH}")
    with pytest.raises(UnreachableError, match="check that the guard runs"):
        credentials_from_guard(request, clock=door.clock).get()
