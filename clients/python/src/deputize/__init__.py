"""Tokens for exactly one tool call: exchange client, httpx authentication and server middleware for MCP.

An agent exchanges its user's token with `AsyncClient` or `Client`, or leaves that to `deputize.auth.ToolCallAuth`. A
server puts `deputize.asgi.ToolCallMiddleware` or `deputize.fastmcp.DeputizeProvider` in front of its tools.
"""

from .aws import AwsCredentials, CallCredentials, credentials_from_guard
from .call.claims import Level
from .call.keys import SigningKey
from .client import (
    AsyncClient,
    AwsRequest,
    Call,
    CallDigest,
    Client,
    ClientOptions,
    Constrained,
    DecryptionKey,
    ExchangeRequest,
    Listing,
    Tool,
    ToolToken,
)
from .errors import (
    AccessDeniedError,
    ApprovalPendingError,
    AwsCredentialsExpiredError,
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
    "AwsCredentials",
    "AwsCredentialsExpiredError",
    "AwsRequest",
    "Call",
    "CallCredentials",
    "CallDigest",
    "Client",
    "ClientOptions",
    "ConfigurationError",
    "Constrained",
    "DecryptionKey",
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
    "credentials_from_guard",
]
