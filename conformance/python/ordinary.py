"""The official Python MCP client with its own OAuth, knowing nothing of Deputize.

It finds the authorization server from the MCP server, registers itself there, sends its user to sign in, and calls.
Arguments: the server's URL, a certification authority, the user. Prints what came of it, as one JSON object.
"""

import asyncio
import json
import re
import ssl
import sys
from urllib.parse import parse_qs, urljoin, urlparse

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

CALLBACK = "http://127.0.0.1:53682/callback"


class Storage:
    """What a host application keeps for its user."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Browser:
    """As far as signing in at oidc-provider's own pages needs one."""

    def __init__(self, trusted: ssl.SSLContext, user: str) -> None:
        self.trusted, self.user = trusted, user
        self.asked: list[str] = []

    async def open(self, url: str) -> None:
        self.asked.append(url)

    async def come_back(self) -> AuthorizationCodeResult:
        at = self.asked[-1]
        async with httpx2.AsyncClient(verify=self.trusted) as http:
            for _ in range(20):
                if at.startswith(CALLBACK):
                    led = {name: values[0] for name, values in parse_qs(urlparse(at).query).items()}
                    return AuthorizationCodeResult(code=led["code"], state=led.get("state"), iss=led.get("iss"))
                response = await http.get(at)
                if response.status_code == 200:
                    found = re.search(r'name="prompt" value="(\w+)"', response.text)
                    assert found, response.text
                    form = {"prompt": found[1]}
                    if found[1] == "login":
                        form |= {"login": self.user, "password": "any"}
                    response = await http.post(at, data=form)
                at = urljoin(at, response.headers["location"])
        raise AssertionError(f"signing in leads nowhere: {at}")


async def main(url: str, authority: str, user: str) -> None:
    trusted = ssl.create_default_context(cafile=authority)
    storage, browser = Storage(), Browser(trusted, user)
    metadata = OAuthClientMetadata(
        client_name="An ordinary client",
        redirect_uris=[CALLBACK],
        token_endpoint_auth_method="none",
        grant_types=["authorization_code", "refresh_token"],
    )
    auth = OAuthClientProvider(url, metadata, storage, browser.open, browser.come_back)
    said: dict[str, object] = {}
    async with (
        httpx2.AsyncClient(auth=auth, verify=trusted, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        said["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        for name, arguments in [("echo", {"message": "hello"}), ("get-sum", {"a": 2, "b": 40})]:
            result = await client.call_tool(name, arguments)
            said[name] = [block.model_dump(mode="json") for block in result.content]
        try:
            await client.call_tool("get-tiny-image", {})
        except Exception as error:
            said["refused"] = str(error)
    said["sign_ins"] = len(browser.asked)
    said["client_id"] = storage.client.client_id if storage.client else None
    print(json.dumps(said))


asyncio.run(main(*sys.argv[1:]))
