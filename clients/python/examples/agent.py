"""An agent that calls one tool in alice's name, with the official MCP client.

deputize dev --ready-file ready.json
python agent.py ready.json
python agent.py ready.json refund_payment '{"payment_id": "pay_81", "amount_cents": 100}'
python agent.py ready.json add_note '{"customer_id": "cus_17", "text": "called"}' http://127.0.0.1:8020/mcp
"""

import asyncio
import json
import sys
from pathlib import Path

from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from deputize import AsyncClient, SigningKey
from deputize.auth import ToolCallAuth
from deputize.mcp import http_client


async def main(ready_file: str, tool: str | None = None, arguments: str | None = None, url: str | None = None) -> int:
    ready = json.loads(Path(ready_file).read_text())
    platform, crm = ready["client"], ready["servers"][0]
    resource = url or crm["resource"]
    example = crm["tools"][0]

    # Where an agent of yours keeps its own key, and gets its user's token when they sign in.
    key = SigningKey.from_jwk(platform["private_jwk"])
    async with AsyncClient(ready["issuer"], platform["client_id"], key) as deputize:
        auth = ToolCallAuth(deputize, resource, ready["user_tokens"]["alice"])

        # From here on there is nothing of Deputize: an MCP client with an HTTP client.
        async with http_client(auth) as http, Client(streamable_http_client(resource, http_client=http)) as mcp:
            print("tools:", ", ".join(tool.name for tool in (await mcp.list_tools()).tools))
            try:
                result = await mcp.call_tool(
                    tool or example["name"], json.loads(arguments) if arguments else example["example_arguments"]
                )
            except MCPError as refused:
                print(f"refused: {refused.error.message}", file=sys.stderr)
                return 3
            print(json.dumps(result.structured_content, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
