"""A FastMCP server that knows nothing of Deputize: over stdin and stdout, or over HTTP at the port that it is told."""

import sys

from fastmcp import FastMCP

server = FastMCP("notes")


@server.tool
def add_note(customer_id: str, text: str) -> dict[str, str]:
    """Writes a note about a customer."""
    return {"customer_id": customer_id, "text": text}


@server.tool
def forget_everything() -> str:
    """Throws all notes away."""
    return "gone"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), path="/mcp", show_banner=False)
    else:
        server.run(show_banner=False)
