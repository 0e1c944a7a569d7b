"""Prints the registry record of an example server: what a reviewer would approve.

    python record.py fastmcp_server > record.json

The tools are taken as the server lists them now, and pinned by their digests.
"""

import asyncio
import importlib
import json
import sys
from contextlib import AsyncExitStack

from deputize.call.digest import tool_digest
from deputize.listing import list_tools


async def main(module: str) -> None:
    example = importlib.import_module(module)
    async with AsyncExitStack() as stack:
        if hasattr(example, "server"):
            app = example.server.http_app(path="/mcp", stateless_http=True)
            await stack.enter_async_context(app.lifespan(app))
        else:
            app = example.create(None)
        scope = {"type": "http", "path": "/mcp", "headers": [(b"host", b"127.0.0.1")], "scheme": "http"}
        definitions = await list_tools(app, scope)
    record = {
        "id": module.removesuffix("_server"),
        "resource": example.URL,
        "tenant": "dev",
        "version": "1.0.0",
        "owner": "you@corp.example",
        "purpose": example.__doc__.partition(".")[0],
        "environment": "development",
        "data_class": "internal",
        "verifier": "guard",
        "tools": [
            {
                "tier": "low",
                "level": "L3",
                "effect": "write",
                "tool_digest": tool_digest(definition),
                "definition": definition,
                "example_arguments": example.ARGUMENTS,
            }
            for definition in definitions
        ],
    }
    json.dump(record, sys.stdout, indent=2)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
