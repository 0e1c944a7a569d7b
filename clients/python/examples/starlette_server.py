"""An MCP server of a few lines in Starlette, behind the middleware.

python record.py starlette_server > record.json
deputize dev --register record.json --ready-file ready.json
python starlette_server.py ready.json
python agent.py ready.json add_note '{"customer_id": "cus_17", "text": "called"}' http://127.0.0.1:8020/mcp
"""

import os
import sys
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from deputize import GuardSettings
from deputize.starlette import MiddlewareOptions, ToolCallMiddleware, verified_call

PORT = int(os.environ.get("PORT", "8020"))
URL = f"http://127.0.0.1:{PORT}/mcp"
ARGUMENTS = {"customer_id": "cus_17", "text": "called"}
TOOLS = [
    {
        "name": "add_note",
        "description": "Writes a note about a customer.",
        "inputSchema": {
            "type": "object",
            "properties": {"customer_id": {"type": "string"}, "text": {"type": "string", "maxLength": 1000}},
            "required": ["customer_id", "text"],
        },
    }
]


async def mcp(request: Request) -> Response:
    message = await request.json()
    if "id" not in message:
        return Response(status_code=202)
    method = message["method"]
    if method == "tools/list":
        result: dict[str, Any] = {"tools": TOOLS}
    elif method == "tools/call":
        call = verified_call(request)
        note = {**call.arguments, "by": call.user, "agent": call.agent}
        result = {"content": [{"type": "text", "text": "noted"}], "structuredContent": note}
    elif method == "initialize":
        info = {"name": "notes", "version": "1.0.0"}
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
    elif method == "ping":
        result = {}
    else:
        error = {"code": -32601, "message": "method not found"}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "error": error})
    return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})


def create(settings: GuardSettings | None) -> Starlette:
    """The app; without settings nothing stands before it, which is for `record.py` alone."""
    routes = [Route("/mcp", mcp, methods=["POST"]), Route("/healthz", lambda _: PlainTextResponse("ok"))]
    if settings is None:
        return Starlette(routes=routes)
    options = MiddlewareOptions(open_paths=("/healthz",))
    return Starlette(routes=routes, middleware=[Middleware(ToolCallMiddleware, settings=settings, options=options)])


if __name__ == "__main__":
    # In production: GuardSettings.from_env() or GuardSettings.from_file("guard.json")
    uvicorn.run(create(GuardSettings.from_ready_file(sys.argv[1], URL)), host="127.0.0.1", port=PORT)
