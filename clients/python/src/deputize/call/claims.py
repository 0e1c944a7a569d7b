"""The claims of a tool-call token (RFC 9068 `at+jwt`, with `act`, `cnf`, `authorization_details`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from .constraints import ConstraintRefused, Constraints
from .digest import is_digest
from .jws import JwsRefused
from .offers import Shown
from .strict_json import JsonObject, JsonValue

TYP: Final = "at+jwt"
"""`typ` of a tool-call token (RFC 9068 §2.1)."""
DETAIL_TYPE: Final = "mcp_tool_call"
"""`type` of the one `authorization_details` entry (RFC 9396)."""


class Level(IntEnum):
    """What a token is good for. Ordered: a higher level is a tighter binding."""

    L0 = 0
    """One server: discovery and listing."""
    L1 = 1
    """One tool of one server."""
    L2 = 2
    """One tool with every argument constrained."""
    L3 = 3
    """One call: this tool, these exact arguments, once."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """`cnf` (RFC 7800): the key that the sender must prove."""

    method: Literal["jkt", "x5t#S256"]
    """`jkt` (RFC 9449 §6.1) or `x5t#S256` (RFC 8705 §3.1)."""
    thumbprint: str


@dataclass(frozen=True, slots=True)
class Actor:
    """`act` (RFC 8693 §4.1): who acts now; its predecessors nest inside."""

    sub: str
    act: Actor | None = None

    def chain(self) -> Iterator[str]:
        """The actors from the one that acts now back to the first."""
        actor: Actor | None = self
        while actor is not None:
            yield actor.sub
            actor = actor.act


@dataclass(frozen=True, slots=True)
class GrantedDetail:
    """The one `authorization_details` entry, as granted."""

    actions: tuple[str, ...]
    identifier: str | None
    tool_digest: str | None
    """The approved definition, for `tools/call` alone."""
    prompt_digest: str | None
    """The approved definition, for `prompts/get` alone."""
    manifest_digest: str
    call_digest: str | None
    constraints: Constraints | None
    max_uses: int | None
    shown: Shown | None
    """L0: what lists show. A token without it shows nothing."""
    policy: JsonObject

    @property
    def level(self) -> Level:
        """The binding level that the entry expresses."""
        if self.call_digest is not None:
            return Level.L3
        if self.constraints is not None:
            return Level.L2
        return Level.L1 if self.identifier is not None else Level.L0


@dataclass(frozen=True, slots=True)
class ToolCallClaims:
    """All claims of a tool-call token. Times are seconds since the Unix epoch."""

    iss: str
    sub: str
    """The person in whose name the call runs; for a client's own L0 token, the client."""
    tenant: str
    aud: str
    client_id: str
    iat: int
    nbf: int
    exp: int
    jti: str
    scope: str
    cnf: Confirmation
    act: Actor | None
    """Who acts for `sub`. Absent only where a client acts for itself."""
    txn: str
    """The transaction, constant through every hop."""
    pjti: str | None
    """`jti` of the token this one was made from."""
    detail: GrantedDetail
    log_origin: str
    log_index: int

    @property
    def level(self) -> Level:
        """The binding level of the token."""
        return self.detail.level

    def actors(self) -> Iterator[str]:
        """Everybody who acts for `sub`, the last one first."""
        return iter(()) if self.act is None else self.act.chain()


def read_claims(claims: Mapping[str, JsonValue]) -> ToolCallClaims:
    """Read the claims of a token whose signature holds.

    Raises:
        JwsRefused: where a claim is missing, of the wrong type or in disagreement with another. Such a token was not
            made by a broker of ours.
    """
    details = claims.get("authorization_details")
    if not isinstance(details, list) or len(details) != 1:
        raise _shape("authorization_details")
    aud = _text(claims, "aud")
    log = _members(claims, "log", required={"origin", "index"})
    read = ToolCallClaims(
        iss=_text(claims, "iss"),
        sub=_text(claims, "sub"),
        tenant=_text(claims, "tenant"),
        aud=aud,
        client_id=_text(claims, "client_id"),
        iat=_whole(claims, "iat"),
        nbf=_whole(claims, "nbf"),
        exp=_whole(claims, "exp"),
        jti=_text(claims, "jti"),
        scope=_text(claims, "scope"),
        cnf=_confirmation(claims),
        act=_actor(claims["act"]) if claims.get("act") is not None else None,
        txn=_text(claims, "txn"),
        pjti=_string(claims, "pjti") if claims.get("pjti") is not None else None,
        detail=_detail(details[0], aud),
        log_origin=_string(log, "origin"),
        log_index=_whole(log, "index"),
    )
    if read.exp < read.nbf or read.exp < read.iat:
        raise JwsRefused("claim", "before the token begins", subject="exp")
    return read


def _detail(document: JsonValue, aud: str) -> GrantedDetail:
    required = {"type", "locations", "actions", "manifest_digest", "policy"}
    optional = {
        *("identifier", "tool_digest", "prompt_digest", "call_digest", "constraints", "max_uses", "shown", "approval"),
    }
    entry = _members({"authorization_details": document}, "authorization_details", required, optional)
    policy = _members(entry, "policy", required={"digest", "ids"})
    _string(policy, "digest")
    _strings(policy, "ids")
    if entry["type"] != DETAIL_TYPE or entry["locations"] != [aud]:
        raise _shape("authorization_details")
    if not isinstance(entry.get("approval", {}), dict):
        raise _shape("approval")
    constraints = None
    if entry.get("constraints") is not None:
        try:
            constraints = Constraints(entry["constraints"])
        except ConstraintRefused:
            raise _shape("constraints") from None
    detail = GrantedDetail(
        actions=_strings(entry, "actions"),
        identifier=_string(entry, "identifier") if entry.get("identifier") is not None else None,
        tool_digest=_digest(entry, "tool_digest") if entry.get("tool_digest") is not None else None,
        prompt_digest=_digest(entry, "prompt_digest") if entry.get("prompt_digest") is not None else None,
        manifest_digest=_digest(entry, "manifest_digest"),
        call_digest=_digest(entry, "call_digest") if entry.get("call_digest") is not None else None,
        constraints=constraints,
        max_uses=_whole(entry, "max_uses") if entry.get("max_uses") is not None else None,
        shown=_shown(entry) if entry.get("shown") is not None else None,
        policy=policy,
    )
    if not _has_the_members_of_its_level(detail):
        raise _shape("authorization_details")
    return detail


def _has_the_members_of_its_level(detail: GrantedDetail) -> bool:
    if not detail.actions or not all(detail.actions):
        return False
    if detail.level is Level.L0:
        return detail.tool_digest is None and detail.prompt_digest is None
    if not detail.identifier or len(detail.actions) != 1 or detail.shown is not None:
        return False
    if (detail.tool_digest is not None) != (detail.actions[0] == "tools/call"):
        return False
    if (detail.prompt_digest is not None) != (detail.actions[0] == "prompts/get"):
        return False
    if detail.level is Level.L3:
        # A call digest beside constraints would leave open which of them binds.
        return detail.max_uses == 1 and detail.constraints is None
    return detail.max_uses != 0 and (detail.level is Level.L1 or detail.max_uses is not None)


def _shown(entry: Mapping[str, JsonValue]) -> Shown:
    members = _members(entry, "shown", required={"of", "bits"})
    try:
        return Shown(of=_digest(members, "of"), bits=_string(members, "bits"))
    except ValueError:
        raise _shape("authorization_details") from None


def _confirmation(claims: Mapping[str, JsonValue]) -> Confirmation:
    cnf = claims.get("cnf")
    if isinstance(cnf, dict) and len(cnf) == 1:
        if is_digest(cnf.get("jkt")):
            return Confirmation("jkt", str(cnf["jkt"]))
        if is_digest(cnf.get("x5t#S256")):
            return Confirmation("x5t#S256", str(cnf["x5t#S256"]))
    raise _shape("cnf")


def _actor(document: JsonValue) -> Actor:
    entry = _members({"act": document}, "act", required={"sub"}, optional={"act"})
    # The depth of a token is bounded by its strict parse.
    return Actor(_text(entry, "sub"), _actor(entry["act"]) if entry.get("act") is not None else None)


def _members(
    claims: Mapping[str, JsonValue], name: str, required: set[str], optional: set[str] | None = None
) -> JsonObject:
    value = claims.get(name)
    if not isinstance(value, dict) or not required <= value.keys() <= required | (optional or set()):
        raise _shape(name)
    return value


def _text(claims: Mapping[str, JsonValue], name: str) -> str:
    value = _string(claims, name)
    if not value:
        raise JwsRefused("claim", "empty", subject=name)
    return value


def _string(claims: Mapping[str, JsonValue], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str):
        raise _shape(name)
    return value


def _strings(claims: Mapping[str, JsonValue], name: str) -> tuple[str, ...]:
    value = claims.get(name)
    if not isinstance(value, list):
        raise _shape(name)
    texts = tuple(item for item in value if isinstance(item, str))
    if len(texts) != len(value):
        raise _shape(name)
    return texts


def _whole(claims: Mapping[str, JsonValue], name: str) -> int:
    value = claims.get(name)
    if type(value) is not int or value < 0:
        raise _shape(name)
    return value


def _digest(claims: Mapping[str, JsonValue], name: str) -> str:
    value = _string(claims, name)
    if not is_digest(value):
        raise _shape(name)
    return value


def _shape(name: str) -> JwsRefused:
    return JwsRefused("claim", "missing or of the wrong shape", subject=name)
