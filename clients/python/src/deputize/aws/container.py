"""For a server behind the guard proxy: the credentials of a call, from the loopback address that came with it."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from deputize.clock import Clock, SystemClock
from deputize.errors import (
    AwsCredentialsExpiredError,
    ConfigurationError,
    ExchangeError,
    ProtocolError,
    Refused,
    RetryLaterError,
    UnreachableError,
)

from .answer import read_complaint, read_container
from .credentials import AwsCredentials, CallCredentials, Kept, credentials_of


def credentials_from_guard(headers: Mapping[str, str], *, clock: Clock | None = None) -> CallCredentials:
    """The AWS credentials of the call that a request is, in a server that the guard proxy stands before.

    The guard says in the request's headers where they are, with a secret; both die with the call.

    Args:
        headers: Those of the request, for example Starlette's `request.headers`.
        clock: Another clock.

    Raises:
        ConfigurationError: where the request names no such address: the guard runs without `--aws-credentials`, or
            the request did not come through it.
    """
    named = {name.lower(): value for name, value in headers.items() if name.lower() in (_URI, _AUTHORIZATION)}
    uri, secret = named.get(_URI), named.get(_AUTHORIZATION)
    if uri is None or secret is None:
        raise ConfigurationError(
            "the request brings no address of AWS credentials",
            "start the guard with --aws-credentials, and let requests come through it alone",
        )
    host, port, path = _loopback(uri)
    if _SECRET.fullmatch(secret) is None:
        raise ConfigurationError(f"{_AUTHORIZATION} is no secret of a guard", "let requests come through it alone")
    return credentials_of(Kept(lambda: _fetch(host, port, path, secret), clock or SystemClock()))


def _loopback(uri: str) -> tuple[str, int, str]:
    """Where to ask: a guard's path on this machine, and nothing else, whoever wrote the header."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
        is_here = ip_address(host).is_loopback
    except ValueError:
        host, port, is_here = "", None, False
    is_plain = uri == f"http://{parts.netloc}{parts.path}" and "@" not in parts.netloc if is_here else False
    if not is_plain or port is None or _PATH.fullmatch(parts.path) is None:
        raise ConfigurationError(
            f"{_URI} is no address of a guard on this machine", "let requests come through the guard alone"
        )
    return host, port, parts.path


def _fetch(host: str, port: int, path: str, secret: str) -> AwsCredentials:
    # Neither proxies nor redirects: this asks this machine, once.
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    problem = ""
    try:
        connection.request("GET", path, headers={"authorization": secret, "accept": "application/json"})
        with connection.getresponse() as response:
            status, body = response.status, response.read(_MAX_BYTES + 1)
            pause = response.getheader("retry-after", "")
    except (OSError, http.client.HTTPException) as error:
        problem = type(error).__name__
    finally:
        connection.close()
    if problem:
        raise UnreachableError(f"the guard's AWS credentials cannot be had ({problem})", "check that the guard runs")
    if status == _GONE:
        raise AwsCredentialsExpiredError
    if len(body) > _MAX_BYTES:
        raise ProtocolError("the answer is too long")
    if status != 200:
        raise _refusal(status, body, pause)
    return read_container(body)


def _refusal(status: int, body: bytes, pause: str) -> ExchangeError:
    """An error in the form of a container's credentials: the guard's words for what the broker said."""
    code, message = read_complaint(body)
    refused = Refused(status, code, message, None)
    if status in (429, 503):
        is_seconds = pause.isascii() and pause.isdigit() and len(pause) < 10
        return RetryLaterError(refused, int(pause) if is_seconds else None)
    return ExchangeError(refused, _ASK_OPERATOR)


_URI = "deputize-aws-credentials-uri"
_AUTHORIZATION = "deputize-aws-authorization"
_ASK_OPERATOR = "look at the guard's log: the decision's id is there, for `deputize explain`"
_PATH = re.compile(r"/aws/[A-Za-z0-9_-]{16,256}")
_SECRET = re.compile(r"[!-~]{16,512}")
# Address and secret die with the call.
_GONE = 404
# The guard asks the broker, and that asks AWS.
_SECONDS = 20.0
_MAX_BYTES = 64 * 1024
