"""Exchange a user's token for tool-call tokens (RFC 8693)."""

from .answer import Redemption
from .clients import AsyncClient, Client
from .conversation import ClientOptions
from .request import Action, Call, CallDigest, Constrained, Detail, ExchangeRequest, Listing, TokenType, Tool
from .token import ToolToken

__all__ = [
    "Action",
    "AsyncClient",
    "Call",
    "CallDigest",
    "Client",
    "ClientOptions",
    "Constrained",
    "Detail",
    "ExchangeRequest",
    "Listing",
    "Redemption",
    "TokenType",
    "Tool",
    "ToolToken",
]
