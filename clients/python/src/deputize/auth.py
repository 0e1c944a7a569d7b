"""Authentication for httpx2, the HTTP client of the official MCP SDK: each tool call gets a token for itself."""

from __future__ import annotations

import httpx2

from .calling import Calling, CallingOptions, SubjectToken


class ToolCallAuth(Calling, httpx2.Auth):
    """Gives each `tools/call` a token for exactly this call, out of its body, and all else one that only looks.

    Every request carries a proof (RFC 9449), and a server's nonce is answered with one retry. What the server lists is
    digested, and a tool that is not what was approved is not called. A call that the broker refuses raises its
    `ExchangeError`; `deputize.mcp.http_client` turns that into an error result of the one call.

    Args:
        client: Exchanges the tokens: an `AsyncClient` for `httpx2.AsyncClient`, a `Client` for `httpx2.Client`.
        resource: The MCP server's resource URI.
        subject_token: The token of the user in whose name calls are made.
        options: What has a good default.
    """


__all__ = ["CallingOptions", "SubjectToken", "ToolCallAuth"]
