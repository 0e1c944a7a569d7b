"""The clients: one for threads, one for event loops."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import anyio
import httpx2

from deputize.aws.credentials import AwsCredentials
from deputize.call.keys import SigningKey
from deputize.call.strict_json import JsonObject
from deputize.errors import ApprovalPendingError, ProtocolError, UnreachableError

from .answer import Received, Redemption
from .aws import AwsRequest
from .conversation import Broker, ClientOptions, Conversation, Outgoing, Pause
from .request import ExchangeRequest
from .token import ToolToken

T = TypeVar("T")


class _Held:
    """What both clients hold."""

    def __init__(
        self, issuer: str, client_id: str, private_key: SigningKey, options: ClientOptions | None = None
    ) -> None:
        self._options = options or ClientOptions()
        self.broker = Broker(issuer, client_id, private_key, self._options)

    def proof_for(self, method: str, url: str, access_token: str, nonce: str | None = None) -> str:
        """A proof for one request to a server (RFC 9449 §4.2). `nonce` is the last that this server gave."""
        return self.broker.proof_for(method, url, access_token, nonce)

    def forget(self, token: ToolToken) -> None:
        """Take a token out of the cache, for example because a server no longer accepts it."""
        self.broker.forget(token)

    def _build(self, http: httpx2.Client | httpx2.AsyncClient, outgoing: Outgoing) -> httpx2.Request:
        seconds = self._options.timeout_seconds
        times = httpx2.Timeout(seconds, read=seconds + outgoing.wait_seconds, connect=min(seconds, _CONNECT_SECONDS))
        headers = {**_HEADERS, **outgoing.headers}
        return http.build_request(
            outgoing.method, outgoing.url, headers=headers, content=outgoing.body or None, timeout=times
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(issuer={self.broker.issuer!r}, client_id={self.broker.client_id!r})"


class Client(_Held):
    """A client of one broker, for code without an event loop. Share it; close it in the end, or use it as a context.

    Args:
        issuer: The broker's address.
        client_id: Who the broker knows it as.
        private_key: The key with which it authenticates (`private_key_jwt`).
        options: What has a good default.
        http: Sends the requests, for example with CA certificates of your own (`httpx2.Client(verify=…)`); by default
            one without redirects and proxies.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        private_key: SigningKey,
        options: ClientOptions | None = None,
        http: httpx2.Client | None = None,
    ) -> None:
        super().__init__(issuer, client_id, private_key, options)
        self._http = http or httpx2.Client(trust_env=False)

    def exchange(self, request: ExchangeRequest) -> ToolToken:
        """Exchange for a token, or take one from the cache.

        Raises:
            ExchangeError: where the broker refuses: its classes say what to do.
            ToolChangedError: where the server's live definition of the tool is not the approved one.
            UnreachableError: where the broker cannot be reached.
        """
        return self._hold(self.broker.exchange(request))

    def exchange_and_wait(
        self, request: ExchangeRequest, on_pending: Callable[[ApprovalPendingError], object]
    ) -> ToolToken:
        """As `exchange`; where a person has to decide first, tell `on_pending` and wait for them."""
        return self._hold(self.broker.exchange_and_wait(request), on_pending)

    def introspect(self, token: str) -> JsonObject:
        """Ask the broker about a token (RFC 7662); `active` says whether it is good now."""
        return self._hold(self.broker.introspect(token))

    def revoke(self, token: str) -> None:
        """Revoke a token (RFC 7009), and with it what was made from it."""
        self._hold(self.broker.revoke(token))

    def redeem(self, token: str) -> Redemption:
        """Redeem an L3 token, as the guard of its audience."""
        return self._hold(self.broker.redeem(token))

    def aws_credentials(self, request: AwsRequest) -> AwsCredentials:
        """Ask for AWS credentials for the one call of a token, as the server that it is for.

        Raises:
            ExchangeError: where the broker refuses: its classes say what to do.
            ConfigurationError: where the answer is sealed and there is no key, or the other way round.
            UnreachableError: where the broker cannot be reached.
        """
        return self._hold(self.broker.aws_credentials(request))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hold(
        self, conversation: Conversation[T], on_pending: Callable[[ApprovalPendingError], object] | None = None
    ) -> T:
        answer: Received | None = None
        while True:
            try:
                step = conversation.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = None
            if isinstance(step, Outgoing):
                answer = self._send(step)
            elif isinstance(step, Pause):
                time.sleep(step.seconds)
            elif on_pending is not None:
                on_pending(step.error)

    def _send(self, outgoing: Outgoing) -> Received:
        request = self._build(self._http, outgoing)
        try:
            response = self._http.send(request, stream=True, follow_redirects=False)
            try:
                body = bytearray()
                for chunk in response.iter_bytes():
                    _append(body, chunk)
            finally:
                response.close()
        except httpx2.HTTPError as error:
            raise _unreachable(self.broker.issuer, error) from error
        return _received(response, body)


class AsyncClient(_Held):
    """A client of one broker, for event loops. Share it; close it in the end, or use it as a context.

    Args:
        issuer: The broker's address.
        client_id: Who the broker knows it as.
        private_key: The key with which it authenticates (`private_key_jwt`).
        options: What has a good default.
        http: Sends the requests, for example with CA certificates of your own (`httpx2.AsyncClient(verify=…)`); by
            default one without redirects and proxies.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        private_key: SigningKey,
        options: ClientOptions | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        super().__init__(issuer, client_id, private_key, options)
        self.http = http or httpx2.AsyncClient(trust_env=False)

    async def exchange(self, request: ExchangeRequest) -> ToolToken:
        """Exchange for a token, or take one from the cache.

        Raises:
            ExchangeError: where the broker refuses: its classes say what to do.
            ToolChangedError: where the server's live definition of the tool is not the approved one.
            UnreachableError: where the broker cannot be reached.
        """
        return await self._hold(self.broker.exchange(request))

    async def exchange_and_wait(
        self, request: ExchangeRequest, on_pending: Callable[[ApprovalPendingError], Awaitable[object] | object]
    ) -> ToolToken:
        """As `exchange`; where a person has to decide first, tell `on_pending` and wait for them."""
        return await self._hold(self.broker.exchange_and_wait(request), on_pending)

    async def introspect(self, token: str) -> JsonObject:
        """Ask the broker about a token (RFC 7662); `active` says whether it is good now."""
        return await self._hold(self.broker.introspect(token))

    async def revoke(self, token: str) -> None:
        """Revoke a token (RFC 7009), and with it what was made from it."""
        await self._hold(self.broker.revoke(token))

    async def redeem(self, token: str) -> Redemption:
        """Redeem an L3 token, as the guard of its audience."""
        return await self._hold(self.broker.redeem(token))

    async def aws_credentials(self, request: AwsRequest) -> AwsCredentials:
        """Ask for AWS credentials for the one call of a token, as the server that it is for.

        Raises:
            ExchangeError: where the broker refuses: its classes say what to do.
            ConfigurationError: where the answer is sealed and there is no key, or the other way round.
            UnreachableError: where the broker cannot be reached.
        """
        return await self._hold(self.broker.aws_credentials(request))

    async def aclose(self) -> None:
        """Close its connections."""
        await self.http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _hold(
        self,
        conversation: Conversation[T],
        on_pending: Callable[[ApprovalPendingError], Awaitable[object] | object] | None = None,
    ) -> T:
        answer: Received | None = None
        while True:
            try:
                step = conversation.send(answer)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = None
            if isinstance(step, Outgoing):
                answer = await self._send(step)
            elif isinstance(step, Pause):
                await anyio.sleep(step.seconds)
            elif on_pending is not None:
                told = on_pending(step.error)
                if isinstance(told, Awaitable):
                    await told

    async def _send(self, outgoing: Outgoing) -> Received:
        request = self._build(self.http, outgoing)
        try:
            response = await self.http.send(request, stream=True, follow_redirects=False)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    _append(body, chunk)
            finally:
                await response.aclose()
        except httpx2.HTTPError as error:
            raise _unreachable(self.broker.issuer, error) from error
        return _received(response, body)


def _append(body: bytearray, chunk: bytes) -> None:
    if len(body) + len(chunk) > _MAX_ANSWER_BYTES:
        raise ProtocolError("the answer is too long")
    body += chunk


def _received(response: httpx2.Response, body: bytearray) -> Received:
    headers = {name.lower(): value for name, value in response.headers.items() if len(value) <= _MAX_HEADER_BYTES}
    return Received(response.status_code, headers, bytes(body))


def _unreachable(issuer: str, error: httpx2.HTTPError) -> UnreachableError:
    # The class says what happened; the text may hold what was sent.
    return UnreachableError(
        f"the broker {issuer} cannot be reached ({type(error).__name__})",
        "check its address and the network between",
    )


# What is compressed could be much longer than it looks.
_HEADERS = {"accept-encoding": "identity"}
_CONNECT_SECONDS = 3.0
_MAX_ANSWER_BYTES = 256 * 1024
_MAX_HEADER_BYTES = 256
