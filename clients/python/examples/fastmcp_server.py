"""A FastMCP server that runs a tool only for the call that a token was made for.

python record.py fastmcp_server > record.json
deputize dev --register record.json --ready-file ready.json
python fastmcp_server.py ready.json
python agent.py ready.json add_note '{"customer_id": "cus_17", "text": "called"}' http://127.0.0.1:8020/mcp
"""

import os
import sys

from fastmcp import FastMCP

from deputize import GuardSettings
from deputize.fastmcp import DeputizeProvider, current_call

PORT = int(os.environ.get("PORT", "8020"))
URL = f"http://127.0.0.1:{PORT}/mcp"
ARGUMENTS = {"customer_id": "cus_17", "text": "called"}

server = FastMCP("notes")


@server.tool
def add_note(customer_id: str, text: str) -> dict[str, str | None]:
    """Writes a note about a customer."""
    call = current_call()
    return {"customer_id": customer_id, "text": text, "by": call.user, "agent": call.agent}


if __name__ == "__main__":
    # In production: GuardSettings.from_env() or GuardSettings.from_file("guard.json")
    server.auth = DeputizeProvider(GuardSettings.from_ready_file(sys.argv[1], URL))
    server.run(transport="http", host="127.0.0.1", port=PORT, path="/mcp", show_banner=False)
