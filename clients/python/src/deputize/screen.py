"""What the server says, and what of it reaches the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from .call.claims import ToolCallClaims
from .call.strict_json import JsonObject, JsonValue, serialize
from .guard import Guard, Refused
from .guard.known import LISTS
from .guard.message import LISTEN, is_id
from .guard.sessions import Session
from .legible import legible, legible_members


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the client."""

    id: str | int
    method: str
    tool: str | None = None
    """The tool that it calls."""


class Judged(NamedTuple):
    """What becomes of a message.

    `on`: it goes on to the client. `last`: it goes on, and is the response that was waited for. `held`: it does not
    reach the client. `refused`: neither, and the server gets this error instead.
    """

    verdict: Literal["on", "last", "held", "refused"]
    text: bytes = b""


@dataclass(slots=True)
class Screen:
    """Stands where the server's messages for one request, or on one stream, come out."""

    guard: Guard
    claims: ToolCallClaims
    asked: Asked | None
    """The request that is answered here; none on a stream that the client listens to."""
    session: Session | None
    """The session, in versions of MCP that have them."""
    look_again: Callable[[], None]
    """Called where the server's tools are not what they were."""

    @property
    def subscribes(self) -> bool:
        """Whether what is asked is to hear of changes: a stream that owes no response."""
        return self.asked is not None and self.asked.method == LISTEN

    def revoked(self) -> Refused | None:
        """Why nothing more may be heard, where what the token stood for was revoked, or nothing can be said of that."""
        try:
            self.guard.check_revocation(self.claims, None if self.asked is None else self.asked.tool)
        except Refused as cause:
            return cause
        return None

    def farewell(self) -> bytes:
        """What ends a subscription (MCP 2026-07-28, subscriptions, graceful closure)."""
        request_id = None if self.asked is None else self.asked.id
        result: JsonObject = {"resultType": "complete", "_meta": {_SUBSCRIPTION_ID: request_id}}
        return serialize({"jsonrpc": "2.0", "id": request_id, "result": result})

    def judge(self, text: bytes | str) -> Judged:
        """Judge one message of the server.

        Raises:
            Refused: where it cannot go on, and nothing can in its place.
        """
        message = _read(text)
        method, request_id = message.get("method"), message.get("id")
        if "params" in message:
            message["params"] = _plain(message["params"])
        if isinstance(method, str) and "id" not in message:
            return self._notification(message, method)
        if isinstance(request_id, str | int) and is_id(request_id):
            if isinstance(method, str):
                return self._request(message, method, request_id)
            if method is None:
                return self._response(message, request_id)
        raise Refused("server_error", "what is no message")

    def error_of(self, text: bytes) -> bytes | None:
        """The server's error, under the id of the request; `None` where it is none."""
        try:
            error = _read(text).get("error")
        except Refused:
            return None
        if self.asked is None or not isinstance(error, dict):
            return None
        return _written({"jsonrpc": "2.0", "id": self.asked.id, "error": _plain(error)})

    def _request(self, message: JsonObject, method: str, request_id: str | int) -> Judged:
        """The server asks the client for something. Never for its model: that is refused on every stream."""
        if method == _SAMPLING:
            return _refused(request_id, REFUSED_BY_GUARD, "sampling is refused by the guard")
        if self.session is None or method not in _PASSED_REQUESTS:
            # Since 2026-07-28 servers send no requests at all.
            return _refused(request_id, _METHOD_NOT_FOUND, "method not found")
        if not self.session.note_asked(request_id):
            why = "the guard lets nothing be asked while a call runs whose token fixes it"
            return _refused(request_id, REFUSED_BY_GUARD, why)
        return Judged("on", _written(message))

    def _notification(self, message: JsonObject, method: str) -> Judged:
        if method in _LISTS_CHANGED:
            self.look_again()
        # Nobody subscribes to resources through a guard: what is said of them was not asked for.
        is_said = method.startswith("notifications/") and method != _RESOURCE_UPDATED
        is_heard = method in _HEARD if self.subscribes else is_said
        return Judged("on", _written(message)) if is_heard else Judged("held")

    def _response(self, message: JsonObject, request_id: str | int) -> Judged:
        in_session = self.session.take_requested(request_id) if self.session is not None else None
        if self.asked is None:
            # A resumed stream brings the response to an earlier request of the session.
            method = in_session
        else:
            is_its_own = type(request_id) is type(self.asked.id) and request_id == self.asked.id
            method = self.asked.method if is_its_own else None
        if method is None:
            raise Refused("server_error", "the response to another request, or to none")
        result = message.get("result")
        if isinstance(result, dict) and "error" not in message:
            self._reduce(method, result)
            message["result"] = _plain_result(method, result)
        elif "result" in message or "error" not in message:
            raise Refused("server_error", "neither a result nor an error")
        else:
            message["error"] = _plain(message["error"])
        return Judged("last", _written(message))

    def _reduce(self, method: str, result: JsonObject) -> None:
        """Reduce a result to what the caller may have."""
        member = LISTS.get(method)
        if member is not None:
            listed = result.get(member)
            if not isinstance(listed, list):
                raise Refused("server_error", "a list without its list")
            result[member], drifted = self.guard.visible(method, self.claims, listed)
            if drifted:
                self.look_again()
        elif method in ("initialize", "server/discover"):
            self._trim_capabilities(result, has_streams=method == "server/discover" or self.session is not None)
        if result.get("resultType") == "input_required" and _samples(result.get("inputRequests")):
            raise Refused("server_samples")

    def _trim_capabilities(self, result: JsonObject, *, has_streams: bool) -> None:
        """What is not let through is not offered.

        That is prompts and resources where none are approved, subscriptions to resources, completion, tasks; and no
        news where nobody could hear them.
        """
        capabilities = result.get("capabilities")
        if not isinstance(capabilities, dict):
            return
        snapshot = self.guard.snapshot
        offered = {"tools", "logging"}
        if snapshot is not None:
            offered |= {"prompts"} if snapshot.prompts else set()
            offered |= {"resources"} if any(each.enabled for each in snapshot.resources.values()) else set()
        kept: JsonObject = {name: value for name, value in capabilities.items() if name in offered}
        for name, value in kept.items():
            withheld = {"subscribe"} if name == "resources" else set()
            withheld |= set() if has_streams else {"listChanged"}
            if isinstance(value, dict):
                kept[name] = {member: each for member, each in value.items() if member not in withheld}
        result["capabilities"] = kept


def _samples(inputs: JsonValue) -> bool:
    wanted = list(inputs.values()) if isinstance(inputs, dict) else inputs if isinstance(inputs, list) else []
    return any(isinstance(each, dict) and each.get("method") == _SAMPLING for each in wanted)


def rpc_error(request_id: JsonValue, code: int, message: str) -> bytes:
    """A JSON-RPC error (JSON-RPC 2.0 §5.1)."""
    return serialize({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}})


def _refused(request_id: JsonValue, code: int, message: str) -> Judged:
    return Judged("refused", rpc_error(request_id, code, message))


def _read(text: bytes | str) -> JsonObject:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("server_error", "what is no JSON") from None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Refused("server_error", "what is no JSON-RPC 2.0")
    return message


def _plain(value: JsonValue) -> JsonValue:
    try:
        return legible(value)
    except RecursionError:
        raise Refused("server_error", "what is nested too deeply") from None


def _plain_result(method: str, result: JsonObject) -> JsonObject:
    """A result as the caller may read it."""
    as_it_came: JsonObject = {}
    if method == "tools/list":
        # Definitions are what was approved, to the letter.
        as_it_came["tools"] = result["tools"]
    state = result.get("requestState")
    if result.get("resultType") == "input_required" and isinstance(state, str):
        # MCP 2026-07-28: opaque, and echoed in a retry.
        as_it_came["requestState"] = state
    try:
        plain = legible_members({name: value for name, value in result.items() if name not in as_it_came})
    except RecursionError:
        raise Refused("server_error", "what is nested too deeply") from None
    return plain | as_it_came


def _written(message: JsonObject) -> bytes:
    """What is let through is what was read: a member that stands twice is gone, whichever the server meant."""
    try:
        return serialize(message)
    except (ValueError, RecursionError):
        raise Refused("server_error", "what cannot be said in JSON") from None


REFUSED_BY_GUARD: Final = 1
"""JSON-RPC error code, outside of what JSON-RPC reserves: the guard refused something that the server wanted."""
INTERNAL_ERROR: Final = -32603
"""JSON-RPC 2.0 §5.1."""
_METHOD_NOT_FOUND = -32601
_SAMPLING = "sampling/createMessage"
"""The request that would borrow the client's model."""
_PASSED_REQUESTS = ("ping", "elicitation/create", "roots/list")
"""What a server may ask of a client, in a session."""
_LISTS_CHANGED = ("notifications/tools/list_changed", "notifications/prompts/list_changed")
_RESOURCE_UPDATED = "notifications/resources/updated"
_HEARD = (
    "notifications/subscriptions/acknowledged",
    *_LISTS_CHANGED,
    "notifications/resources/list_changed",
)
"""What is heard on a stream of changes."""
_SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"
