"""Compact JWS, read strictly: one serialization, canonical base64url, no header that would fetch or switch anything."""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from .digest import base64url
from .strict_json import JsonObject, JsonRefused, JsonValue, parse_object

MAX_TOKEN_BYTES: Final = 16 * 1024
"""The longest compact token accepted, in bytes."""
ALGORITHMS: Final = ("ES256", "ES384", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
"""The asymmetric algorithms that are verified (RFC 8725 §3.1: an allow-list)."""

JwsReason: TypeAlias = Literal[
    "too_long", "malformed", "algorithm", "header", "key", "unknown_key", "signature", "claim"
]


class JwsRefused(ValueError):
    """A token, a proof or a key that is not acceptable.

    Attributes:
        reason: The kind of fault.
        subject: The header member or claim concerned, where there is one.
    """

    def __init__(self, reason: JwsReason, detail: str = "", *, subject: str = "") -> None:
        self.reason: JwsReason = reason
        self.detail = detail
        self.subject = subject
        words = " ".join(part for part in (_WORDS[reason], subject) if part)
        super().__init__(f"{words}: {detail}" if detail else words)


@dataclass(frozen=True, slots=True)
class Header:
    """The members of a protected header that are read."""

    alg: str
    typ: str | None
    """Media type, in lower case, without a leading `application/`."""
    kid: str | None
    jwk: JsonObject | None
    """Embedded public key: allowed in proofs alone."""


@dataclass(frozen=True, slots=True, repr=False)
class UnverifiedJws:
    """A compact JWS that is well formed; its signature is not yet verified."""

    header: Header
    claims: JsonObject
    signing_input: bytes
    signature: bytes


def parse(token: str, *, embedded_key: bool = False) -> UnverifiedJws:
    """Parse a compact JWS.

    Args:
        token: The compact serialization.
        embedded_key: Whether the header must carry its public key (RFC 9449 §4.2); elsewhere one is refused.

    Raises:
        JwsRefused: where it is not well formed, or its header asks for something that is not allowed.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise JwsRefused("too_long")
    parts = token.split(".", 3)
    if len(parts) != 3:
        raise JwsRefused("malformed", "not three parts")
    header = _read_header(_strict_object(parts[0]), embedded_key=embedded_key)
    claims = _strict_object(parts[1])
    if len(claims) > _MAX_CLAIMS:
        raise JwsRefused("malformed", "too many claims")
    signature = from_base64url(parts[2])
    return UnverifiedJws(header, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def check_times(claims: Mapping[str, JsonValue], now_seconds: int, leeway_seconds: int) -> None:
    """Check `exp` (required), `nbf` and `iat` with `leeway_seconds` of grace either way.

    Raises:
        JwsRefused: naming the claim.
    """
    exp = time_claim(claims, "exp")
    if exp is None:
        raise JwsRefused("claim", "missing", subject="exp")
    nbf, iat = time_claim(claims, "nbf"), time_claim(claims, "iat")
    # RFC 7519 §4.1.4: now must be *before* `exp`.
    if now_seconds >= exp + leeway_seconds:
        raise JwsRefused("claim", "expired", subject="exp")
    if nbf is not None and nbf > now_seconds + leeway_seconds:
        raise JwsRefused("claim", "not yet valid", subject="nbf")
    if iat is not None and iat > now_seconds + leeway_seconds:
        raise JwsRefused("claim", "in the future", subject="iat")


def string_claim(claims: Mapping[str, JsonValue], name: str, max_bytes: int) -> str:
    """A required string claim, 1 to `max_bytes` long, without control characters.

    Raises:
        JwsRefused: naming the claim.
    """
    if name not in claims:
        raise JwsRefused("claim", "missing", subject=name)
    problem = _string_problem(claims[name], max_bytes)
    if problem is not None:
        raise JwsRefused("claim", problem, subject=name)
    return str(claims[name])


def time_claim(claims: Mapping[str, JsonValue], name: str) -> int | None:
    """A time claim: absent, or a whole number that is not negative (a strict parse has bounded it below 2**53).

    Raises:
        JwsRefused: naming the claim.
    """
    if name not in claims:
        return None
    value = claims[name]
    if type(value) is not int or value < 0:
        raise JwsRefused("claim", "not a whole number", subject=name)
    return value


def is_key_id(kid: object) -> bool:
    """Whether this may be a key id: 1 to 256 printable ASCII characters."""
    return isinstance(kid, str) and _KEY_ID.fullmatch(kid) is not None


def from_base64url(text: str) -> bytes:
    """Decode canonical base64url: no padding, no white space, zero trailing bits (RFC 7515 §2).

    Raises:
        JwsRefused: for any other text.
    """
    if _BASE64URL.fullmatch(text) is not None and len(text) % 4 != 1:
        octets = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if base64url(octets) == text:
            return octets
    raise JwsRefused("malformed", "not canonical base64url")


def _strict_object(part: str) -> JsonObject:
    try:
        return parse_object(from_base64url(part))
    except JsonRefused:
        raise JwsRefused("malformed", "not a strict JSON object") from None


def _read_header(header: JsonObject, *, embedded_key: bool) -> Header:
    # `crit`: no extension is understood (RFC 7515 §4.1.11). `b64`: RFC 7797 would change what is signed.
    # The rest would let the token choose its own key (RFC 8725 §3.10).
    for name in ("crit", "b64", "jku", "x5u", "x5c"):
        if name in header:
            raise JwsRefused("header", "not allowed", subject=name)
    jwk = header.get("jwk")
    if embedded_key and not isinstance(jwk, dict):
        raise JwsRefused("header", "not a key", subject="jwk")
    if not embedded_key and "jwk" in header:
        raise JwsRefused("header", "not allowed", subject="jwk")
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise JwsRefused("algorithm")
    if "kid" in header and not is_key_id(header["kid"]):
        raise JwsRefused("malformed", "bad kid")
    kid = header.get("kid")
    return Header(
        alg=alg,
        typ=_media_type(header["typ"]) if "typ" in header else None,
        kid=kid if isinstance(kid, str) else None,
        jwk=jwk if isinstance(jwk, dict) else None,
    )


def _media_type(typ: JsonValue) -> str:
    if not isinstance(typ, str) or _string_problem(typ, _MAX_TYP_BYTES) is not None:
        raise JwsRefused("malformed", "bad typ")
    lower = typ.lower() if typ.isascii() else typ
    # RFC 7515 §4.1.9: the prefix may be left out where no other slash follows.
    rest = lower.removeprefix("application/")
    return rest if "/" not in rest else lower


def _string_problem(value: JsonValue, max_bytes: int) -> str | None:
    if not isinstance(value, str):
        return "not a string"
    if not value:
        return "empty"
    if len(value.encode()) > max_bytes:
        return "too long"
    if has_control_character(value):
        return "control character"
    return None


def has_control_character(text: str) -> bool:
    """Whether a text has a character of Unicode's category Cc."""
    return any(unicodedata.category(character) == "Cc" for character in text)


_WORDS: dict[JwsReason, str] = {
    "too_long": "token too long",
    "malformed": "malformed token",
    "algorithm": "algorithm not allowed",
    "header": "header member",
    "key": "key not acceptable",
    "unknown_key": "no such key",
    "signature": "signature does not verify",
    "claim": "claim",
}
_MAX_CLAIMS = 256
_MAX_TYP_BYTES = 128
_KEY_ID = re.compile(r"[ -~]{1,256}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
