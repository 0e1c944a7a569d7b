"""The body of a request: exactly one JSON-RPC message that asks for exactly one thing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from deputize.call.digest import ABSENT, call_digest
from deputize.call.offers import ACTIONS
from deputize.call.strict_json import MAX_DEPTH, JsonObject, JsonRefused, JsonValue, check_depth, parse_value, serialize

from .refusal import Refused

LISTEN: Final = "subscriptions/listen"
"""Opens a stream of changes (MCP 2026-07-28, subscriptions)."""
LISTING_METHODS: Final = (
    "initialize",
    "ping",
    "logging/setLevel",
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    LISTEN,
)
"""What an L0 token admits, besides notifications: discovery, listing, hearing that lists changed, and how much of a
session's log is heard."""


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """The parts of a request that acts."""

    action: str
    """`tools/call`, `prompts/get` or `resources/read`."""
    name: str
    """Name of the tool or prompt; URI of the resource, verbatim."""
    arguments: JsonObject
    input_responses: object
    request_state: object

    @property
    def tool(self) -> str | None:
        """The tool that is called, if it is one."""
        return self.name if self.action == "tools/call" else None

    @property
    def is_steered(self) -> bool:
        """Whether this is a retry of a multi-round-trip call, which its responses steer."""
        return self.input_responses is not ABSENT or self.request_state is not ABSENT

    def digest(self) -> str:
        """Digest of the call.

        Raises:
            Refused: where a part is nested too deeply.
        """
        try:
            return call_digest(self.action, self.name, self.arguments, self.input_responses, self.request_state)
        except JsonRefused as refused:
            raise Refused("json", str(refused)) from None


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A message as it was strictly read."""

    method: str
    """The method; empty for a response."""
    call: Call | None
    """Present where the method acts."""
    whole: JsonObject

    @property
    def id(self) -> str | int | None:
        """The id of a request or response; notifications have none."""
        value = self.whole.get("id")
        return value if isinstance(value, str | int) else None

    @property
    def is_response(self) -> bool:
        """Whether this is the client's answer to a request of the server (MCP up to 2025-11-25)."""
        return "method" not in self.whole

    def body(self) -> bytes:
        """The message serialized from what was read: nothing else of the body is ever forwarded."""
        return serialize(self.whole)


def parse_message(body: bytes) -> Message:
    """Read a body (JSON-RPC 2.0 §4, §5).

    Raises:
        Refused: for batches, unknown members, requests in the guise of notifications or of responses, and every method
            that neither acts nor is on the list of an L0 token.
    """
    try:
        # The message and its `params` stand around the arguments.
        whole = parse_value(body, MAX_DEPTH + 2)
    except JsonRefused as refused:
        raise Refused("json", str(refused)) from None
    if isinstance(whole, list):
        raise Refused("message", "batches are not accepted")
    if not isinstance(whole, dict):
        raise Refused("message", "the body is not a JSON-RPC message")
    if whole.get("jsonrpc") != "2.0":
        raise Refused("message", 'jsonrpc must be "2.0"')
    if "id" in whole and not is_id(whole["id"]):
        raise Refused("message", "id must be a string of at most 256 bytes, or an integer")
    return _read_request(whole) if "method" in whole else _read_response(whole)


def is_id(value: object) -> bool:
    """MCP: ids are strings or integers, never null. They are remembered, so they are bounded."""
    return type(value) is int or (isinstance(value, str) and len(value.encode(errors="replace")) <= _MAX_ID_BYTES)


def _read_response(whole: JsonObject) -> Message:
    """JSON-RPC 2.0 §5: either `result` or `error`, never both, and the id of what was asked."""
    if whole.keys() == {"jsonrpc", "id", "result"}:
        # MCP: results are objects.
        is_response = isinstance(whole["result"], dict)
    else:
        is_response = whole.keys() == {"jsonrpc", "id", "error"} and _is_error(whole["error"])
    if not is_response:
        raise Refused("message", "neither a request (method) nor a response (id and result or error)")
    _drop_guards_meta(whole.get("result"))
    return Message("", None, whole)


def _is_error(error: JsonValue) -> bool:
    return isinstance(error, dict) and type(error.get("code")) is int and isinstance(error.get("message"), str)


def _read_request(whole: JsonObject) -> Message:
    if not whole.keys() <= {"jsonrpc", "id", "method", "params"}:
        raise Refused("message", "a request has only jsonrpc, id, method and params")
    method = whole["method"]
    if not isinstance(method, str):
        raise Refused("message", "method must be a string")
    params = whole.get("params", {})
    if not isinstance(params, dict):
        raise Refused("message", "params must be an object")
    call = _read_method(method, params, is_notification="id" not in whole)
    _withdraw_sampling(params)
    _drop_guards_meta(params)
    if method == LISTEN:
        _narrow_subscription(params)
    return Message(method, call, whole)


def _read_method(method: str, params: JsonObject, *, is_notification: bool) -> Call | None:
    if is_notification != method.startswith("notifications/"):
        raise Refused("message", "notifications, and they alone, have no id")
    # It goes on in a header, and is logged.
    if is_notification and _NOTIFICATION.fullmatch(method) is None:
        raise Refused("message", "method has a name that no notification has")
    if method in ACTIONS:
        return _read_call(method, params)
    if not is_notification and method not in LISTING_METHODS:
        raise Refused("unknown_method", "a method that no token admits")
    return None


def _withdraw_sampling(params: JsonObject) -> None:
    """No server borrows the client's model, so none is told that it could.

    `sampling` is taken out of the client's capabilities, which stand in `params` of `initialize` or, since 2026-07-28,
    in `_meta` of every request. Neither is in a call's digest.
    """
    meta = params.get("_meta")
    for capabilities in (
        params.get("capabilities"),
        meta.get(_CLIENT_CAPABILITIES) if isinstance(meta, dict) else None,
    ):
        if isinstance(capabilities, dict):
            capabilities.pop("sampling", None)


def _drop_guards_meta(around: JsonValue) -> None:
    """Whose call it is, and where its AWS credentials are, only a guard says."""
    meta = around.get("_meta") if isinstance(around, dict) else None
    if isinstance(meta, dict):
        for name in _GUARDS_META:
            meta.pop(name, None)


def _narrow_subscription(params: JsonObject) -> None:
    """Of a subscription only that says that lists changed goes on: an L0 token is for no resource."""
    asked = params.get("notifications")
    if not isinstance(asked, dict):
        raise Refused("message", "params.notifications must be an object")
    params["notifications"] = {name: value for name, value in asked.items() if name in _LIST_CHANGES}


def _read_call(action: str, params: JsonObject) -> Call:
    named_by = "uri" if action == "resources/read" else "name"
    members = {"uri"} if action == "resources/read" else {"name", "arguments"}
    # INVARIANT: of these, only `_meta` is outside of the call's digest.
    if not params.keys() <= members | {"_meta", "inputResponses", "requestState"}:
        raise Refused("message", "params has a member that this method does not take")
    name, arguments = params.get(named_by), params.get("arguments", {})
    if not isinstance(name, str):
        raise Refused("message", "params.name (params.uri of a resource) must be a string")
    if not isinstance(arguments, dict):
        raise Refused("message", "params.arguments must be an object")
    if not isinstance(params.get("_meta", {}), dict):
        raise Refused("message", "params._meta must be an object")
    try:
        check_depth(arguments)
    except JsonRefused as refused:
        raise Refused("json", str(refused)) from None
    return Call(action, name, arguments, _present(params, "inputResponses"), _present(params, "requestState"))


def _present(params: JsonObject, name: str) -> JsonValue | object:
    return params.get(name, ABSENT)


_NOTIFICATION = re.compile(r"[A-Za-z0-9_./-]{1,128}")
_MAX_ID_BYTES = 256
_LIST_CHANGES = ("toolsListChanged", "promptsListChanged", "resourcesListChanged")
# The members of `_meta` in which a guard hands the verified token, and the address of the call's AWS credentials, to a
# server that is spoken to without headers.
_GUARDS_META = ("deputize/call", "deputize/aws")
# Where a client says in each request what it can do (MCP 2026-07-28).
_CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
