"""How each request to an MCP server gets a token of its own: the steps, for whichever HTTP library carries them out."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from .call.digest import ABSENT
from .call.dpop import without_query
from .call.strict_json import MAX_DEPTH, JsonObject, JsonRefused, parse_value, serialize
from .client import Action, AsyncClient, Call, Client, Detail, ExchangeRequest, Listing, TokenType, Tool, ToolToken
from .errors import ApprovalPendingError, ConfigurationError, DeputizeError, ToolChangedError, UnsafeRequestError
from .live_tools import LiveTools, messages_in
from .urls import is_safe_url

SubjectToken: TypeAlias = "str | Callable[[], str | Awaitable[str]]"
"""The user's token; a function where it is refreshed now and then. With an `AsyncClient` it may be a coroutine's."""


@dataclass(frozen=True, kw_only=True)
class CallingOptions:
    """What has a good default."""

    subject_token_type: TokenType = "jwt"
    level: Callable[[str], Literal["L1", "L3"]] | None = None
    """How tightly a tool's calls are bound: `L3`, one token for each call, unless said. Tokens of `L1` are cached;
    where the server wants a tighter one, the call is repeated with a token for itself."""
    on_approval: Callable[[ApprovalPendingError], Awaitable[object] | object] | None = None
    """Told when a person has to decide about a call; the call then waits. Without it, such a call is refused with
    `ApprovalPendingError`."""
    claimed: Mapping[str, str] = field(default_factory=dict)
    """`host`, `model`, `workflow`, …: recorded by the broker as claimed."""


# Requests and responses are those of httpx2 or of httpx, which have the same shape and no common base.
Request: TypeAlias = Any
Response: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class _Exchange:
    """Have a token exchanged."""

    detail: Detail
    live_tool_digest: str | None
    action: Action


@dataclass(frozen=True, slots=True)
class _Send:
    """Have a request sent, and its answer read whole if that is wanted."""

    request: Request
    read: bool


_Steps: TypeAlias = Generator["_Exchange | _Send", Any, None]


class Calling:
    """Gives each request to one MCP server its own token and proof.

    `ToolCallAuth` of `deputize.auth` (httpx2) and of `deputize.httpx_auth` (httpx) is this, as an authentication class.
    """

    requires_request_body = True

    def __init__(
        self,
        client: AsyncClient | Client,
        resource: str,
        subject_token: SubjectToken,
        options: CallingOptions | None = None,
    ) -> None:
        if not is_safe_url(resource):
            raise ConfigurationError("the resource is not an https URL", "give the MCP server's resource URI")
        self._client = client
        self._resource = resource
        self._subject_token = subject_token
        self._options = options or CallingOptions()
        self._tools = LiveTools()
        self._nonce: str | None = None

    def sync_auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """Carry out the steps without an event loop."""
        client = self._client
        if not isinstance(client, Client):
            raise ConfigurationError("an AsyncClient cannot serve requests without an event loop", "give a Client")
        request.read()
        steps = self._steps(request)
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            if isinstance(step, _Send):
                result = response = yield step.request
                if step.read:
                    response.read()
            else:
                token = self._subject_token if isinstance(self._subject_token, str) else self._subject_token()
                if not isinstance(token, str):
                    raise ConfigurationError("the subject token's function is asynchronous", "give an AsyncClient")
                asked, waiting = self._request(step, token), self._options.on_approval
                result = client.exchange(asked) if waiting is None else client.exchange_and_wait(asked, waiting)

    async def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Response]:
        """Carry out the steps in an event loop."""
        client = self._client
        if not isinstance(client, AsyncClient):
            raise ConfigurationError("a Client would block the event loop", "give an AsyncClient")
        await request.aread()
        steps = self._steps(request)
        result: object = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration:
                return
            if isinstance(step, _Send):
                result = response = yield step.request
                if step.read:
                    await response.aread()
            else:
                token = self._subject_token if isinstance(self._subject_token, str) else self._subject_token()
                token = token if isinstance(token, str) else await token
                asked, waiting = self._request(step, token), self._options.on_approval
                result = await (client.exchange(asked) if waiting is None else client.exchange_and_wait(asked, waiting))

    def _request(self, step: _Exchange, subject_token: str) -> ExchangeRequest:
        return ExchangeRequest(
            resource=self._resource,
            subject_token=subject_token,
            subject_token_type=self._options.subject_token_type,
            detail=step.detail,
            claimed=self._options.claimed,
            action=step.action,
            live_tool_digest=step.live_tool_digest,
        )

    def _steps(self, request: Request) -> _Steps:
        # A token goes to no other place than the server that it is for.
        if _origin(str(request.url)) != _origin(self._resource):
            raise UnsafeRequestError("a request to another origin than the resource's", "use one auth for each server")
        message = _read_message(request.content)
        action = _ACTIONS.get(str(message.get("method"))) if message is not None else None
        if message is None or action is None:
            yield from self._look(request, message)
        elif action == "tools/call":
            yield from self._call(request, message)
        else:
            # The guard holds a prompt against its approved definition; a resource has none.
            yield from self._send(request, _call_detail(message), None, action=action)

    def _look(self, request: Request, message: JsonObject | None) -> _Steps:
        """A request that calls nothing."""
        is_list = message is not None and message.get("method") == "tools/list"
        if is_list:
            request.headers["accept-encoding"] = "identity"
        response = yield from self._send(request, Listing(), None, read=is_list)
        if message is not None and is_list and response.status_code == 200:
            params = message.get("params")
            self._note(response, is_first=not isinstance(params, dict) or "cursor" not in params)

    def _call(self, request: Request, message: JsonObject) -> _Steps:
        """A request that calls a tool: which is what the server lists, and has a token for this call."""
        detail = _call_detail(message)
        clock = self._client.broker.clock
        if self._tools.digest_of(detail.name, clock.uptime()) is None:
            yield from self._list(request, message)
        live = self._tools.digest_of(detail.name, clock.uptime())
        if live is None:
            raise ToolChangedError(detail.name, None)
        level = self._options.level
        if level is not None and level(detail.name) == "L1":
            response = yield from self._send(request, Tool(detail.name), live)
            if _challenge(response) != "insufficient_scope":
                return
        yield from self._send(request, detail, live)

    def _list(self, request: Request, message: JsonObject) -> _Steps:
        """Ask the server for its tools, in the same session and protocol as the call that needs to know."""
        params = message.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() in _CARRIED or name.lower() == "mcp-method"
        }
        if "mcp-method" in headers:
            headers["mcp-method"] = "tools/list"
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            asked: JsonObject = {} if cursor is None else {"cursor": cursor}
            if isinstance(meta, dict):
                asked["_meta"] = {name: value for name, value in meta.items() if name != "progressToken"}
            # An id is used once in a session, whoever else asks in it.
            list_id = f"deputize-list-{self._client.broker.clock.unique_id()}"
            body: JsonObject = {"jsonrpc": "2.0", "id": list_id, "method": "tools/list"}
            if asked:
                body["params"] = asked
            listing = type(request)("POST", request.url, headers=headers, content=serialize(body))
            listing.extensions = request.extensions
            response = yield from self._send(listing, Listing(), None, read=True)
            if response.status_code != 200:
                raise DeputizeError(
                    f"the server does not list its tools (status {response.status_code})",
                    "check that this user and client may look at the server",
                )
            cursor = self._note(response, is_first=cursor is None)
            if cursor is None:
                return

    def _note(self, response: Response, *, is_first: bool) -> str | None:
        cursor, uptime = None, self._client.broker.clock.uptime()
        for message in messages_in(response.headers.get("content-type", ""), response.content):
            cursor = self._tools.read(message, uptime, is_first=is_first) or cursor
        return cursor

    def _send(
        self,
        request: Request,
        detail: Detail,
        live: str | None,
        *,
        read: bool = False,
        action: Action = "tools/call",
    ) -> Generator[_Exchange | _Send, Any, Response]:
        """Send with a token; once more where the server wants its nonce, or no longer takes a token that was cached."""
        exchange = _Exchange(detail, live, action)
        token: ToolToken = yield exchange
        tried: set[str] = set()
        while True:
            self._authorize(request, token)
            response = yield _Send(request, read)
            # RFC 9449 §8.2: any answer may bring the nonce for the next request.
            self._nonce = response.headers.get("dpop-nonce", self._nonce)
            problem = _challenge(response)
            # RFC 9449 §9: a challenge used nothing up.
            wants_nonce = problem == "use_dpop_nonce" and "dpop-nonce" in response.headers
            is_stale = problem == "invalid_token" and not token.binds_one_call
            if problem is None or problem in tried or not (wants_nonce or is_stale):
                return response
            tried.add(problem)
            if is_stale:
                self._client.forget(token)
                token = yield exchange

    def _authorize(self, request: Request, token: ToolToken) -> None:
        url = without_query(str(request.url))
        request.headers["Authorization"] = token.authorization
        request.headers["DPoP"] = self._client.proof_for(request.method, url, token.access_token, self._nonce)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(resource={self._resource!r})"


def _read_message(body: bytes) -> JsonObject | None:
    """Reads a body as strictly as the server will; `None` where there is none."""
    if not body:
        return None
    try:
        # The message and its `params` stand around the arguments.
        message = parse_value(body, MAX_DEPTH + 2)
    except JsonRefused as refused:
        raise UnsafeRequestError(
            f"the request is not strict JSON ({refused})",
            "leave out numbers beyond 2**53 - 1, lone surrogates and nesting over 32 levels",
        ) from None
    # One token is for one call, so several in a batch have no token.
    if not isinstance(message, dict):
        raise UnsafeRequestError("the request is a batch", "send one message in each request")
    return message


def _call_detail(message: JsonObject) -> Call:
    """What an L3 token is asked for: this call, and what steers it."""
    params = message.get("params")
    params = params if isinstance(params, dict) else {}
    action = message.get("method")
    name, arguments = params.get("uri" if action == "resources/read" else "name"), params.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise UnsafeRequestError(f"{action} without a name or with arguments that are no object", "say what is meant")
    return Call(name, arguments, params.get("inputResponses", ABSENT), params.get("requestState", ABSENT))


def _challenge(response: Response) -> str | None:
    """`error` of the challenge (RFC 6750 §3, RFC 9449 §7.1)."""
    if response.status_code not in (401, 403):
        return None
    found = _ERROR.search(response.headers.get("www-authenticate", ""))
    return found[1] if found is not None else None


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(scheme)


_ACTIONS: dict[str, Action] = {each: each for each in get_args(Action)}
_ERROR = re.compile(r'\berror="([a-z_]+)"')
_CARRIED = ("accept", "content-type", "user-agent", "mcp-session-id", "mcp-protocol-version")
_MAX_PAGES = 20
