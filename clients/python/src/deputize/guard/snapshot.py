"""What a guard knows of its server: the approved tools and the broker's keys, as a signed snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from deputize.call import resource
from deputize.call.digest import is_digest, sha256
from deputize.call.jws import JwsRefused, check_times, parse, string_claim
from deputize.call.keys import KeySet
from deputize.call.offers import Offers
from deputize.call.strict_json import MAX_DEPTH, JsonObject, JsonRefused, JsonValue, parse_object

from .pin import PROMPTS, RESOURCES, TOOLS, Pinned, SnapshotRefused, pin_all
from .revocation import Revocation

SNAPSHOT_TYP: Final = "deputize-snapshot+jwt"
"""`typ` of the signature over a snapshot."""
MAX_SNAPSHOT_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class Snapshot:
    """A snapshot whose every tool was checked and compiled."""

    version: int
    """Grows with every change, revocations included; a guard never goes back."""
    expires_at: int
    issuer: str
    server_id: str
    resource: str
    tenant: str
    manifest_digest: str
    keys: KeySet
    """The keys that sign tool-call tokens."""
    tools: Mapping[str, Pinned]
    prompts: Mapping[str, Pinned]
    resources: Mapping[str, Pinned]
    """By their entries: a URI, or with `/*` at its end everything below."""
    offers: Offers
    """Everything that can be asked for, counted."""
    revocations: tuple[Revocation, ...]

    def pinned(self, action: str, name: str) -> Pinned | None:
        """What this action acts on, if it is approved."""
        if action == "tools/call":
            return self.tools.get(name)
        if action == "prompts/get":
            return self.prompts.get(name)
        entry = self.entry_of(name)
        return self.resources[entry] if entry is not None else None

    def entry_of(self, uri: str) -> str | None:
        """The entry that names this resource: the most exact one decides."""
        entry = resource.find(self.resources, uri)
        return entry if entry is not None and self.resources[entry].enabled else None

    @classmethod
    def open(cls, signed: bytes | JsonValue, signers: KeySet, now_seconds: int) -> Snapshot:
        """Verify the signature of a signed snapshot, `{"snapshot", "signature"}`, and read what is signed.

        Raises:
            SnapshotRefused: where it is not signed by one of `signers`, expired, or does not hold.
        """
        text, signature = _signed_parts(signed)
        try:
            jws = parse(signature)
            if jws.header.typ != SNAPSHOT_TYP:
                raise JwsRefused("malformed", "wrong typ")
            check_times(jws.claims, now_seconds, _CLOCK_SKEW_SECONDS)
            signers.verify(jws)
            if string_claim(jws.claims, "sha256", 64) != sha256(text):
                raise JwsRefused("claim", "it is over another text", subject="sha256")
            snapshot = cls.read(text, now_seconds)
            for name, value in (("iss", snapshot.issuer), ("aud", snapshot.resource)):
                if string_claim(jws.claims, name, _MAX_URI_BYTES) != value:
                    raise JwsRefused("claim", "of another broker or server", subject=name)
        except JwsRefused as refused:
            raise SnapshotRefused(f"snapshot signature: {refused}") from None
        return snapshot

    @classmethod
    def read(cls, text: bytes, now_seconds: int) -> Snapshot:
        """Read a snapshot whose origin is already vouched for; from the network use `open`.

        Raises:
            SnapshotRefused: where its form, its time or a tool in it does not hold.
        """
        if len(text) > MAX_SNAPSHOT_BYTES:
            raise SnapshotRefused("malformed snapshot: longer than 16 MiB")
        try:
            document = parse_object(text, MAX_DEPTH + 4)
            if not _REQUIRED <= document.keys() <= _REQUIRED | {"revocations", "prompts", "resources"}:
                raise SnapshotRefused("malformed snapshot: members missing or unknown")
            return cls._of(document, now_seconds)
        except (JsonRefused, JwsRefused) as refused:
            raise SnapshotRefused(f"malformed snapshot: {refused}") from None

    @classmethod
    def _of(cls, document: JsonObject, now_seconds: int) -> Snapshot:
        issued_at, expires_at = _whole(document, "issued_at"), _whole(document, "expires_at")
        begins_soon = issued_at <= now_seconds + _CLOCK_SKEW_SECONDS
        if not begins_soon or expires_at - issued_at > _MAX_LIFETIME_SECONDS or expires_at <= now_seconds:
            raise SnapshotRefused("snapshot outside of its time")
        jwks, revocations = document["jwks"], document.get("revocations", [])
        if not isinstance(jwks, dict) or not isinstance(revocations, list):
            raise SnapshotRefused("malformed snapshot: jwks or revocations of the wrong type")
        tools, prompts, resources = (
            pin_all(document.get(kind.member, []), kind) for kind in (TOOLS, PROMPTS, RESOURCES)
        )
        if not is_digest(document["manifest_digest"]):
            raise SnapshotRefused("malformed snapshot: manifest_digest is no digest")
        try:
            read = tuple(Revocation.read(revocation) for revocation in revocations)
        except ValueError as error:
            raise SnapshotRefused(f"malformed snapshot: {error}") from None
        return cls(
            version=_whole(document, "version"),
            expires_at=expires_at,
            issuer=_text(document, "issuer"),
            server_id=_text(document, "server_id"),
            resource=_text(document, "resource"),
            tenant=_text(document, "tenant"),
            manifest_digest=_text(document, "manifest_digest"),
            keys=KeySet.from_jwks(jwks),
            tools=tools,
            prompts=prompts,
            resources=resources,
            offers=Offers(tools, prompts, (entry for entry, pinned in resources.items() if pinned.enabled)),
            revocations=read,
        )

    def __repr__(self) -> str:
        return f"Snapshot(version={self.version}, resource={self.resource!r}, tools={len(self.tools)})"


def _signed_parts(signed: bytes | JsonValue) -> tuple[bytes, str]:
    try:
        document = parse_object(signed) if isinstance(signed, bytes) else signed
    except JsonRefused as refused:
        raise SnapshotRefused(f"malformed snapshot: {refused}") from None
    if isinstance(document, dict) and document.keys() == {"snapshot", "signature"}:
        text, signature = document["snapshot"], document["signature"]
        if isinstance(text, str) and isinstance(signature, str):
            return text.encode(), signature
    raise SnapshotRefused("malformed snapshot: not a signed snapshot")


def _whole(document: JsonObject, name: str) -> int:
    value = document[name]
    if type(value) is not int or value < 0:
        raise SnapshotRefused(f"malformed snapshot: {name} is no whole number")
    return value


def _text(document: JsonObject, name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise SnapshotRefused(f"malformed snapshot: {name} is no text")
    return value


_REQUIRED = {
    "version",
    "issued_at",
    "expires_at",
    "issuer",
    "server_id",
    "resource",
    "tenant",
    "manifest_digest",
    "jwks",
    "tools",
}
_CLOCK_SKEW_SECONDS = 60
_MAX_LIFETIME_SECONDS = 3600
_MAX_URI_BYTES = 2048
