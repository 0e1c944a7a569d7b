r"""An MCP server whose database knows for whom it runs each statement.

It knows nothing of Deputize but two headers of its guard: a secret, and the call's token. User, agent and transaction
of the token become `application_name`: PostgreSQL shows it in `pg_stat_activity` and, with `%a` in `log_line_prefix`,
in each line of its log. `deputize audit query --txn` takes the transaction.

python record.py postgres_server > record.json
deputize dev --register record.json --ready-file ready.json
deputize guard --from-dev ready.json --public-url http://127.0.0.1:8020/mcp --upstream http://127.0.0.1:8021/mcp \
    --env PORT=8021 --env DATABASE_URL=postgresql://127.0.0.1/notes -- python postgres_server.py
python agent.py ready.json add_note '{"customer_id": "cus_17", "text": "called"}' http://127.0.0.1:8020/mcp
"""

import base64
import hmac
import json
import os
from typing import Any

import psycopg
import uvicorn
from fastmcp import FastMCP
from fastmcp.server.dependencies import get_http_headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

URL = "http://127.0.0.1:8020/mcp"  # where the guard is
MOST_BYTES = 63  # of an application_name; PostgreSQL cuts what is longer

server = FastMCP("notes")


@server.tool
def add_note(customer_id: str, text: str) -> dict[str, str]:
    """Writes a note about a customer."""
    claims = call_claims(get_http_headers()["deputize-call"])
    # Everything that came from outside is a parameter, never a part of a statement or of the connection's address.
    with psycopg.connect(os.environ["DATABASE_URL"], application_name=application_name(claims)) as connection:
        # Whole, for triggers and row-level security: current_setting('deputize.user').
        for name, value in [("deputize.user", claims["sub"]), ("deputize.agent", agent(claims))]:
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        connection.execute("CREATE TABLE IF NOT EXISTS notes (customer_id text, note text, written_by text)")
        connection.execute(
            "INSERT INTO notes VALUES (%s, %s, current_setting('deputize.user'))",
            (customer_id, text),
        )
    return {"customer_id": customer_id, "text": text}


def call_claims(token: str) -> dict[str, Any]:
    """What the token says. The guard has verified it, and nobody but the guard comes this far."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def agent(claims: dict[str, Any]) -> str:
    """Who acts for the user; a client that acts for itself is its own agent."""
    return str(claims.get("act", {}).get("sub", claims["client_id"]))


def application_name(claims: dict[str, Any]) -> str:
    """`TRANSACTION USER/AGENT`. The transaction is whole; of the names there is as much as fits."""
    user = visible(claims["sub"].rsplit(":", 1)[-1])
    acting = visible(agent(claims).rsplit("/", 1)[-1])
    transaction = visible(claims["txn"])[:MOST_BYTES]
    room = max(MOST_BYTES - len(transaction) - 2, 0)
    for_user = max(room - len(acting), room // 2)
    user = user[:for_user]
    return f"{transaction} {user}/{acting[: room - len(user)]}"[:MOST_BYTES]


def visible(text: str) -> str:
    """PostgreSQL takes printable ASCII; the space and the slash stand between the names."""
    return "".join(c if "!" <= c <= "~" and c != "/" else "?" for c in text)


class GuardAlone:
    """Lets nobody in but the guard, which has told this process a secret at its start."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self.app = app
        self.secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 401 to everybody else."""
        told = dict(scope.get("headers", [])).get(b"deputize-guard", b"")
        if scope["type"] == "http" and not hmac.compare_digest(told, self.secret):
            await PlainTextResponse("only a guard calls this server", 401)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


if __name__ == "__main__":
    alone = Middleware(GuardAlone, secret=os.environ.pop("DEPUTIZE_GUARD_SECRET"))
    app = server.http_app(path="/mcp", stateless_http=True, middleware=[alone])
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
