"""The client certificate that a token may be bound to (RFC 8705 §3)."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from .call.digest import base64url
from .guard import IncomingCall, Refused


def of_connection(scope: Mapping[str, Any]) -> str | None:
    """Thumbprint (`x5t#S256`) of the certificate that the client proved in TLS, where the server tells (ASGI TLS)."""
    extensions = scope.get("extensions") or {}
    tls = extensions.get("tls") or {}
    chain = tls.get("client_cert_chain") or ()
    if not chain or tls.get("client_cert_error") is not None:
        return None
    return _thumbprint_of_pem(chain[0])


def of_header(call: IncomingCall, name: str) -> str | None:
    """Thumbprint of the certificate in a header that a trusted proxy sets.

    As `Client-Cert` of RFC 9440 (base64 between colons), or percent-encoded PEM, as nginx writes it.

    Raises:
        Refused: for what is neither.
    """
    value = call.single(name)
    if not value:
        return None
    try:
        if len(value) > len("::") and value.startswith(":") and value.endswith(":"):
            return _thumbprint(base64.b64decode(value[1:-1], validate=True))
        return _thumbprint_of_pem(unquote(value, errors="strict"))
    except ValueError:
        raise Refused("header_mismatch", "client certificate") from None


def _thumbprint_of_pem(pem: str) -> str:
    return _thumbprint(ssl.PEM_cert_to_DER_cert(pem))


def _thumbprint(der: bytes) -> str:
    return base64url(hashlib.sha256(der).digest())
