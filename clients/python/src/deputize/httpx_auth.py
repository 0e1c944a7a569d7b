"""Authentication for httpx: as `deputize.auth`, for MCP clients and agent frameworks that have not moved to httpx2."""

from __future__ import annotations

import httpx

from .calling import Calling, CallingOptions, SubjectToken


class ToolCallAuth(Calling, httpx.Auth):
    """As `deputize.auth.ToolCallAuth`, for `httpx.AsyncClient` and `httpx.Client`."""


__all__ = ["CallingOptions", "SubjectToken", "ToolCallAuth"]
