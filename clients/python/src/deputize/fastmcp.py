"""For FastMCP: the guard as its authentication.

```python
from deputize.fastmcp import DeputizeProvider, current_call
mcp = FastMCP("crm", auth=DeputizeProvider(GuardSettings.from_env()))
mcp.run(transport="http")
```
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from fastmcp.server.auth import AccessToken, AuthProvider
from fastmcp.server.dependencies import get_http_request
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from starlette.authentication import AuthCredentials
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import asgi
from .asgi import LISTING_KEY, STATE_KEY, MiddlewareOptions, ToolCallMiddleware, metadata
from .carried import without_claims
from .guard import GuardSettings, Verified, VerifiedCall
from .listing import LOOK_KEY


def current_call() -> VerifiedCall:
    """The call that is running, in a tool of FastMCP.

    Raises:
        LookupError: where none is.
    """
    try:
        call = get_http_request().scope.get("state", {}).get(STATE_KEY)
    except RuntimeError:
        call = None
    return call if isinstance(call, VerifiedCall) else asgi.current_call()


class DeputizeProvider(AuthProvider):
    """Authentication of a FastMCP server: every request to its MCP endpoint past the guard.

    Tools read who calls from `current_call()`, or from FastMCP's own `get_access_token()`, whose `claims` are the
    token's. Custom routes of the server stay open, as FastMCP has it.
    """

    def __init__(self, settings: GuardSettings, options: MiddlewareOptions | None = None) -> None:
        parts = urlsplit(settings.public_url)
        super().__init__(base_url=f"{parts.scheme}://{parts.netloc}")
        self.settings = settings
        self.options = options or MiddlewareOptions()

    async def verify_token(self, token: str) -> AccessToken | None:  # noqa: ARG002
        """No token is good by itself: what counts is the call that it comes with, which the middleware looks at."""
        return None

    def get_middleware(self) -> list[Middleware]:
        """The guard, and after it the user, as FastMCP expects them."""
        return [Middleware(_GuardedEndpoint, provider=self)]

    def get_routes(self, mcp_path: str | None = None) -> list[Route]:
        """Protected resource metadata (RFC 9728)."""
        self.set_mcp_path(mcp_path)

        async def serve(_: Request) -> Response:
            return JSONResponse(metadata(self.settings))

        return [Route(urlsplit(self.settings.resource_metadata).path, serve, methods=["GET"])]


class _GuardedEndpoint:
    """The guard for the MCP endpoint; everything else goes on as nobody, and so not to the MCP endpoint."""

    def __init__(self, app: ASGIApp, provider: DeputizeProvider) -> None:
        self._app = app
        users = _Users(AuthContextMiddleware(app), provider.settings)
        self._guarded = _Guarded(users, provider.settings, replace(provider.options, open_paths=()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._guarded.is_endpoint(scope)):
            await self._guarded(scope, receive, send)
        else:
            # INVARIANT: without a user FastMCP's own check lets nobody to its endpoint.
            scope.pop("user", None)
            is_http = scope["type"] == "http"
            if is_http:
                scope = {**scope, "headers": without_claims(scope["headers"])}
            await self._app(scope, receive, send)


class _Guarded(ToolCallMiddleware):
    def endpoint(self, scope: Scope) -> str:
        """Wherever the app is mounted, it knows where its endpoint is."""
        return str(scope.get("root_path", "")) + str(scope["app"].state.path)


class _Users:
    """Says who was verified in FastMCP's terms."""

    def __init__(self, app: ASGIApp, settings: GuardSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.get("state", {})
            verified = state.get(STATE_KEY) or state.get(LISTING_KEY)
            if state.get(LOOK_KEY) is True:
                token = AccessToken(token="", client_id=self._settings.client_id, scopes=[])
            else:
                token = _access_token(verified, self._settings)
            scope["user"] = AuthenticatedUser(token)
            scope["auth"] = AuthCredentials(token.scopes)
            # FastMCP looks whether there is such a header; the token itself stays in `Deputize-Call`.
            scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer verified")]
        await self._app(scope, receive, send)


def _access_token(verified: Verified | None, settings: GuardSettings) -> AccessToken:
    if verified is None:
        raise RuntimeError("a request came past the guard")
    claims = verified.claims
    said: dict[str, Any] = {
        "iss": claims.iss,
        "sub": claims.sub,
        "aud": claims.aud,
        "tenant": claims.tenant,
        "txn": claims.txn,
        "jti": claims.jti,
        "actors": list(claims.actors()),
    }
    return AccessToken(
        token=verified.token if isinstance(verified, VerifiedCall) else "",
        client_id=claims.client_id,
        scopes=claims.scope.split(),
        expires_at=claims.exp,
        resource=settings.resource,
        subject=claims.sub,
        claims=said,
    )
