"""Tokens for exactly one tool call: exchange client, httpx authentication and server middleware for MCP.

An agent exchanges its user's token with `AsyncClient` or `Client`, or leaves that to `deputize.auth.ToolCallAuth`. A
server puts `deputize.asgi.ToolCallMiddleware` or `deputize.fastmcp.DeputizeProvider` in front of its tools.
"""

from .call.claims import Level
from .call.keys import SigningKey
from .client import (
    AsyncClient,
    Call,
    CallDigest,
    Client,
    ClientOptions,
    Constrained,
    ExchangeRequest,
    Listing,
    Tool,
    ToolToken,
)
from .errors import (
    AccessDeniedError,
    ApprovalPendingError,
    ConfigurationError,
    DeputizeError,
    ExchangeError,
    ProtocolError,
    RetryLaterError,
    SignInRequiredError,
    ToolChangedError,
    UnreachableError,
    UnsafeRequestError,
)
from .guard import Guard, GuardSettings, SettingsError, VerifiedCall

__all__ = [
    "AccessDeniedError",
    "ApprovalPendingError",
    "AsyncClient",
    "Call",
    "CallDigest",
    "Client",
    "ClientOptions",
    "ConfigurationError",
    "Constrained",
    "DeputizeError",
    "ExchangeError",
    "ExchangeRequest",
    "Guard",
    "GuardSettings",
    "Level",
    "Listing",
    "ProtocolError",
    "RetryLaterError",
    "SettingsError",
    "SignInRequiredError",
    "SigningKey",
    "Tool",
    "ToolChangedError",
    "ToolToken",
    "UnreachableError",
    "UnsafeRequestError",
    "VerifiedCall",
]
