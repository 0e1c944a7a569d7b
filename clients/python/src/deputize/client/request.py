"""What a client asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import urlencode

from deputize.call.claims import DETAIL_TYPE
from deputize.call.digest import ABSENT
from deputize.call.strict_json import JsonObject, JsonRefused, JsonValue, check_value, serialize
from deputize.errors import UnsafeRequestError

TokenType: TypeAlias = Literal["jwt", "access_token", "id_token"]
"""Kinds of token (RFC 8693 §3)."""
Action: TypeAlias = Literal["tools/call", "prompts/get", "resources/read"]
"""The methods that act."""


@dataclass(frozen=True, slots=True)
class Listing:
    """L0: discovery and listing."""


@dataclass(frozen=True, slots=True)
class Tool:
    """L1: one tool."""

    name: str


@dataclass(frozen=True, slots=True)
class Constrained:
    """L2: one tool, every argument constrained."""

    name: str
    constraints: JsonObject
    """By JSON Pointer: `enum`, `minimum`/`maximum` or `prefix`, each perhaps `optional`."""


@dataclass(frozen=True, slots=True, repr=False)
class Call:
    """L3: one call of a tool, with exactly these arguments."""

    name: str
    arguments: JsonObject = field(default_factory=dict)
    input_responses: object = ABSENT
    """`inputResponses` of a multi-round-trip retry."""
    request_state: object = ABSENT
    """`requestState` of a multi-round-trip retry."""

    def __repr__(self) -> str:
        return f"Call(name={self.name!r})"


@dataclass(frozen=True, slots=True)
class CallDigest:
    """L3 by digest alone, where policy needs no arguments."""

    name: str
    call_digest: str


Detail: TypeAlias = "Listing | Tool | Constrained | Call | CallDigest"
"""What is asked of the server: it decides the binding level."""


@dataclass(frozen=True, kw_only=True, repr=False)
class ExchangeRequest:
    """One exchange."""

    resource: str
    """The server's resource URI."""
    subject_token: str | None = None
    """The user's token; without one, the client asks for its own L0 token (`client_credentials`)."""
    subject_token_type: TokenType = "jwt"
    detail: Detail = field(default_factory=Listing)
    action: Action = "tools/call"
    """What is done with what `detail` names: a tool, a prompt, or a resource by its URI."""
    actor_token: str | None = None
    """The token of who acts, where that is not this client itself."""
    actor_token_type: TokenType = "jwt"
    scope: str | None = None
    """Narrows the scope."""
    approval_id: str | None = None
    """Comes back for a call that had to wait for a person."""
    wait_seconds: int | None = None
    """How long the broker may hold its answer back then, 60 at most."""
    transaction_id: str | None = None
    """Goes on with a transaction that this client began."""
    claimed: Mapping[str, str] = field(default_factory=dict)
    """`host`, `model`, `workflow`, `traceparent`, `parent_request_id`: recorded as claimed."""
    live_tool_digest: str | None = None
    """Digest of the tool's definition as the server gives it now: a token for another definition is not handed out."""

    @property
    def may_be_cached(self) -> bool:
        """Whether an answer may serve again: never at L3, and never when it was waited for."""
        return not isinstance(self.detail, Call | CallDigest) and self.approval_id is None

    @property
    def tool(self) -> str | None:
        """The tool that is asked for."""
        return None if isinstance(self.detail, Listing) else self.detail.name

    def form(self) -> list[tuple[str, str]]:
        """The parameters, without those that prove the client. Their order is fixed: they key the cache too.

        Raises:
            UnsafeRequestError: where arguments have no exact form as JSON, or a claim has an unknown name.
        """
        form: list[tuple[str, str]] = []
        if self.subject_token is None:
            form.append(("grant_type", "client_credentials"))
        else:
            form.append(("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"))
            form.append(("subject_token", self.subject_token))
            form.append(("subject_token_type", _TOKEN_TYPES + self.subject_token_type))
        if self.actor_token is not None:
            form.append(("actor_token", self.actor_token))
            form.append(("actor_token_type", _TOKEN_TYPES + self.actor_token_type))
        form.append(("resource", self.resource))
        detail = _detail(self.detail, self.action, self.resource)
        if detail is not None:
            form.append(("authorization_details", serialize([detail]).decode()))
        optional = (("scope", self.scope), ("approval_id", self.approval_id), ("transaction_id", self.transaction_id))
        form += [(name, value) for name, value in optional if value is not None]
        unknown = set(self.claimed) - _CLAIMS
        if unknown:
            raise UnsafeRequestError(f"unknown claim {min(unknown)!r}", f"claim only {', '.join(sorted(_CLAIMS))}")
        return form + sorted(self.claimed.items())

    def cache_key(self) -> str:
        """Everything that is asked, the subject token included."""
        return urlencode(self.form())

    def __repr__(self) -> str:
        return f"ExchangeRequest(resource={self.resource!r}, detail={self.detail!r})"


def _detail(detail: Detail, action: Action, resource: str) -> JsonObject | None:
    if isinstance(detail, Listing):
        return None
    entry: JsonObject = {
        "type": DETAIL_TYPE,
        "locations": [resource],
        "actions": [action],
        "identifier": detail.name,
    }
    if isinstance(detail, Constrained):
        entry["constraints"] = _json(detail.constraints)
    elif isinstance(detail, CallDigest):
        entry["call_digest"] = detail.call_digest
    elif isinstance(detail, Call):
        entry["arguments"] = _json(detail.arguments)
        for member, value in (("inputResponses", detail.input_responses), ("requestState", detail.request_state)):
            if value is not ABSENT:
                entry[member] = _json(value)
    return entry


def exact(value: object) -> str:
    """The text of a value that every language reads alike.

    Raises:
        UnsafeRequestError: where there is none.
    """
    return serialize(_json(value)).decode()


def _json(value: object) -> JsonValue:
    """The value, once it is sure that every language reads it alike."""
    try:
        check_value(value)
    except JsonRefused as refused:
        raise UnsafeRequestError(
            f"the arguments are not strict JSON ({refused})",
            "leave out numbers beyond 2**53 - 1, lone surrogates, nesting over 32 levels, and what is no JSON",
        ) from None
    copied: JsonValue = json.loads(json.dumps(value))
    return copied


_TOKEN_TYPES = "urn:ietf:params:oauth:token-type:"
_CLAIMS = {"host", "model", "workflow", "traceparent", "parent_request_id"}
MAX_WAIT_SECONDS = 60
