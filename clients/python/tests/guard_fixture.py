"""A guard before a payment server, a broker's key, an agent's key, and fakes of the outside."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deputize.call.claims import TYP, ToolCallClaims
from deputize.call.digest import base64url, call_digest, prompt_digest, sha256, tool_digest
from deputize.call.dpop import NewProof, prove
from deputize.call.keys import KeySet, SigningKey
from deputize.call.offers import Offers
from deputize.guard import (
    SNAPSHOT_TYP,
    Guard,
    GuardSettings,
    IncomingCall,
    Redeemed,
    Refusal,
    Refused,
    Snapshot,
    VerifiedCall,
    VerifiedListing,
)

ISSUER = "https://deputize.example.com"
RESOURCE = "https://pay.example.com/mcp"
NOW = 1_800_000_000


@dataclass
class TestClock:
    """Time that passes when a test says so."""

    __test__ = False
    now: int = NOW
    up: float = 1000.0
    serial: Any = field(default_factory=itertools.count)

    def now_seconds(self) -> int:
        return self.now

    def uptime(self) -> float:
        return self.up

    def unique_id(self) -> str:
        return f"id-{next(self.serial)}"

    def advance(self, seconds: int) -> None:
        self.now += seconds
        self.up += seconds


@dataclass
class Outside:
    """Redeems in memory; says what it is told about the server."""

    redeemed: set[str] = field(default_factory=set)
    redemption: Redeemed | None = None
    admission: Refused | None = None

    async def redeem(self, token: str) -> Redeemed:
        if self.redemption is not None:
            return self.redemption
        if token in self.redeemed:
            return "already_used"
        self.redeemed.add(token)
        return "yes"

    async def admit(self, claims: ToolCallClaims) -> None:
        if self.admission is not None:
            raise self.admission


@dataclass
class Request:
    """One request in the making; every part can be changed before it is sent."""

    body: bytes
    method: str = "POST"
    headers: list[tuple[str, str]] = field(default_factory=lambda: [("Content-Type", "application/json")])
    certificate: str | None = None

    def header(self, name: str, value: str) -> None:
        self.headers.append((name, value))

    def replace(self, name: str, value: str) -> None:
        self.headers = [(each, old) for each, old in self.headers if each != name]
        self.header(name, value)


class Fixture:
    def __init__(self, **settings: Any) -> None:
        self.clock = TestClock(now=NOW - 1000, up=0.0)
        self.broker = SigningKey.generate()
        self.agent = SigningKey.generate()
        self.signer = SigningKey.generate()
        self.outside = Outside()
        self.settings = GuardSettings(
            issuer=ISSUER,
            resource=RESOURCE,
            public_url=RESOURCE,
            client_id="pay-guard",
            private_key=SigningKey.generate(),
            snapshot_keys=jwks_of(self.signer),
            **settings,
        )
        self.guard = self.new_guard()
        self.clock.advance(1000)
        self.guard.install(self.snapshot())
        self.guard.observe_tools(definitions())

    def new_guard(self) -> Guard:
        return Guard(self.settings, self.outside, admission=self.outside, clock=self.clock)

    def document(self, **changes: Any) -> dict[str, Any]:
        tools = [
            {"definition": definition, "tool_digest": tool_digest(definition), "least_level": level, "tier": "low"}
            for definition, level in zip(definitions(), ["L1", "L2", "L3"], strict=True)
        ]
        return {
            "version": 1,
            "issued_at": NOW - 10,
            "expires_at": NOW + 1800,
            "issuer": ISSUER,
            "server_id": "pay",
            "resource": RESOURCE,
            "tenant": "acme",
            "manifest_digest": sha256("manifest"),
            "jwks": {"keys": [{**self.broker.public.jwk, "kid": self.broker.kid}]},
            "tools": tools,
            "revocations": [],
            **changes,
        }

    def snapshot(self, **changes: Any) -> Snapshot:
        return Snapshot.read(json.dumps(self.document(**changes)).encode(), self.clock.now)

    def sign_snapshot(
        self, document: dict[str, Any], signer: SigningKey | None = None, typ: str = SNAPSHOT_TYP, **claims: Any
    ) -> dict[str, Any]:
        text = json.dumps(document)
        said = {
            "iss": document["issuer"],
            "aud": document["resource"],
            "iat": document["issued_at"],
            "exp": document["expires_at"],
            "sha256": sha256(text),
            **claims,
        }
        return {"snapshot": text, "signature": (signer or self.signer).sign(typ, said)}

    def claims(self, detail: dict[str, Any], **changes: Any) -> dict[str, Any]:
        serial = next(self.clock.serial)
        return {
            "iss": ISSUER,
            "sub": "user:acme:x:alice",
            "tenant": "acme",
            "aud": RESOURCE,
            "client_id": "platform",
            "iat": self.clock.now,
            "nbf": self.clock.now,
            "exp": self.clock.now + 60,
            "jti": f"token-{serial}",
            "scope": "tool",
            "cnf": {"jkt": self.agent.public.thumbprint},
            "act": {"sub": "agent:support", "act": {"sub": "agent:planner"}},
            "txn": f"txn-{serial}",
            "pjti": f"parent-{serial}",
            "authorization_details": [copy.deepcopy(detail)],
            "log": {"origin": "replica-1", "index": serial},
            **changes,
        }

    def sign(self, claims: dict[str, Any], typ: str = TYP) -> str:
        return self.broker.sign(typ, claims)

    def token(self, detail: dict[str, Any], **changes: Any) -> str:
        return self.sign(self.claims(detail, **changes))

    def proof(self, token: str | None, key: SigningKey | None = None, **changes: Any) -> str:
        said: dict[str, Any] = {
            "htm": "POST",
            "htu": RESOURCE,
            "jti": f"proof-{next(self.clock.serial)}",
            "iat": self.clock.now,
            "access_token": token,
            **changes,
        }
        if "nonce" not in said:
            said["nonce"] = self.guard._possession.next_nonce()
        return prove(key or self.agent, NewProof(**said))

    def request(self, token: str, body: Any) -> Request:
        """The request of an honest agent."""
        request = Request(body if isinstance(body, bytes) else json.dumps(body).encode())
        request.header("Authorization", f"DPoP {token}")
        request.header("DPoP", self.proof(token))
        return request

    async def send(self, request: Request) -> VerifiedCall | VerifiedListing:
        call = IncomingCall(request.method, tuple(request.headers), request.body, request.certificate)
        return await self.guard.verify(call)

    async def with_grant(self, detail: dict[str, Any], body: Any, **claims: Any) -> VerifiedCall | VerifiedListing:
        """Sends `body` with a fresh token of this grant."""
        return await self.send(self.request(self.token(detail, **claims), body))

    async def refused(self, request: Request) -> Refusal:
        """The refusal of a request that must be refused."""
        return await refusal_of(self.send(request))

    async def lookup(self, change: Callable[[str, Request], None] = lambda _, __: None) -> VerifiedCall:
        """An honest call of `lookup`, but for the change."""
        token = self.token(l1("lookup"))
        request = self.request(token, call("lookup", {"payment_id": "p"}))
        change(token, request)
        return as_call(await self.send(request))


def as_call(verified: VerifiedCall | VerifiedListing) -> VerifiedCall:
    assert isinstance(verified, VerifiedCall)
    return verified


async def refusal_of(verification: Any) -> Refusal:
    try:
        passed = await verification
    except Refusal as refusal:
        return refusal
    raise AssertionError(f"passed: {passed}")


def jwks_of(key: SigningKey) -> KeySet:
    return KeySet.from_jwks({"keys": [{**key.public.jwk, "kid": key.kid}]})


def definitions() -> list[dict[str, Any]]:
    """`lookup` (L1), `transfer` (L2), `refund` (L3)."""
    properties = {
        "payment_id": {"type": "string", "x-mcp-header": "Payment"},
        "amount_cents": {"type": "number"},
        "note": {"type": "string"},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {}, "n": {}}}},
    }
    return [
        {"name": name, "description": name, "inputSchema": {"type": "object", "properties": copy.deepcopy(properties)}}
        for name in ("lookup", "transfer", "refund")
    ]


def digest_of(name: str) -> str:
    return next(tool_digest(definition) for definition in definitions() if definition["name"] == name)


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def listing(method: str = "tools/list") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "a", "method": method}


def l0(
    tools: Any = ("lookup", "refund", "transfer"), prompts: Any = (), resources: Any = (), hidden: Any = ()
) -> dict[str, Any]:
    """A token that looks, and shows all of these offers but the hidden ones."""
    offers = [*sorted(tools), *sorted(prompts), *sorted(resources)]
    number = sum(1 << at for at, name in enumerate(offers) if name not in hidden)
    bits = number.to_bytes(len(offers) // 8 + 1, "little").rstrip(b"\0")
    shown = {"of": Offers(tools, prompts, resources).digest, "bits": base64url(bits)}
    return {**granted(), "actions": ["tools/list"], "shown": shown}


def granted() -> dict[str, Any]:
    return {
        "type": "mcp_tool_call",
        "locations": [RESOURCE],
        "manifest_digest": sha256("manifest"),
        "policy": {"digest": "p", "ids": []},
    }


def l1(name: str, **changes: Any) -> dict[str, Any]:
    return {**granted(), "actions": ["tools/call"], "identifier": name, "tool_digest": digest_of(name), **changes}


PROMPTS: list[dict[str, Any]] = [
    {"name": "greet", "description": "Greets.", "arguments": [{"name": "city", "required": True}, {"name": "mood"}]},
    {"name": "vault", "description": "Opens."},
]
RESOURCES: list[dict[str, Any]] = [
    {"uri": "demo://docs/*", "name": "Documents", "description": "Of the demo"},
    {"uri": "demo://docs/drafts/*", "name": "Drafts"},
    {"uri": "demo://vault/*", "name": "Vault"},
]
OFFERED = (["lookup", "refund", "transfer"], ["greet", "vault"], ["demo://docs/*", "demo://vault/*"])


def material() -> dict[str, Any]:
    """Members of a snapshot's document: two prompts, and resources of which the drafts are switched off."""
    return {
        "prompts": [
            {"definition": each, "prompt_digest": prompt_digest(each), "least_level": "L1", "tier": "low"}
            for each in PROMPTS
        ],
        "resources": [
            {"shown": each, "least_level": "L1", "tier": "low", "enabled": "drafts" not in each["uri"]}
            for each in RESOURCES
        ],
    }


def prompt_token(name: str, **changes: Any) -> dict[str, Any]:
    digest = next(prompt_digest(each) for each in PROMPTS if each["name"] == name)
    return {**granted(), "actions": ["prompts/get"], "identifier": name, "prompt_digest": digest, **changes}


def read_token(uri: str, **changes: Any) -> dict[str, Any]:
    return {**granted(), "actions": ["resources/read"], "identifier": uri, **changes}


def get(name: str, arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": name, "arguments": arguments}}


def read(uri: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}


def l2(name: str, constraints: Any, max_uses: int = 1) -> dict[str, Any]:
    return l1(name, constraints=constraints, max_uses=max_uses)


def l3(name: str, arguments: Any) -> dict[str, Any]:
    return l1(name, call_digest=call_digest("tools/call", name, arguments), max_uses=1)
