"""What the broker answers, read strictly enough to be relied on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from deputize.call.jws import has_control_character
from deputize.call.strict_json import JsonObject
from deputize.errors import (
    AccessDeniedError,
    ApprovalPendingError,
    DenialReason,
    ExchangeError,
    ProtocolError,
    Refused,
    RetryLaterError,
    SignInRequiredError,
)

from .token import ToolToken

Redemption: TypeAlias = Literal["redeemed", "already_used", "revoked"]
"""The broker about the use of an L3 token; `revoked` also where it expired or is none of this broker's."""


@dataclass(frozen=True, slots=True, repr=False)
class Received:
    """An answer, received whole."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    def members(self) -> JsonObject:
        """The JSON object in the body; empty where there is none."""
        try:
            members = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return members if isinstance(members, dict) else {}

    @property
    def needs_nonce(self) -> bool:
        """Whether the broker asks for a proof with its nonce (RFC 9449 §8)."""
        has_nonce = self.status != 200 and "dpop-nonce" in self.headers
        return has_nonce and self.members().get("error") == "use_dpop_nonce"


def read_token(received: Received) -> ToolToken:
    """Read the answer to an exchange.

    Raises:
        ExchangeError: where the broker refused.
        ProtocolError: where the answer is no token that was asked for.
    """
    if received.status != 200:
        raise read_refusal(received)
    members = received.members()
    names = ("access_token", "token_type", "scope", "transaction_id", "decision_id")
    access_token, token_type, scope, transaction_id, decision_id = (members.get(name) for name in names)
    expires_in, details = members.get("expires_in"), members.get("authorization_details", [])
    if (
        not isinstance(access_token, str)
        or not isinstance(token_type, str)
        or not isinstance(scope, str)
        or not isinstance(transaction_id, str)
        or not isinstance(decision_id, str)
        or type(expires_in) is not int
        or not isinstance(details, list)
    ):
        raise ProtocolError("the token response is malformed")
    # A proof was sent: a token that is not bound to it is not what was asked for (RFC 9449 §5).
    if token_type.lower() != "dpop":
        raise ProtocolError("the token is not bound to the client's key")
    granted = tuple(detail for detail in details if isinstance(detail, dict))
    return ToolToken(access_token, expires_in, scope, granted, transaction_id, decision_id)


def read_redemption(received: Received) -> Redemption:
    """Read the answer about the use of an L3 token.

    Raises:
        ExchangeError: where the broker refused to say.
        ProtocolError: where the answer is none.
    """
    if received.status != 200:
        raise read_refusal(received)
    members = received.members()
    if members.get("redeemed") is True:
        return "redeemed"
    if members.get("redeemed") is False:
        return "already_used" if members.get("reason") == "already_used" else "revoked"
    raise ProtocolError("the redemption response is malformed")


def read_refusal(received: Received, advice: Mapping[str, str] | None = None) -> ExchangeError:
    """The error that an answer stands for.

    Args:
        received: The answer.
        advice: What to do, by the error's code, where that is not what it is at an exchange.
    """
    members = received.members()
    refused = Refused(
        status=received.status,
        error=_plain(members.get("error")) or "",
        description=_plain(members.get("error_description")) or "",
        decision_id=_plain(members.get("decision_id")),
    )
    what_to_do = (advice or {}).get(refused.error)
    # What another server said is no matter of time (RFC 9110 §15.6.3).
    if received.status == 429 or (received.status >= 500 and received.status != 502):
        retry_after = received.headers.get("retry-after", "")
        is_seconds = retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10
        return RetryLaterError(refused, int(retry_after) if is_seconds else None)
    if refused.error == "access_denied":
        reason = members.get("reason")
        denied_by = _REASONS.get(reason, "other") if isinstance(reason, str) else "other"
        return AccessDeniedError(refused, denied_by, what_to_do)
    if refused.error == "authorization_pending" and members.get("approval_id"):
        times = (_whole(members.get("interval"), _DEFAULT_INTERVAL_SECONDS), _whole(members.get("expires_in"), 0))
        approval_id = _plain(members["approval_id"]) or ""
        return ApprovalPendingError(refused, approval_id, _plain(members.get("approval_uri")), times)
    if refused.error == "insufficient_user_authentication":
        acr_values = tuple((_plain(members.get("acr_values")) or "").split())
        max_age = members.get("max_age")
        return SignInRequiredError(refused, acr_values, max_age if type(max_age) is int else None)
    return ExchangeError(refused, what_to_do)


def _plain(text: object) -> str | None:
    """What a server says ends in logs and on terminals."""
    if not isinstance(text, str):
        return None
    return "".join(character for character in text[:_MAX_CHARACTERS] if not has_control_character(character))


def _whole(value: object, default: int) -> int:
    return value if type(value) is int and value >= 0 else default


_REASONS: dict[str, DenialReason] = {
    "policy": "policy",
    "approval_required": "approval_required",
    "human": "human",
}
# RFC 8628 §3.5.
_DEFAULT_INTERVAL_SECONDS = 5
_MAX_CHARACTERS = 512
