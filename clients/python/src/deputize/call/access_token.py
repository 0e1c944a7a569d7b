"""Verification of a tool-call token: signature, `typ`, `iss`, `aud`, times, and the shape of every claim."""

from __future__ import annotations

from dataclasses import dataclass

from .claims import TYP, ToolCallClaims, read_claims
from .jws import JwsRefused, check_times, parse, string_claim
from .keys import KeySet


@dataclass(frozen=True, slots=True)
class ExpectedToken:
    """What a token must be."""

    issuer: str
    """The broker."""
    audience: str | None
    """The server that looks; `None` where a token made for anyone is looked at."""
    now_seconds: int
    leeway_seconds: int
    """Grace on `exp`, `nbf`, `iat`."""


def verify_token(token: str, keys: KeySet, expected: ExpectedToken) -> ToolCallClaims:
    """Verify a tool-call token with the broker's `keys` for such tokens.

    Binding, call and revocation are checked by who holds the call.

    Raises:
        JwsRefused: where anything of it does not hold.
    """
    jws = parse(token)
    # RFC 9068 §4: `typ` first, so that no other kind of token of this issuer passes for one.
    if jws.header.typ != TYP:
        raise JwsRefused("malformed", "typ is not at+jwt")
    if string_claim(jws.claims, "iss", _MAX_URI_BYTES) != expected.issuer:
        raise JwsRefused("claim", "another issuer", subject="iss")
    # One audience, as a string: an array of one would be another spelling of the same token.
    audience = string_claim(jws.claims, "aud", _MAX_URI_BYTES)
    if expected.audience is not None and audience != expected.audience:
        raise JwsRefused("claim", "another audience", subject="aud")
    check_times(jws.claims, expected.now_seconds, expected.leeway_seconds)
    keys.verify(jws)
    return read_claims(jws.claims)


_MAX_URI_BYTES = 2048
