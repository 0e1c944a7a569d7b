"""Where the broker's endpoints are (RFC 8414)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from deputize.errors import ProtocolError
from deputize.urls import is_safe_url

from .answer import Received


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints that a client uses."""

    token: str
    introspection: str
    revocation: str
    redemption: str


def metadata_url(issuer: str) -> str:
    """RFC 8414 §3.1: the well-known path comes between the host and the issuer's own path."""
    parts = urlsplit(issuer)
    path = "/.well-known/oauth-authorization-server" + parts.path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def read_endpoints(received: Received, issuer: str) -> Endpoints:
    """Read and check the metadata of an issuer.

    Raises:
        ProtocolError: where they are another's, or name an endpoint that is not safe.
    """
    if received.status != 200:
        raise ProtocolError("the broker has no metadata")
    metadata = received.members()
    # RFC 8414 §3.3: identical to the issuer that was asked.
    if metadata.get("issuer") != issuer:
        raise ProtocolError("the metadata is of another issuer")
    base = issuer.rstrip("/")
    urls = [
        metadata.get(f"{name}_endpoint", f"{base}/{path}")
        for name, path in (
            ("token", "token"),
            ("introspection", "introspect"),
            ("revocation", "revoke"),
            ("redemption", "redeem"),
        )
    ]
    if not all(isinstance(url, str) and is_safe_url(url) for url in urls):
        raise ProtocolError("an endpoint in the metadata is not https")
    return Endpoints(*map(str, urls))
