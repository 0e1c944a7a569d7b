"""Sealed answers: opened by whom they are for, and demanded where there is a key for them."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey, RSAKey

from aws_broker import AwsBroker, access_key_of
from deputize import AwsRequest, ConfigurationError, DecryptionKey, GuardSettings, ProtocolError, SettingsError
from deputize.call.digest import base64url
from guard_fixture import Fixture, jwks_of, l3

EC = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "enc"}, private=True)
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "enc"}, private=True)
OTHER = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "enc"}, private=True)


def private(key: ECKey | RSAKey, **changes: Any) -> dict[str, Any]:
    return {**key.as_dict(private=True), **changes}


def asked(broker: AwsBroker, key: ECKey | RSAKey | None) -> Any:
    request = AwsRequest(token=broker.f.token(l3("refund", {}), jti="jti-1"))
    return broker.client(None if key is None else DecryptionKey.from_jwk(private(key))).aws_credentials(request)


@pytest.mark.parametrize("key", [EC, RSA], ids=["ECDH-ES+A256KW", "RSA-OAEP-256"])
def test_a_sealed_answer_is_opened(key: ECKey | RSAKey) -> None:
    broker = AwsBroker(Fixture())
    broker.seal_to = key
    assert asked(broker, key).access_key_id == access_key_of("jti-1")


def test_an_answer_that_is_not_sealed_is_refused_where_there_is_a_key() -> None:
    with pytest.raises(ConfigurationError, match="not sealed, though there is a key") as refused:
        asked(AwsBroker(Fixture()), EC)
    assert "who ends TLS" in refused.value.what_to_do


def test_without_a_key_a_sealed_answer_says_what_is_missing() -> None:
    broker = AwsBroker(Fixture())
    broker.seal_to = EC
    with pytest.raises(ConfigurationError, match="encryption_key"):
        asked(broker, None)


def test_a_refusal_is_never_sealed() -> None:
    broker = AwsBroker(Fixture())
    broker.answer = lambda _: httpx2.Response(400, json={"error": "invalid_request", "error_description": "no"})
    with pytest.raises(Exception, match="invalid_request"):
        asked(broker, EC)


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "ECDH-ES"},
        {"alg": "ECDH-ES+A128KW"},
        {"enc": "A128GCM"},
        {"enc": "A256CBC-HS512"},
        {"zip": "DEF"},
        {"kid": "ec-2"},
        {"cty": "JWT"},
        {"jku": "https://example.com/keys"},
        {"x5u": "https://example.com/certificate"},
    ],
    ids=str,
)
def test_a_header_that_is_not_ours_is_refused(header: dict[str, Any]) -> None:
    broker = AwsBroker(Fixture())
    broker.seal_to = EC
    sealed = broker.sealed({"Version": 1}, **header)
    with pytest.raises(ProtocolError, match="cannot be opened"):
        DecryptionKey.from_jwk(private(EC)).open(sealed)


def test_a_seal_for_another_or_one_that_was_touched_is_refused_in_the_same_words() -> None:
    broker = AwsBroker(Fixture())
    broker.seal_to = EC
    honest = broker.sealed({"secret": "secret/of"}).decode()
    key = DecryptionKey.from_jwk(private(EC))
    assert json.loads(key.open(honest.encode())) == {"secret": "secret/of"}
    parts = honest.split(".")
    forged = [
        ".".join([*parts[:at], ("B" if part[:1] == "A" else "A") + part[1:], *parts[at + 1 :]])
        for at, part in enumerate(parts)
    ]
    unsigned = base64url(json.dumps({"alg": "dir", "enc": "A256GCM"}).encode())
    for text in (*forged, "", "....", "x", honest + ".x", ".".join(parts[:4]), f"{unsigned}....", "é" * 40):
        with pytest.raises(ProtocolError, match="cannot be opened with this key") as refused:
            key.open(text.encode())
        assert refused.value.__context__ is None
    for other in (OTHER, RSA):
        with pytest.raises(ProtocolError):
            DecryptionKey.from_jwk(private(other)).open(honest.encode())


def test_keys_that_cannot_be_used_are_said_at_once() -> None:
    short, wrong_half = private(RSA), private(EC)
    short["n"] = short["n"][:100]
    wrong_half["d"] = private(OTHER)["d"]
    p384 = ECKey.generate_key("P-384", private=True)
    for jwk in (
        EC.as_dict(private=False),
        private(EC, use="sig"),
        private(p384),
        short,
        wrong_half,
        {"kty": "oct", "k": "AAAA", "d": "x"},
        "no JSON",
        "[]",
    ):
        with pytest.raises(ConfigurationError, match="encryption key cannot be used") as refused:
            DecryptionKey.from_jwk(jwk)
        assert refused.value.__context__ is None
    assert str(private(EC)["d"]) not in repr(DecryptionKey.from_jwk(private(EC)))


def test_settings_take_a_key() -> None:
    f = Fixture()
    settings: dict[str, Any] = {
        "issuer": f.settings.issuer,
        "resource": f.settings.resource,
        "public_url": f.settings.public_url,
        "client_id": "pay-guard",
        "private_key": {**f.settings.private_key._key.as_dict(private=True)},
        "snapshot_keys": {"keys": [{**key.jwk, "kid": key.kid} for key in jwks_of(f.signer).keys]},
    }
    read = GuardSettings.from_mapping({**settings, "encryption_key": private(EC)})
    assert read.encryption_key is not None
    assert read.encryption_key.kid == "ec-1"
    assert str(private(EC)["d"]) not in repr(read)
    environment = {
        f"DEPUTIZE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in {**settings, "encryption_key": private(EC)}.items()
    }
    assert GuardSettings.from_env(environment).encryption_key is not None
    assert GuardSettings.from_mapping(settings).encryption_key is None
    for bad in ({"kty": "EC"}, "text", EC.as_dict(private=False)):
        with pytest.raises(SettingsError, match="encryption key"):
            GuardSettings.from_mapping({**settings, "encryption_key": bad})
