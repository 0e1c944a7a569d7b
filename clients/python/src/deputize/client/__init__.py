"""Exchange a user's token for tool-call tokens (RFC 8693)."""

from .answer import Redemption
from .aws import AwsRequest
from .clients import AsyncClient, Client
from .conversation import ClientOptions
from .request import Action, Call, CallDigest, Constrained, Detail, ExchangeRequest, Listing, TokenType, Tool
from .sealed import DecryptionKey
from .token import ToolToken

__all__ = [
    "Action",
    "AsyncClient",
    "AwsRequest",
    "Call",
    "CallDigest",
    "Client",
    "ClientOptions",
    "Constrained",
    "DecryptionKey",
    "Detail",
    "ExchangeRequest",
    "Listing",
    "Redemption",
    "TokenType",
    "Tool",
    "ToolToken",
]
