"""Keys: public JWKs of the kinds that are accepted, sets of them, and the private keys that sign."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, TypeAlias

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from .digest import base64url, canonicalize, sha256
from .jws import ALGORITHMS, JwsRefused, UnverifiedJws, from_base64url, is_key_id, parse
from .strict_json import JsonObject, JsonRefused, JsonValue, parse_object

_Key: TypeAlias = "ECKey | OKPKey | RSAKey"


class PublicKey:
    """One public key: EC on its curve, Ed25519, or RSA of 2,048 to 8,192 bits with an odd e of at least 65,537."""

    def __init__(self, jwk: Mapping[str, JsonValue]) -> None:
        """Read a public JWK (RFC 7517, RFC 8037).

        Raises:
            JwsRefused: for symmetric keys, private members, weak RSA, unknown curves, a `use` other than `sig`, and
                an `alg` that does not fit.
        """
        # RFC 7518 §6.2.2, §6.3.2, §6.4.1: whoever shows one of these has given the key away.
        if any(name in jwk for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")):
            raise JwsRefused("key", "private member")
        if jwk.get("use", "sig") != "sig":
            raise JwsRefused("key", "not for signatures")
        operations = jwk.get("key_ops", ["verify"])
        if not isinstance(operations, list) or "verify" not in operations:
            raise JwsRefused("key", "not for verification")
        if "kid" in jwk and not is_key_id(jwk["kid"]):
            raise JwsRefused("key", "bad kid")
        kind, members = _members(jwk)
        self._fits: tuple[str, ...] = _FITTING[kind]
        alg = jwk.get("alg")
        if "alg" in jwk:
            if not isinstance(alg, str) or alg not in ALGORITHMS:
                raise JwsRefused("algorithm")
            if alg not in self._fits:
                raise JwsRefused("key", "alg does not fit the key")
            self._fits = (alg,)
        kid = jwk.get("kid")
        self.kid: str | None = kid if isinstance(kid, str) else None
        self.jwk: JsonObject = members
        self.thumbprint: str = sha256(canonicalize(members))
        self._held = _hold(members)

    def fits(self, alg: str) -> bool:
        """Whether this key may verify signatures of `alg`."""
        return alg in self._fits

    def verify(self, jws: UnverifiedJws) -> None:
        """Verify a parsed token's signature.

        Raises:
            JwsRefused: where the key is not for the algorithm, or the signature is not of this key.
        """
        if not self.fits(jws.header.alg):
            raise JwsRefused("algorithm")
        # The bare algorithm, not the library's `deserialize_compact`: that would parse the token anew, its own way.
        algorithm = JWSRegistry.algorithms[jws.header.alg]
        try:
            verified = algorithm.verify(jws.signing_input, jws.signature, self._held)
        except (JoseError, ValueError):
            verified = False
        if not verified:
            raise JwsRefused("signature")

    def __repr__(self) -> str:
        return f"PublicKey(kid={self.kid!r}, thumbprint={self.thumbprint!r})"


class KeySet:
    """Keys found by `kid`; without a `kid`, by algorithm. Either way exactly one key must fit."""

    def __init__(self, keys: list[PublicKey]) -> None:
        self.keys = tuple(keys)

    @classmethod
    def from_jwks(cls, document: bytes | Mapping[str, JsonValue]) -> KeySet:
        """Read a JWKS: at most 256 KiB and 100 keys. Keys of kinds that are not accepted are skipped.

        Raises:
            JwsRefused: where it is no key set, or no key of it is acceptable.
        """
        if isinstance(document, bytes):
            if len(document) > _MAX_JWKS_BYTES:
                raise JwsRefused("too_long")
            try:
                document = parse_object(document)
            except JsonRefused:
                raise JwsRefused("malformed", "key set is not a strict JSON object") from None
        jwks = document.get("keys")
        if not isinstance(jwks, list):
            raise JwsRefused("malformed", "key set without keys")
        if len(jwks) > _MAX_JWKS_KEYS:
            raise JwsRefused("malformed", "too many keys")
        keys = []
        for jwk in jwks:
            # RFC 7517 §5: implementations should ignore keys that they do not understand.
            try:
                keys.append(PublicKey(jwk if isinstance(jwk, dict) else {}))
            except JwsRefused:
                continue
        if not keys:
            raise JwsRefused("malformed", "no acceptable key in the set")
        return cls(keys)

    def verify(self, jws: UnverifiedJws) -> None:
        """Find the key that the token's header points to, and verify with it.

        Raises:
            JwsRefused: where not exactly one key fits, or the signature is not of it.
        """
        kid = jws.header.kid
        fitting = [key for key in self.keys if (kid is None or key.kid == kid) and key.fits(jws.header.alg)]
        if len(fitting) != 1:
            raise JwsRefused("unknown_key")
        fitting[0].verify(jws)


class SigningKey:
    """A private key, P-256 (`ES256`) or Ed25519 (`EdDSA`). It shows its `kid` alone."""

    def __init__(self, key: ECKey | OKPKey, kid: str | None = None) -> None:
        shown = key.as_dict(private=False)
        public: JsonObject = {name: str(shown[name]) for name in ("kty", "crv", "x", "y") if name in shown}
        self.public = PublicKey(public)
        self.kid = kid if kid is not None else self.public.thumbprint
        self.alg = "ES256" if isinstance(key, ECKey) else "EdDSA"
        if not self.public.fits(self.alg):
            raise JwsRefused("key", "type or curve not supported for signing")
        self._key = key

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh P-256 key whose `kid` is its thumbprint."""
        return cls(ECKey.generate_key("P-256", private=True))

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, JsonValue] | str) -> SigningKey:
        """Read a private JWK, as a mapping or as JSON text.

        Raises:
            JwsRefused: where it is none, or its halves do not belong together.
        """
        members = json.loads(jwk) if isinstance(jwk, str) else dict(jwk)
        kid = members.get("kid")
        try:
            private = from_base64url(str(members.get("d", "")))
            if len(private) != 32 or members.get("crv") not in ("P-256", "Ed25519"):
                raise JwsRefused("key", "type or curve not supported for signing")
            named: dict[str, str | list[str]] = {
                name: str(members[name]) for name in ("kty", "crv", "x", "y", "d") if name in members
            }
            key: ECKey | OKPKey = ECKey.import_key(named) if members["crv"] == "P-256" else OKPKey.import_key(named)
            signer = cls(key, kid if isinstance(kid, str) and is_key_id(kid) else None)
            # INVARIANT: what it signs verifies with the public half that it shows.
            signer.public.verify(parse(signer.sign("key-check", {})))
        except (JoseError, ValueError, KeyError, TypeError):
            raise JwsRefused("key", "not a private JWK on P-256 or Ed25519") from None
        return signer

    def sign(self, typ: str, claims: Mapping[str, JsonValue], *, embed_key: bool = False) -> str:
        """A compact JWS with `alg`, `typ`, and `kid` or, with `embed_key`, the public JWK (RFC 9449 §4.2)."""
        header: JsonObject = {"alg": self.alg, "typ": typ}
        if embed_key:
            header["jwk"] = self.public.jwk
        else:
            header["kid"] = self.kid
        parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, dict(claims)))
        signing_input = ".".join(map(base64url, parts))
        signature: bytes = JWSRegistry.algorithms[self.alg].sign(signing_input.encode(), self._key)
        return f"{signing_input}.{base64url(signature)}"

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"


def _members(jwk: Mapping[str, JsonValue]) -> tuple[str, JsonObject]:
    """The kind of a key, and the members that its thumbprint covers (RFC 7638 §3.2, RFC 8037 §2), each checked."""
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if (kty, crv) in (("EC", "P-256"), ("EC", "P-384")):
        octets = 32 if crv == "P-256" else 48
        return str(crv), {"crv": crv, "kty": kty, **_coordinates(jwk, ("x", "y"), octets)}
    if (kty, crv) == ("OKP", "Ed25519"):
        return "Ed25519", {"crv": crv, "kty": kty, **_coordinates(jwk, ("x",), 32)}
    if kty == "RSA":
        modulus, exponent = _unsigned(jwk, "n"), _unsigned(jwk, "e")
        if not 2048 <= modulus.bit_length() <= 8192:
            raise JwsRefused("key", "RSA modulus too short or too long")
        if not 65_537 <= exponent < 2**32 or exponent % 2 == 0:
            raise JwsRefused("key", "RSA exponent not acceptable")
        return "RSA", {"e": jwk["e"], "kty": kty, "n": jwk["n"]}
    raise JwsRefused("key", "type or curve not supported")


def _coordinates(jwk: Mapping[str, JsonValue], names: tuple[str, ...], octets: int) -> JsonObject:
    """Members of exactly so many octets (RFC 7518 §6.2.1.2, RFC 8037 §2)."""
    members: JsonObject = {}
    for name in names:
        text = jwk.get(name)
        if not isinstance(text, str) or len(from_base64url(text)) != octets:
            raise JwsRefused("key", "coordinate of the wrong length")
        members[name] = text
    return members


def _unsigned(jwk: Mapping[str, JsonValue], name: str) -> int:
    """A big-endian integer in as few octets as possible (RFC 7518 §2): so a key has one thumbprint."""
    text = jwk.get(name)
    octets = from_base64url(text) if isinstance(text, str) else b""
    if not octets or octets[0] == 0:
        raise JwsRefused("key", "integer not in its shortest form")
    return int.from_bytes(octets, "big")


def _hold(members: JsonObject) -> _Key:
    kinds: dict[JsonValue, type[ECKey | OKPKey | RSAKey]] = {"EC": ECKey, "OKP": OKPKey, "RSA": RSAKey}
    try:
        key = kinds[members["kty"]].import_key({name: str(value) for name, value in members.items()})
        _ = key.public_key  # the library reads numbers when they are first needed: a point off its curve fails here
    except (JoseError, ValueError):
        raise JwsRefused("key", "point not on its curve") from None
    return key


_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_FITTING: Final[dict[str, tuple[str, ...]]] = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "Ed25519": ("EdDSA",),
    "RSA": _RSA,
}
_MAX_JWKS_BYTES = 256 * 1024
_MAX_JWKS_KEYS = 100
