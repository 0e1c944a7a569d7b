"""What a guard lets through: there is no other way to the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from deputize.aws.credentials import CallCredentials, Kept, credentials_of
from deputize.call.claims import Level, ToolCallClaims
from deputize.call.strict_json import JsonObject
from deputize.errors import ConfigurationError

from .headers import encode_value

if TYPE_CHECKING:
    import boto3


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedCall:
    """One call of one tool that may run, once; or one prompt, or one resource, to be given."""

    claims: ToolCallClaims
    """The token's claims: person, actors, transaction."""
    token: str
    """The token: spent or bound, so useless to a thief. Bring it back to the broker for a next hop."""
    action: str
    """`tools/call`, `prompts/get` or `resources/read`."""
    name: str
    """Name of the tool or prompt; URI of the resource, verbatim."""
    arguments: JsonObject
    """The arguments that were verified."""
    call_digest: str
    """Digest of this call, at every level."""
    rebuilt_body: bytes
    """The body to forward, serialized from what was verified."""
    next_nonce: str
    """`DPoP-Nonce` of the answer (RFC 9449 §8.2)."""
    mirrored: tuple[tuple[str, str], ...] = ()
    """The `Mcp-Param-*` fields that go with it, from the approved schema and the verified arguments."""
    aws: Kept | None = field(default=None, compare=False)
    """Where `aws_credentials` come from."""

    def aws_credentials(self) -> CallCredentials:
        """AWS credentials for the one resource in this call: asked for at their first use, kept until they end.

        With botocore installed (`deputize[aws]`) they are one of its `RefreshableCredentials` too.

        Raises:
            ConfigurationError: where this is no call of a tool, or nothing here asks a broker.
        """
        if self.action != "tools/call":
            raise ConfigurationError("AWS credentials are for calls of tools alone", "offer what needs them as a tool")
        if self.aws is None:
            raise ConfigurationError("this call has no way to the broker", "put ToolCallMiddleware before the server")
        return credentials_of(self.aws)

    def boto3_session(self, region_name: str | None = None) -> boto3.Session:
        """A session of boto3 with the credentials of this call, which looks for none anywhere else.

        Args:
            region_name: The region; by default that of `AWS_DEFAULT_REGION`.

        Raises:
            ConfigurationError: as `aws_credentials`, and where boto3 is not installed.
        """
        return self.aws_credentials().boto3_session(region_name)

    @property
    def tool(self) -> str | None:
        """Name of the tool, if it is one that is called."""
        return self.name if self.action == "tools/call" else None

    @property
    def user(self) -> str:
        """The person in whose name the call runs."""
        return self.claims.sub

    @property
    def agent(self) -> str | None:
        """Who acts for the person now."""
        return next(self.claims.actors(), None)

    @property
    def transaction(self) -> str:
        """Constant through every hop of the transaction."""
        return self.claims.txn

    @property
    def level(self) -> Level:
        """The binding level of the token."""
        return self.claims.level

    def forwarded_headers(self) -> list[tuple[str, str]]:
        """The header fields that go with the body. None of the request's own `Authorization` or `DPoP` may follow."""
        return [
            ("content-type", "application/json"),
            ("mcp-method", self.action),
            ("mcp-name", encode_value(self.name)),
            ("deputize-call", self.token),
            *self.mirrored,
        ]

    def __repr__(self) -> str:
        # Arguments and tokens stay out of logs.
        return f"VerifiedCall(jti={self.claims.jti!r}, action={self.action!r}, name={self.name!r})"


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedListing:
    """A request that only looks: its result is still to be filtered to approved tools."""

    claims: ToolCallClaims
    method: str
    rebuilt_body: bytes
    next_nonce: str

    def forwarded_headers(self) -> list[tuple[str, str]]:
        """The header fields that go with the body."""
        return [("content-type", "application/json"), ("mcp-method", self.method)]

    def __repr__(self) -> str:
        return f"VerifiedListing(jti={self.claims.jti!r}, method={self.method!r})"


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedResponse:
    """The client's answer to what the server asked. It may go only into the session in which the server asked that."""

    claims: ToolCallClaims
    id: str | int
    """The id of the server's request."""
    rebuilt_body: bytes
    next_nonce: str

    def forwarded_headers(self) -> list[tuple[str, str]]:
        """The header fields that go with the body."""
        return [("content-type", "application/json")]

    def __repr__(self) -> str:
        return f"VerifiedResponse(jti={self.claims.jti!r})"


@dataclass(frozen=True, slots=True, repr=False)
class VerifiedStream:
    """A request to listen to the server's messages (`GET`), or to end a session (`DELETE`): it has no body."""

    claims: ToolCallClaims
    next_nonce: str
    rebuilt_body: bytes = b""

    def forwarded_headers(self) -> list[tuple[str, str]]:
        """None of its own."""
        return []

    def __repr__(self) -> str:
        return f"VerifiedStream(jti={self.claims.jti!r})"


Verified: TypeAlias = VerifiedCall | VerifiedListing | VerifiedResponse | VerifiedStream
"""What a guard lets through."""
