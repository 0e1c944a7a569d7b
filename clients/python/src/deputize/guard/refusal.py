"""Why a request is refused, and how that is said: the only place with HTTP statuses and OAuth error codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from deputize.call.claims import DETAIL_TYPE, Level
from deputize.call.strict_json import JsonObject, JsonValue

from .settings import GuardSettings

if TYPE_CHECKING:
    from .message import Call

Reason: TypeAlias = Literal[
    "too_large",
    "too_slow",
    "http_method",
    "media_type",
    "repeated_header",
    "json",
    "message",
    "unknown_method",
    "header_mismatch",
    "no_token",
    "token",
    "proof",
    "proof_replayed",
    "nonce",
    "session",
    "no_session",
    "not_asked",
    "id_in_use",
    "no_stream",
    "no_room",
    "origin",
    "scope",
    "tool",
    "arguments",
    "constraints",
    "call_differs",
    "revoked",
    "used_up",
    "limited",
    "unavailable",
    "server_error",
    "server_refuses",
    "server_down",
    "server_timeout",
    "server_samples",
    "server_too_long",
]


class Refused(Exception):
    """Why, in our words: for logs. The caller gets the `Refusal`."""

    def __init__(
        self, reason: Reason, detail: str = "", *, retry_after_seconds: int | None = None, needed: Needed | None = None
    ) -> None:
        self.reason: Reason = reason
        self.needed = needed
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{reason}: {detail}" if detail else reason)


@dataclass(frozen=True, slots=True)
class Needed:
    """What would have to be granted for the request at hand."""

    scope: str
    details: list[JsonValue]

    @classmethod
    def for_call(cls, settings: GuardSettings, call: Call, level: Level) -> Needed:
        """What this call would need."""
        detail: JsonObject = {
            "type": DETAIL_TYPE,
            "locations": [settings.resource],
            "actions": [call.action],
            "identifier": call.name,
        }
        if level is Level.L3:
            detail["arguments"] = call.arguments
        # No name of a tool has a colon: a verifier that goes by the scope alone takes no prompt for a tool.
        scope = {"prompts/get": "mcp:prompt:", "resources/read": "mcp:resource:"}.get(call.action, "") + call.name
        return cls(scope, [detail])

    @classmethod
    def for_listing(cls) -> Needed:
        """Listing needs a token without `authorization_details`."""
        return cls("mcp:list", [])


class Refusal(Exception):
    """The answer to a refused request.

    Attributes:
        status: HTTP status.
        error: `error` (RFC 6750 §3.1, RFC 9449 §7.1); empty where the request had no token at all.
        description: What is wrong and what to do.
        challenges: Values of `WWW-Authenticate`.
        dpop_nonce: Value of `DPoP-Nonce`.
        authorization_details: What would be needed (403 `insufficient_scope`).
        retry_after_seconds: Value of `Retry-After`.
        cause: Why, in our words.
    """

    def __init__(self, refused: Refused, settings: GuardSettings, nonce: str | None) -> None:
        answer = _ANSWERS[refused.reason]
        self.cause = refused
        self.status = answer.status
        self.error = answer.error
        self.description = answer.description
        if refused.reason == "message":
            self.description = refused.detail
        elif refused.reason in ("arguments", "constraints"):
            self.description = f"{answer.description} ({refused.detail})"
        self.dpop_nonce = nonce
        self.retry_after_seconds = refused.retry_after_seconds
        if self.status == 503 and self.retry_after_seconds is None:
            self.retry_after_seconds = _RETRY_AFTER_SECONDS
        needed = refused.needed if self.status == 403 else None
        self.authorization_details = None if needed is None else needed.details
        is_about_tokens = self.status in (401, 403) and refused.reason != "origin"
        self.challenges = [_challenge(self.error, settings, needed)] if is_about_tokens else []
        super().__init__(str(refused))

    def body(self) -> JsonObject:
        """The JSON body of the answer."""
        body: JsonObject = {"error": self.error, "error_description": self.description}
        if self.authorization_details is not None:
            body["authorization_details"] = self.authorization_details
        return body

    def in_protocol(self, request_id: str | int | None) -> tuple[int, JsonObject] | None:
        """Status and body in the words that MCP has for it since 2026-07-28; `None` where it has none."""
        if self.cause.reason == "unknown_method":
            status, code, message = 404, _METHOD_NOT_FOUND, "Method not found"
        elif self.cause.reason == "header_mismatch":
            detail = self.cause.detail
            status, code = 400, _HEADER_MISMATCH
            message = detail if " " in detail else f"{detail} headers and the body say different things"
        else:
            return None
        return status, {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}

    def headers(self) -> list[tuple[str, str]]:
        """The header fields of the answer."""
        headers = [("content-type", "application/json"), ("cache-control", "no-store")]
        headers += [("www-authenticate", challenge) for challenge in self.challenges]
        if self.dpop_nonce is not None:
            headers.append(("dpop-nonce", self.dpop_nonce))
        if self.retry_after_seconds is not None:
            headers.append(("retry-after", str(self.retry_after_seconds)))
        if self.status == 405:
            headers.append(("allow", "POST" if self.cause.reason == "no_stream" else "GET, POST, DELETE"))
        return headers


class _Answer(NamedTuple):
    """Status, code, and a sentence that gives nothing of the inside away."""

    status: int
    error: str
    description: str


def _challenge(error: str, settings: GuardSettings, needed: Needed | None) -> str:
    """One challenge (RFC 9449 §7.1, RFC 6750 §3, RFC 9728 §5.1).

    Nothing in it is the request's but the scope, whose characters are checked.
    """
    challenge = f'DPoP resource_metadata="{_quotable(settings.resource_metadata)}", algs="ES256 EdDSA"'
    if error:
        challenge += f', error="{error}"'
    if needed is not None:
        challenge += f', scope="{_quotable(needed.scope)}"'
    return challenge


def _quotable(text: str) -> str:
    return "".join(character for character in text if "!" <= character <= "~" and character not in '"\\')[:_MAX_QUOTED]


_ANSWERS: dict[Reason, _Answer] = {
    "too_large": _Answer(413, "invalid_request", "the body is too large: send less"),
    "too_slow": _Answer(408, "invalid_request", "the body did not come: send it at once"),
    "http_method": _Answer(405, "invalid_request", "use POST, or GET and DELETE in a session"),
    "media_type": _Answer(415, "invalid_request", "send uncompressed application/json in UTF-8"),
    "repeated_header": _Answer(400, "invalid_request", "a header that may stand once was sent twice"),
    "json": _Answer(400, "invalid_request", "the body is not strict JSON: unique members, exact numbers, one value"),
    "message": _Answer(400, "invalid_request", "the body is not one JSON-RPC request"),
    "unknown_method": _Answer(403, "insufficient_scope", "no token admits this method"),
    "header_mismatch": _Answer(400, "invalid_request", "an Mcp- header differs from the body"),
    "no_token": _Answer(401, "", "send a token for this resource"),
    "token": _Answer(401, "invalid_token", "the token is not good here: exchange anew for this resource"),
    "proof": _Answer(
        401, "invalid_dpop_proof", "send one fresh proof of the token's key for this URL, method and token"
    ),
    "proof_replayed": _Answer(
        401, "invalid_dpop_proof", "send one fresh proof of the token's key for this URL, method and token"
    ),
    "nonce": _Answer(401, "use_dpop_nonce", "repeat with the nonce of the DPoP-Nonce header in the proof"),
    "session": _Answer(404, "unknown_session", "no such session or stream: initialize anew"),
    "no_session": _Answer(400, "invalid_request", "send the Mcp-Session-Id that initialize gave"),
    "not_asked": _Answer(400, "invalid_request", "the server asked nothing with this id in this session"),
    "id_in_use": _Answer(400, "invalid_request", "a request with this id is under way in this session"),
    "no_stream": _Answer(405, "invalid_request", "this server offers no stream here"),
    "no_room": _Answer(503, "temporarily_unavailable", "no room for another session: come back later"),
    "origin": _Answer(403, "forbidden_origin", "web pages of other origins may not call"),
    "scope": _Answer(403, "insufficient_scope", "the token is for something else: exchange for exactly this call"),
    "tool": _Answer(403, "insufficient_scope", "this tool is not approved as it is now"),
    "arguments": _Answer(403, "insufficient_scope", "the arguments do not satisfy the approved schema"),
    "constraints": _Answer(403, "insufficient_scope", "the arguments are outside of the token's constraints"),
    "call_differs": _Answer(
        403, "insufficient_scope", "the token is for something else: exchange for exactly this call"
    ),
    "revoked": _Answer(401, "invalid_token", "the token was revoked"),
    "used_up": _Answer(401, "invalid_token", "the token was used as often as it may be: exchange anew"),
    "limited": _Answer(429, "temporarily_unavailable", "too many calls: come back later"),
    "unavailable": _Answer(503, "temporarily_unavailable", "the call cannot be decided now: come back later"),
    "server_error": _Answer(502, "server_error", "the MCP server gave no valid answer"),
    "server_refuses": _Answer(502, "server_error", "the MCP server does not accept its guard: tell its operator"),
    "server_down": _Answer(503, "server_unavailable", "the MCP server is down: come back later"),
    "server_timeout": _Answer(504, "server_timeout", "the MCP server did not answer in time"),
    "server_samples": _Answer(
        502, "server_error", "the MCP server asked for the client's model: its guard refuses that"
    ),
    "server_too_long": _Answer(502, "server_error", "the MCP server's answer is larger than its guard lets through"),
}
# JSON-RPC 2.0 §5.1.
_METHOD_NOT_FOUND = -32601
# MCP 2026-07-28, error codes.
_HEADER_MISMATCH = -32020
_RETRY_AFTER_SECONDS = 1
_MAX_QUOTED = 256
