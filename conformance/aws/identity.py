"""The web identity token: whose it is, whether it is good, and what it says.

Where the facts are from:

* Algorithms, that times are whole numbers, lengths: AWS's service description of STS, `AssumeRoleWithWebIdentity`
  (RS256 to RS512, ES256 to ES512; 4 to 20,000 characters; `sub` as `SubjectFromWebIdentityToken`, 6 to 255).
* The provider's URL is its `iss` with `https://` before it, and is registered with the audiences (client ids) that
  count: IAM's `CreateOpenIDConnectProvider`. There the URL should have no port; here it may, since nobody listens on
  443 of loopback.
* Where a token has `azp`, that is what counts as its audience: IAM's keys of web identity federation. That several
  audiences without `azp` are refused is the strictest reading.
* Keys come from `jwks_uri` of the provider's discovery document, over https. For how long AWS keeps them it does not
  say; `keys_cached_seconds` decides here, and a key that is not among those kept is unknown until then.
* The media type `typ` plays no part: any JWT of that issuer will do, which is why issuers must not share keys.

Signatures are checked by PyJWT and cryptography: nothing of Deputize is asked about Deputize's tokens.
"""

import base64
import http.client
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import jwt
from refusal import Refusal, invalid

ALGORITHMS = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
MAX_TOKEN_CHARACTERS = 20_000
MAX_DOCUMENT_BYTES = 200_000
FETCHED_WITHIN_SECONDS = 5


@dataclass
class Provider:
    """An OIDC provider that somebody registered in the account."""

    url: str
    audiences: list[str]
    keys: list[dict[str, Any]] = field(default_factory=list)
    fetched_at: float = 0.0

    @property
    def name(self) -> str:
        """As condition keys and ARNs name it: without its scheme."""
        return self.url.removeprefix("https://")


@dataclass(frozen=True)
class WebIdentity:
    """A token that was verified."""

    provider: Provider
    audience: str
    subject: str
    claims: dict[str, Any]


class Providers:
    """The OIDC providers of the account."""

    def __init__(self, ca_file: str, skew_seconds: int, keys_cached_seconds: float) -> None:
        self.by_url: dict[str, Provider] = {}
        self.tls = ssl.create_default_context(cafile=ca_file)
        self.skew_seconds, self.keys_cached_seconds = skew_seconds, keys_cached_seconds

    def register(self, url: str, audiences: list[str]) -> None:
        """As `CreateOpenIDConnectProvider`."""
        if not url.startswith("https://") or urlsplit(url).query:
            raise invalid("url", url, "Member must begin with https:// and have no query")
        self.by_url[url] = Provider(url, audiences)

    def verify(self, token: str) -> WebIdentity:
        """Everything that STS checks of a token before it looks at the role."""
        if not 4 <= len(token) <= MAX_TOKEN_CHARACTERS:
            raise invalid("webIdentityToken", token, "Member must have length between 4 and 20000")
        header, claims = unverified(token)
        provider = self._provider(claims)
        key = self._key(provider, header)
        try:
            claims = jwt.decode(token, key, algorithms=[header["alg"]], options=ONLY_THE_SIGNATURE)
        except jwt.PyJWTError as error:
            raise untrue(f"Couldn't verify the token's signature: {error}") from error
        self._times(claims)
        subject = claims.get("sub")
        if not isinstance(subject, str) or not 6 <= len(subject) <= 255:
            raise untrue("Missing or unusable claim: sub")
        return WebIdentity(provider, audience(claims, provider), subject, claims)

    def _provider(self, claims: dict[str, Any]) -> Provider:
        issuer = claims.get("iss")
        if not isinstance(issuer, str):
            raise untrue("Missing a required claim: iss")
        if issuer not in self.by_url:
            raise untrue(f"No OpenIDConnect provider found in your account for {issuer}")
        return self.by_url[issuer]

    def _key(self, provider: Provider, header: dict[str, Any]) -> Any:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS:
            raise untrue(f"The algorithm {algorithm!r} is not supported")
        if "crit" in header:
            raise untrue("The token has critical extensions that are not understood")
        if time.monotonic() - provider.fetched_at > self.keys_cached_seconds or not provider.fetched_at:
            provider.keys = self._fetch_keys(provider)
            provider.fetched_at = time.monotonic()
        keys = [key for key in provider.keys if key.get("kid") == kid] if kid else provider.keys
        if len(keys) != 1:
            raise untrue("Couldn't retrieve verification key from your identity provider: no such key")
        [key] = keys
        if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
            raise untrue("The verification key is for something else")
        try:
            return jwt.PyJWK(key, algorithm=algorithm)
        except (jwt.PyJWTError, ValueError) as error:
            raise untrue(f"The verification key does not fit the token: {error}") from error

    def _fetch_keys(self, provider: Provider) -> list[dict[str, Any]]:
        discovery = self._fetch(f"{provider.url.rstrip('/')}/.well-known/openid-configuration")
        if discovery.get("issuer") != provider.url:
            raise untrue("The issuer of the discovery document is not the provider's URL")
        supported = discovery.get("id_token_signing_alg_values_supported")
        required = ("jwks_uri", "response_types_supported", "subject_types_supported")
        if not isinstance(supported, list) or any(member not in discovery for member in required):
            raise untrue("The discovery document lacks what OpenID Connect Discovery requires")
        keys = self._fetch(str(discovery["jwks_uri"])).get("keys")
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise untrue("Couldn't retrieve verification key from your identity provider: no key set")
        if any(private & key.keys() for key in keys for private in [{"d", "k", "p", "q"}]):
            raise untrue("The key set holds private keys")
        return keys

    def _fetch(self, url: str) -> dict[str, Any]:
        """A document over https, without following anything anywhere."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise untrue(f"{url} is not https")
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=FETCHED_WITHIN_SECONDS, context=self.tls
        )
        try:
            connection.request("GET", parts.path or "/", headers={"accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(MAX_DOCUMENT_BYTES + 1)
            if answer.status != 200 or len(body) > MAX_DOCUMENT_BYTES:
                raise OSError(f"{url} answers {answer.status}, {len(body)} bytes")
            document = json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Refusal("IDPCommunicationError", f"Error communicating with the provider: {error}") from error
        finally:
            connection.close()
        if not isinstance(document, dict):
            raise untrue(f"{url} is no JSON object")
        return document

    def _times(self, claims: dict[str, Any]) -> None:
        now = time.time()
        for name in ("exp", "iat", "nbf"):
            value = claims.get(name)
            if value is None and name != "nbf":
                raise untrue(f"Missing a required claim: {name}")
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise untrue(f"{name} must be an integer")
        if now >= claims["exp"] + self.skew_seconds:
            raise Refusal("ExpiredTokenException", "Token expired: current date/time is after the expiration")
        for name in ("iat", "nbf"):
            if claims.get(name, 0) > now + self.skew_seconds:
                raise untrue(f"Token is not yet valid: {name} is in the future")


def audience(claims: dict[str, Any], provider: Provider) -> str:
    """The audience that counts: `azp` where there is one; each that is named must be registered."""
    named = claims.get("aud")
    named = [named] if isinstance(named, str) else named
    party = claims.get("azp")
    usable = isinstance(named, list) and named and all(isinstance(one, str) for one in named)
    if not usable or not isinstance(party, str | None):
        raise untrue("Missing or unusable claim: aud")
    if len(named) > 1 and party is None:
        raise untrue("Incorrect token audience: several, and no azp")
    if not set(named) & set(provider.audiences) or (party or named[0]) not in provider.audiences:
        raise untrue("Incorrect token audience")
    return party or named[0]


def unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a compact JWS, each an object without a member that stands twice."""
    parts = token.split(".")
    if len(parts) != 3:
        raise untrue("The ID Token provided is not a valid JWT")
    try:
        header, claims = (
            json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), object_pairs_hook=distinct)
            for part in parts[:2]
        )
    except (ValueError, RecursionError) as error:
        raise untrue(
            "The ID Token provided is not a valid JWT (You may see this error if you sent an Access Token)"
        ) from error
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise untrue("The ID Token provided is not a valid JWT")
    return header, claims


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose member names all differ."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member stands twice")
    return found


def untrue(message: str) -> Refusal:
    """A token that proves nothing."""
    return Refusal("InvalidIdentityToken", message)


# The rest is checked here, where each refusal has the code that STS gives it.
ONLY_THE_SIGNATURE = {
    "verify_signature": True,
    "verify_aud": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_iss": False,
    "verify_jti": False,
    "verify_nbf": False,
    "verify_sub": False,
}
