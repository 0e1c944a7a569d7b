"""For Starlette and FastAPI: who calls, in a handler.

```python
app = Starlette(routes=[…], middleware=[Middleware(ToolCallMiddleware, settings=GuardSettings.from_env())])

async def handler(request: Request) -> Response:
    call = verified_call(request)
```

In FastAPI it is a dependency: `call: Annotated[VerifiedCall, Depends(verified_call)]`.
"""

from __future__ import annotations

from starlette.requests import Request

from .asgi import LISTING_KEY, STATE_KEY, Limits, MiddlewareOptions, ToolCallMiddleware
from .guard import Verified, VerifiedCall, VerifiedListing, VerifiedResponse, VerifiedStream


def verified_call(request: Request) -> VerifiedCall:
    """The call that this request is.

    Raises:
        LookupError: where it is none, for example because it only lists.
    """
    call = request.scope.get("state", {}).get(STATE_KEY)
    if not isinstance(call, VerifiedCall):
        msg = "this request is no verified call: is ToolCallMiddleware in front, and the path not open?"
        raise LookupError(msg)
    return call


def verified(request: Request) -> Verified:
    """What this request is: a call, or one that only looks, answers or listens.

    Raises:
        LookupError: where it is neither.
    """
    other = request.scope.get("state", {}).get(LISTING_KEY)
    is_other = isinstance(other, VerifiedListing | VerifiedResponse | VerifiedStream)
    return other if is_other else verified_call(request)


__all__ = ["Limits", "MiddlewareOptions", "ToolCallMiddleware", "verified", "verified_call"]
