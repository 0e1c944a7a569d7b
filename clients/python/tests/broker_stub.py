"""A broker in a few lines, behind httpx2's mock transport: it says what it is told to say, and keeps what it heard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import httpx2

from deputize import AsyncClient, Client, ClientOptions, SigningKey
from guard_fixture import TestClock, digest_of

ISSUER = "https://deputize.example.com"
RESOURCE = "https://pay.example.com/mcp"
KEY = SigningKey.generate()


def metadata(**changes: Any) -> dict[str, Any]:
    return {
        "issuer": ISSUER,
        "token_endpoint": f"{ISSUER}/token",
        "introspection_endpoint": f"{ISSUER}/introspect",
        "revocation_endpoint": f"{ISSUER}/revoke",
        **changes,
    }


def granted(form: dict[str, str], **changes: Any) -> dict[str, Any]:
    """What the broker answers to an exchange that it allows."""
    asked = json.loads(form.get("authorization_details", "[]"))
    detail = {"type": "mcp_tool_call", **(asked[0] if asked else {})}
    if "identifier" in detail:
        detail["tool_digest"] = digest_of(detail["identifier"])
    if "arguments" in detail:
        detail |= {"call_digest": "x", "max_uses": 1}
    return {
        "access_token": f"token-{form['client_assertion'][-8:]}",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "DPoP",
        "expires_in": 60,
        "scope": "tool",
        "authorization_details": [detail],
        "transaction_id": "txn-1",
        "decision_id": "decision-1",
        **changes,
    }


@dataclass
class Broker:
    """Answers each request by `answer`, where it is set, else as an honest broker does."""

    answer: Callable[[httpx2.Request, dict[str, str]], httpx2.Response | None] = lambda _, __: None
    metadata: dict[str, Any] = field(default_factory=metadata)
    requests: list[httpx2.Request] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    clock: TestClock = field(default_factory=TestClock)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, json=self.metadata)
        form = dict(parse_qsl(request.content.decode(), strict_parsing=True))
        self.requests.append(request)
        self.forms.append(form)
        return self.answer(request, form) or httpx2.Response(200, json=granted(form))

    def options(self, **changes: Any) -> ClientOptions:
        return ClientOptions(clock=self.clock, **changes)

    def client(self, **options: Any) -> AsyncClient:
        http = httpx2.AsyncClient(transport=httpx2.MockTransport(self))
        return AsyncClient(ISSUER, "platform", KEY, self.options(**options), http)

    def sync_client(self, **options: Any) -> Client:
        http = httpx2.Client(transport=httpx2.MockTransport(self))
        return Client(ISSUER, "platform", KEY, self.options(**options), http)


def refusing(status: int, headers: dict[str, str] | None = None, **members: Any) -> Any:
    """An answer that refuses."""
    return lambda _, __: httpx2.Response(status, json=members, headers=headers)
