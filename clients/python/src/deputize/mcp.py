"""For the official MCP SDK: an HTTP client whose refused calls are errors of the one call, not of the connection."""

from __future__ import annotations

from typing import Any, Final, Protocol

import httpx2

from .auth import ToolCallAuth
from .call.strict_json import JsonObject, JsonRefused, parse_value, serialize
from .errors import DeputizeError, ExchangeError

CALL_REFUSED: Final = -32081
"""JSON-RPC error code of a call that the broker or the server refused; `data` says why, and what to do."""


class HttpClientFactory(Protocol):
    """How the SDK, FastMCP and agent frameworks ask for an HTTP client."""

    def __call__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        """A client with these settings."""
        ...


def http_client(
    auth: ToolCallAuth, *, headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None
) -> httpx2.AsyncClient:
    """An HTTP client for `mcp.client.streamable_http.streamable_http_client(url, http_client=…)`.

    Each tool call gets its own token. A call that is refused, by the broker or by the server, fails alone, with an
    `MCPError` whose `data` has `error`, `error_description`, `what_to_do` and, where there is one, `decision_id`.
    """
    return _RefusalsAsErrors(headers=headers, timeout=timeout or _TIMEOUT, auth=auth)


def http_client_factory(auth: ToolCallAuth) -> HttpClientFactory:
    """As `http_client`, for whoever wants a factory (`httpx_client_factory=…`)."""

    def create(
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,  # noqa: ARG001 - the tokens are ours
    ) -> httpx2.AsyncClient:
        return http_client(ours, headers=headers, timeout=timeout)

    ours = auth
    return create


class _RefusalsAsErrors(httpx2.AsyncClient):
    """The SDK takes an exception for the end of the connection, and shows nothing of an OAuth error's body."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        request_id = await _request_id(request)
        try:
            response = await super().send(request, **options)
        except DeputizeError as error:
            if request_id is None:
                raise
            return _answer(request, request_id, str(error), _of_error(error))
        is_json = response.headers.get("content-type", "").startswith("application/json")
        if request_id is None or response.status_code < 400 or not is_json:
            return response
        refused = _of_body(await response.aread())
        if refused is None:
            return response
        return _answer(request, request_id, f"the server refused: {refused['error_description']}", refused)


async def _request_id(request: httpx2.Request) -> str | int | None:
    """The id of the JSON-RPC request in the body; `None` where it is none that could be answered."""
    try:
        message = parse_value(await request.aread(), _MAX_LEVELS)
    except JsonRefused:
        return None
    request_id = message.get("id") if isinstance(message, dict) else None
    return request_id if isinstance(request_id, str | int) else None


def _of_error(error: DeputizeError) -> JsonObject:
    data: JsonObject = {"error": type(error).__name__, "what_to_do": error.what_to_do}
    if isinstance(error, ExchangeError):
        data |= {"error": error.error, "error_description": error.description, "decision_id": error.decision_id}
    return data


def _of_body(body: bytes) -> JsonObject | None:
    """An OAuth error; `None` for what is none, for example a JSON-RPC error of the server."""
    try:
        members = parse_value(body, _MAX_LEVELS)
    except JsonRefused:
        return None
    if not isinstance(members, dict) or not isinstance(members.get("error"), str):
        return None
    names = ("error", "error_description", "decision_id", "authorization_details")
    return {"error_description": "", **{name: members[name] for name in names if name in members}}


def _answer(request: httpx2.Request, request_id: str | int, text: str, data: JsonObject) -> httpx2.Response:
    error: JsonObject = {"code": CALL_REFUSED, "message": text, "data": data}
    body = serialize({"jsonrpc": "2.0", "id": request_id, "error": error})
    headers = {"content-type": "application/json"}
    # The request was answered in its own terms: 200, as for any JSON-RPC error.
    return httpx2.Response(200, headers=headers, content=body, request=request)


_MAX_LEVELS = 40
# As the SDK has them: a server may hold a stream of answers open.
_TIMEOUT = httpx2.Timeout(30.0, read=300.0)
