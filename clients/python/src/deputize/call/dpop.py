"""DPoP proofs (RFC 9449): made by clients, verified by servers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from .digest import sha256
from .jws import JwsRefused, UnverifiedJws, parse, string_claim, time_claim
from .keys import PublicKey, SigningKey
from .strict_json import JsonObject

TYP: Final = "dpop+jwt"
"""`typ` of a proof (RFC 9449 §4.2)."""


@dataclass(frozen=True, slots=True)
class VerifiedProof:
    """A proof that passed every check of RFC 9449 §4.3 but nonce and replay."""

    jkt: str
    jti: str
    iat: int
    tag: bytes
    """16 bytes that stand for (jkt, jti) in a once-only set."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proof must be for."""

    htm: str
    """HTTP method."""
    htu: str
    """The *configured* public URL."""
    now_seconds: int
    window_seconds: int
    """How far `iat` may be from now, either way."""
    access_token: str | None = None
    jkt: str | None = None
    """The thumbprint that the key must have, where one is known."""


@dataclass(frozen=True, slots=True, repr=False)
class UnverifiedProof:
    """A well-formed proof. Its nonce can be looked at first, so that a challenge costs no signature."""

    jws: UnverifiedJws
    nonce: str | None

    def verify(self, expected: Expected) -> VerifiedProof:
        """All remaining checks of RFC 9449 §4.3 but nonce (before) and replay (after), which are the caller's.

        Raises:
            JwsRefused: where one does not hold.
        """
        claims = self.jws.claims
        # Check 8. Methods are case-sensitive (RFC 9110 §9.1).
        if string_claim(claims, "htm", _MAX_HTM_BYTES) != expected.htm:
            raise JwsRefused("claim", "another method", subject="htm")
        # Check 9.
        claimed = _target(string_claim(claims, "htu", _MAX_HTU_BYTES))
        if claimed is None or claimed != _target(expected.htu):
            raise JwsRefused("claim", "another URL", subject="htu")
        # Check 11.
        iat = time_claim(claims, "iat")
        if iat is None or abs(iat - expected.now_seconds) > expected.window_seconds:
            raise JwsRefused("claim", "outside the window", subject="iat")
        # Check 12, first half: the proof is for this access token.
        if expected.access_token is not None:
            ath = string_claim(claims, "ath", _MAX_ATH_BYTES)
            if ath != sha256(expected.access_token):
                raise JwsRefused("claim", "another access token", subject="ath")
        # Check 7 is in `PublicKey`: a private member refuses the key.
        key = PublicKey(self.jws.header.jwk or {})
        # Check 12, second half: the token is bound to this key.
        if expected.jkt is not None and expected.jkt != key.thumbprint:
            raise JwsRefused("key", "not the key that the token is bound to")
        # Check 6, last because dearest.
        key.verify(self.jws)
        jti = string_claim(claims, "jti", _MAX_JTI_BYTES)
        return VerifiedProof(key.thumbprint, jti, iat, _replay_tag(key.thumbprint, jti))


def parse_proof(header: str) -> UnverifiedProof:
    """Parse the value of the one `DPoP` header (RFC 9449 §4.3, checks 2 to 5; check 1 is the caller's).

    Raises:
        JwsRefused: where it is no proof.
    """
    jws = parse(header, embedded_key=True)
    if jws.header.typ != TYP:
        raise JwsRefused("malformed", "typ is not dpop+jwt")
    string_claim(jws.claims, "jti", _MAX_JTI_BYTES)
    string_claim(jws.claims, "htm", _MAX_HTM_BYTES)
    string_claim(jws.claims, "htu", _MAX_HTU_BYTES)
    if time_claim(jws.claims, "iat") is None:
        raise JwsRefused("claim", "missing", subject="iat")
    nonce = string_claim(jws.claims, "nonce", _MAX_NONCE_BYTES) if "nonce" in jws.claims else None
    return UnverifiedProof(jws, nonce)


@dataclass(frozen=True, slots=True)
class NewProof:
    """What a new proof says."""

    htm: str
    """HTTP method."""
    htu: str
    """Target URL; its query and fragment are left out."""
    jti: str
    """An id that never comes twice."""
    iat: int
    """Now, in seconds since the epoch."""
    nonce: str | None = None
    """The nonce that this server gave last."""
    access_token: str | None = None
    """The token that it accompanies."""


def prove(key: SigningKey, proof: NewProof) -> str:
    """Make a proof with the key that the token is, or is to be, bound to."""
    claims: JsonObject = {"jti": proof.jti, "htm": proof.htm, "htu": without_query(proof.htu), "iat": proof.iat}
    if proof.nonce is not None:
        claims["nonce"] = proof.nonce
    if proof.access_token is not None:
        claims["ath"] = sha256(proof.access_token)
    return key.sign(TYP, claims, embed_key=True)


def without_query(url: str) -> str:
    """The URL up to its query or fragment."""
    return re.split(r"[?#]", url, maxsplit=1)[0]


def _target(url: str) -> tuple[str, str, str, str] | None:
    """Scheme, host, port and path, "ignoring any query and fragment parts" (RFC 9449 §4.3, check 9).

    Of RFC 3986 §6.2 only what cannot change the resource: case of scheme and host, the default port, an empty path.
    Dot segments and percent-encodings are compared as they stand: a server may well tell `/a%2Fb` from `/a/b`.
    """
    scheme, separator, rest = without_query(url).partition("://")
    if not separator:
        return None
    authority, slash, path = rest.partition("/")
    # The colons of an IPv6 address stand before its closing bracket. User information stays in the host, and so
    # matches no configured URL.
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        host, port = authority, ""
    if not host:
        return None
    scheme, host = _lower(scheme), _lower(host)
    is_default = port == {"https": "443", "http": "80"}.get(scheme)
    return scheme, host, "" if is_default else port, slash + path or "/"


def _lower(text: str) -> str:
    """Lower case for ASCII alone: no other letter may become one of a host name's."""
    return "".join(character.lower() if character.isascii() else character for character in text)


def _replay_tag(jkt: str, jti: str) -> bytes:
    """A thumbprint is base64url: the zero byte ends it beyond doubt."""
    return hashlib.sha256(jkt.encode() + b"\0" + jti.encode()).digest()[:16]


_MAX_JTI_BYTES = 256
_MAX_HTM_BYTES = 32
_MAX_HTU_BYTES = 2048
_MAX_NONCE_BYTES = 256
_MAX_ATH_BYTES = 64
