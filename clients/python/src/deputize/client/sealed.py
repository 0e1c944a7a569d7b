"""Answers that are sealed to this client: whoever ends TLS on the way cannot read them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from deputize.call.jws import JwsRefused, from_base64url, is_key_id
from deputize.call.strict_json import JsonObject, JsonRefused, JsonValue, parse_object
from deputize.errors import ConfigurationError, ProtocolError


class DecryptionKey:
    """A private key, P-256 (`ECDH-ES+A256KW`) or RSA (`RSA-OAEP-256`), that answers are sealed to. It shows its `kid`.

    Its public half stands in the client's JWKS at the broker, with `use: "enc"`.
    """

    def __init__(self, key: ECKey | RSAKey, kid: str | None) -> None:
        self.kid = kid
        self.alg = "ECDH-ES+A256KW" if isinstance(key, ECKey) else "RSA-OAEP-256"
        self._key = key

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, JsonValue] | str) -> DecryptionKey:
        """Read a private JWK, as a mapping or as JSON text.

        Raises:
            ConfigurationError: where it is none.
        """
        members = _mapping(jwk)
        kid, kind = members.get("kid"), (members.get("kty"), members.get("crv"))
        key: ECKey | RSAKey | None = None
        if "d" in members and members.get("use", "enc") == "enc" and kind in (("EC", "P-256"), ("RSA", None)):
            key = _held(members)
        if key is None:
            raise ConfigurationError(
                "the encryption key cannot be used", "give a private JWK with `use: enc`: P-256, or RSA of 2,048 bits"
            )
        return cls(key, kid if isinstance(kid, str) and is_key_id(kid) else None)

    def open(self, sealed: bytes) -> bytes:
        """Open a compact JWE (RFC 7516 §7.1).

        Raises:
            ProtocolError: whatever is wrong with it, in the same words (RFC 7516 §11.5).
        """
        opened = self._opened(sealed.strip())
        if opened is None:
            raise ProtocolError("the sealed answer cannot be opened with this key")
        return opened

    def _opened(self, sealed: bytes) -> bytes | None:
        if sealed.count(b".") != 4 or not self._fits(sealed.partition(b".")[0]):
            return None
        try:
            return jwe.decrypt_compact(sealed, self._key, algorithms=[self.alg, _CIPHER]).plaintext
        except (JoseError, ValueError, TypeError, KeyError):
            return None

    def _fits(self, protected: bytes) -> bool:
        """Whether a header is for this key, and has nothing that is not known: no `zip`, no `crit`, no address."""
        try:
            header = parse_object(from_base64url(protected.decode("ascii")))
        except (JwsRefused, JsonRefused, ValueError):
            return False
        if (header.get("alg"), header.get("enc")) != (self.alg, _CIPHER) or not set(header) <= _MEMBERS:
            return False
        epk = header.get("epk")
        if self.alg == "ECDH-ES+A256KW" and (not isinstance(epk, dict) or epk.get("crv") != "P-256"):
            return False
        is_named = "kid" not in header or self.kid is None or header["kid"] == self.kid
        return is_named and header.get("cty", "json") in ("json", "application/json")

    def __repr__(self) -> str:
        return f"DecryptionKey(kid={self.kid!r})"


def _mapping(jwk: Mapping[str, JsonValue] | str) -> JsonObject:
    if not isinstance(jwk, str):
        return dict(jwk)
    try:
        members = json.loads(jwk)
    except ValueError:
        return {}
    return members if isinstance(members, dict) else {}


def _held(members: JsonObject) -> ECKey | RSAKey | None:
    named: dict[str, str | list[str]] = {name: str(members[name]) for name in _KEY_MEMBERS if name in members}
    try:
        key: ECKey | RSAKey = ECKey.import_key(named) if members["kty"] == "EC" else RSAKey.import_key(named)
        # The library reads numbers when they are first needed.
        private = key.private_key
    except (JoseError, ValueError, KeyError, TypeError):
        return None
    is_fit = private is not None and (isinstance(key, ECKey) or 2048 <= private.key_size <= 8192)
    return key if is_fit else None


_CIPHER = "A256GCM"
_MEMBERS = {"alg", "enc", "kid", "cty", "typ", "epk", "apu", "apv"}
_KEY_MEMBERS = ("kty", "crv", "x", "y", "n", "e", "d", "p", "q", "dp", "dq", "qi")
