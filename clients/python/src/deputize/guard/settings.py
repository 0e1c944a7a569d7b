"""What a guard is told once, by its operator."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from deputize.call.jws import JwsRefused
from deputize.call.keys import KeySet, SigningKey
from deputize.call.strict_json import JsonObject, JsonRefused, parse_object
from deputize.client.sealed import DecryptionKey
from deputize.errors import ConfigurationError
from deputize.urls import is_safe_url


class SettingsError(ValueError):
    """Settings that cannot be used; the text says which one, and what it must be."""


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Settings of a guard. Times that are compared with clocks of others are in whole seconds."""

    issuer: str
    """The broker: `iss` of every token."""
    resource: str
    """This server's resource URI: `aud` of every token."""
    public_url: str
    """Public URL of the MCP endpoint: `htu` of every proof, whatever `Host` says (RFC 9449 §4.3, check 9)."""
    client_id: str
    """The OAuth client that this server is at the broker."""
    private_key: SigningKey
    """The key with which it authenticates there."""
    snapshot_keys: KeySet
    """The keys that sign the broker's snapshots."""
    encryption_key: DecryptionKey | None = None
    """What the broker seals AWS credentials to: the private half of this client's key with `use: enc` there. Where it
    is given, credentials that are not sealed are refused."""
    name: str = "guard"
    """Names this process in its nonces."""
    state_file: Path | None = None
    """Where the highest snapshot version is remembered through restarts."""
    leeway_seconds: int = 5
    """Grace on the times of tokens."""
    proof_window_seconds: int = 60
    """How far a proof's `iat` may be from now."""
    nonce_lifetime_seconds: float = 120.0
    proof_capacity: int = 200_000
    """How many proofs are remembered in each of two generations; when full, calls are refused with 503."""
    counted_tokens: int = 50_000
    """How many L1 and L2 tokens with a limit of uses are counted at once; when full, calls are refused with 503."""
    max_body_bytes: int = 1024 * 1024
    max_revocation_age_seconds: float = 60.0
    """How old the last word about revocations may be before calls stop."""
    resource_metadata: str = field(init=False)
    """URL of the protected resource metadata (RFC 9728 §3.1), named in every challenge."""

    def __post_init__(self) -> None:
        for name in ("issuer", "public_url"):
            if not is_safe_url(getattr(self, name)):
                raise SettingsError(f"{name} must be an https URL (http is for loopback alone)")
        if not self.resource or not self.client_id:
            raise SettingsError("resource and client_id must not be empty")
        parts = urlsplit(self.public_url)
        path = "/.well-known/oauth-protected-resource" + parts.path.rstrip("/")
        metadata = urlunsplit((parts.scheme, parts.netloc, path, "", ""))
        object.__setattr__(self, "resource_metadata", metadata)

    @classmethod
    def from_file(cls, path: str | Path) -> GuardSettings:
        """Read settings from a JSON file.

        Its members are `issuer`, `resource`, `public_url`, `client_id`, `private_key` (a JWK), `snapshot_keys` (a
        JWKS) and, if wanted, `encryption_key` (a JWK) and `state_file`.

        Raises:
            SettingsError: naming the file and what is wrong with it.
        """
        try:
            return cls.from_mapping(parse_object(Path(path).read_bytes()))
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from None
        except (JsonRefused, SettingsError) as error:
            raise SettingsError(f"{path}: {error}") from None

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> GuardSettings:
        """Read settings from the environment: `DEPUTIZE_ISSUER`, `DEPUTIZE_RESOURCE` and so on.

        Where `DEPUTIZE_GUARD_SETTINGS` names a file, all of them come from there.

        Raises:
            SettingsError: naming the variable that is missing or wrong.
        """
        environment = os.environ if environment is None else environment
        if "DEPUTIZE_GUARD_SETTINGS" in environment:
            return cls.from_file(environment["DEPUTIZE_GUARD_SETTINGS"])
        settings: JsonObject = {}
        for name in (*_TEXTS, *_KEYS, *_OPTIONAL):
            text = environment.get(f"DEPUTIZE_{name.upper()}")
            if text is None:
                continue
            try:
                settings[name] = parse_object(text.encode()) if name in _JSON else text
            except JsonRefused as error:
                raise SettingsError(f"DEPUTIZE_{name.upper()}: {error}") from None
        return cls.from_mapping(settings)

    @classmethod
    def from_ready_file(cls, path: str | Path, resource: str) -> GuardSettings:
        """Settings for a server of your own in a development environment.

        Start it with `deputize dev --register RECORD --ready-file PATH`, where the record's `resource` is this one and
        is also where the server answers.

        Raises:
            SettingsError: where the file is none, or names no such server.
        """
        try:
            ready = parse_object(Path(path).read_bytes())
        except (OSError, JsonRefused) as error:
            raise SettingsError(f"{path}: {error}") from None
        servers = ready.get("servers")
        for server in servers if isinstance(servers, list) else []:
            client = server.get("client") if isinstance(server, dict) else None
            if isinstance(server, dict) and isinstance(client, dict) and server.get("resource") == resource:
                return cls.from_mapping(
                    {
                        "issuer": ready.get("issuer"),
                        "resource": resource,
                        "public_url": resource,
                        "client_id": client.get("client_id"),
                        "private_key": client.get("private_jwk"),
                        "snapshot_keys": ready.get("snapshot_jwks"),
                    }
                )
        raise SettingsError(f"{path}: no server {resource}: start deputize dev with --register and its record")

    @classmethod
    def from_mapping(cls, settings: JsonObject) -> GuardSettings:
        """Read settings as `from_file` does, from their members.

        Raises:
            SettingsError: naming the member that is missing or wrong.
        """
        unknown = sorted(set(settings) - {*_TEXTS, *_KEYS, *_OPTIONAL})
        if unknown:
            raise SettingsError(f"unknown setting {unknown[0]}")
        for names, kind, what in ((_TEXTS, str, "a text"), (_KEYS, dict, "an object")):
            for name in names:
                if not isinstance(settings.get(name), kind):
                    raise SettingsError(f"{name} must be {what}")
        state_file = settings.get("state_file")
        private_key, snapshot_keys = settings["private_key"], settings["snapshot_keys"]
        encryption_key = settings.get("encryption_key")
        try:
            return cls(
                issuer=str(settings["issuer"]),
                resource=str(settings["resource"]),
                public_url=str(settings["public_url"]),
                client_id=str(settings["client_id"]),
                private_key=SigningKey.from_jwk(json.dumps(private_key)),
                snapshot_keys=KeySet.from_jwks(json.dumps(snapshot_keys).encode()),
                encryption_key=None if encryption_key is None else DecryptionKey.from_jwk(json.dumps(encryption_key)),
                state_file=Path(state_file) if isinstance(state_file, str) else None,
            )
        except JwsRefused as error:
            raise SettingsError(f"private_key or snapshot_keys: {error}") from None
        except ConfigurationError as error:
            raise SettingsError(str(error)) from None


_TEXTS = ("issuer", "resource", "public_url", "client_id")
_KEYS = ("private_key", "snapshot_keys")
_OPTIONAL = ("encryption_key", "state_file")
_JSON = (*_KEYS, "encryption_key")
