"""The catalogue of what must be refused (`conformance/hostile.toml`), as far as it is about guards, at the middleware.

After each case: the answers are those of the catalogue, nothing ran but what was granted, the next honest call does.
"""

from __future__ import annotations

import asyncio
import copy
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tomllib

from deputize.asgi import MiddlewareOptions, ToolCallMiddleware
from deputize.guard import Revocation
from deputize.guard import link as link_module
from dev import ROOT
from guard_broker import GuardBroker, until
from guard_fixture import (
    OFFERED,
    Fixture,
    call,
    definitions,
    get,
    l0,
    l1,
    l3,
    material,
    prompt_token,
    read,
    read_token,
)
from session_server import LIST, SessionServer, World
from wire import Wire

REFUND = {"payment_id": "pay_81", "amount_cents": 4200}
GOOD = json.dumps(call("refund", REFUND)).encode()
RESOURCE_OF_ANOTHER = "https://crm.example.com/mcp"

Case = Callable[[World], Awaitable[list[Wire]]]
CASES: dict[str, Case] = {}


def case(number: str) -> Callable[[Case], Case]:
    def register(run: Case) -> Case:
        assert number not in CASES, number
        CASES[number] = run
        return run

    return register


CATALOGUE = tomllib.loads((ROOT / "conformance" / "hostile.toml").read_text())
LISTED = {
    each["id"]: each["answer"]
    for each in CATALOGUE["case"]
    if each["id"].startswith(("H-30", "H-31", "H-32", "H-33", "H-34"))
}
NOT_HERE = {
    each["id"]: each["python"]
    for each in tomllib.loads((ROOT / "conformance" / "not_in_middleware.toml").read_text())["case"]
    if "python" in each
}


def test_each_case_has_its_test_or_a_reason() -> None:
    assert set(LISTED) == set(CASES) | set(NOT_HERE)
    assert not set(CASES) & set(NOT_HERE)


@pytest.mark.parametrize("number", sorted(set(LISTED) - set(NOT_HERE)))
async def test_case(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(link_module, "_LONGEST_PAUSE_SECONDS", 0.01)
    async with lab() as w:
        answers = await CASES[number](w)
        assert answers
        for answer in answers:
            body = await answer.json()
            assert f"{answer.status} {body['error']}" == LISTED[number], body
            assert body["error_description"]
        if "503" in LISTED[number]:
            await well_again(w)
        ran = [message for _, message in w.server.received if message.get("method") == "tools/call"]
        assert len(ran) == w.granted, "nothing ran but what was granted"
        assert (await instead(w, GOOD).begun()).status == 200, "the next honest call"


class Lab(World):
    """Counts what may run."""

    def __init__(self, f: Fixture, **options: Any) -> None:
        super().__init__(f, **options)
        self.looking = l0(*OFFERED, hidden=("vault", "demo://vault/*"))
        self.granted = 0
        self.folder = tempfile.TemporaryDirectory()

    async def runs(self, wire: Wire) -> Wire:
        await wire.rest()
        assert wire.status == 200
        self.granted += 1
        return wire


@asynccontextmanager
async def lab() -> AsyncIterator[Any]:
    f = Fixture()
    document = f.document
    f.document = lambda **changes: document(**{**material(), **changes})  # type: ignore[method-assign]
    made = Lab(f, max_result_bytes=1_000_000)
    made.app.start()
    await until(lambda: made.app.guard.snapshot is not None)
    try:
        yield made
    finally:
        await made.app.stop()
        made.folder.cleanup()


def instead(w: Any, body: bytes, **more: Any) -> Wire:
    """A request with a token for one call of `refund`, its body as given."""
    sent: Wire = w.send(body, l3("refund", REFUND), **more)
    return sent


def calls(w: Any, name: str, *arguments: Any) -> list[Wire]:
    return [instead(w, json.dumps(call(name, each)).encode()) for each in arguments]


@case("H-30.a")
async def other_tool(w: Any) -> list[Wire]:
    return calls(w, "lookup", REFUND) + calls(w, "transfer", {})


@case("H-30.b")
async def changed_argument(w: Any) -> list[Wire]:
    return calls(w, "refund", {**REFUND, "payment_id": "pay_82"}, {**REFUND, "amount_cents": 4201})


@case("H-30.c")
async def added_argument(w: Any) -> list[Wire]:
    return calls(w, "refund", {**REFUND, "note": ""}, {**REFUND, "unknown": 1})


@case("H-30.d")
async def removed_argument(w: Any) -> list[Wire]:
    return calls(w, "refund", {"payment_id": "pay_81"}, {})


@case("H-30.e")
async def reordered_is_equal(w: Any) -> list[Wire]:
    token = w.f.token(l3("refund", REFUND))
    reordered = call("refund", dict(reversed(REFUND.items())))
    await w.runs(w.send(dict(reversed(reordered.items())), token=token))
    return [w.send(reordered, token=token)]


@case("H-30.f")
async def number_written_otherwise(w: Any) -> list[Wire]:
    for same in (b"4200.0", b"4.2e3", b"42000e-1"):
        await w.runs(instead(w, GOOD.replace(b"4200", same)))
    return [instead(w, GOOD.replace(b"4200", other)) for other in (b"4200.5", b"-4200", b"42e3")]


@case("H-30.g")
async def second_use(w: Any) -> list[Wire]:
    token = w.f.token(l3("refund", REFUND))
    await w.runs(w.send(GOOD, token=token))
    return [w.send(GOOD, token=token)]


@case("H-30.h")
async def at_another_server(w: Any) -> list[Wire]:
    detail = {**l3("refund", REFUND), "locations": [RESOURCE_OF_ANOTHER]}
    return [w.send(GOOD, detail, claims={"aud": RESOURCE_OF_ANOTHER})]


@case("H-30.i")
async def after_revocation(w: Any) -> list[Wire]:
    claims = w.f.claims(l1("lookup"))
    token = w.f.sign(claims)
    await w.runs(w.send(call("lookup", {}), token=token))
    w.app.guard.revoke(Revocation("token", claims["jti"]))
    return [w.send(call("lookup", {}), token=token)]


@case("H-31.a")
async def name_unlike_body(w: Any) -> list[Wire]:
    said = ({"mcp_name": "lookup"}, {"mcp_method": "tools/list"}, {"mcp_param_payment": "pay_82"}, {"mcp_param_x": "1"})
    return [instead(w, GOOD, **headers) for headers in said]


@case("H-31.b")
async def batch(w: Any) -> list[Wire]:
    return [instead(w, b"[%s,%s]" % (GOOD, GOOD)), instead(w, b"[%s]" % GOOD)]


@case("H-31.c")
async def id_as_object(w: Any) -> list[Wire]:
    return [instead(w, json.dumps({**json.loads(GOOD), "id": each}).encode()) for each in ({}, [1], None, 1.5, True)]


@case("H-31.d")
async def two_methods(w: Any) -> list[Wire]:
    escaped = b'"\\u006dethod":"ping","method"'
    return [instead(w, GOOD.replace(b'"method"', twice)) for twice in (b'"method":"ping","method"', escaped)]


@case("H-31.e")
async def notification_with_a_call(w: Any) -> list[Wire]:
    message = json.loads(GOOD)
    renamed = {**message, "method": "notifications/tools/call"}
    del message["id"]
    return [instead(w, json.dumps(each).encode()) for each in (message, renamed)]


@case("H-31.f")
async def trailing_bytes(w: Any) -> list[Wire]:
    return [instead(w, body) for body in (GOOD + b" x", GOOD + GOOD, GOOD + b"\0", b"\xef\xbb\xbf" + GOOD)]


@case("H-31.g")
async def compressed(w: Any) -> list[Wire]:
    return [instead(w, GOOD, content_encoding=each) for each in ("gzip", "br", "identity, gzip")]


@case("H-33.a")
async def listing_with_a_calls_token(w: Any) -> list[Wire]:
    methods = ("tools/list", "initialize", "server/discover")
    return [w.send({**LIST, "method": method, "params": {}}, l1("lookup")) for method in methods]


@case("H-33.b")
async def resource_outside(w: Any) -> list[Wire]:
    granted = read_token("demo://docs/a")
    uris = (
        *("file:///etc/passwd", "file:///srv/../etc/passwd", "http://169.254.169.254/", "demo://docs/../etc/passwd"),
        *("demo://docs/%2e%2e/etc/passwd", "demo://docs/..;/etc/passwd", "demo://docs\\..\\etc", "demo://user@docs/a"),
        *("demo://docs/./a", "DEMO://docs/a", "demo://docs/b", "demo://docs/drafts/a", "refund"),
    )
    details = (w.looking, l1("lookup"), granted)
    return [w.send(read(uri), detail) for uri in uris for detail in details] + [
        w.send(read("demo://docs/a"), w.looking)
    ]


@case("H-33.c")
async def prompt(w: Any) -> list[Wire]:
    methods = ("completion/complete", "resources/subscribe", "sampling/createMessage", "tasks/result", "prompts/get")
    refused = [w.send({**LIST, "method": method, "params": {"name": "greet"}}) for method in methods]
    greet = prompt_token("greet")
    others = (get("vault", {}), get("refund", {}), call("greet", {}), read("demo://docs/a"))
    refused += [w.send(message, greet) for message in others]
    return [*refused, w.send(get("greet", {"city": "Bonn"}), l1("lookup"))]


@case("H-33.e")
async def list_without_rights(w: Any) -> list[Wire]:
    w.server.answers["prompts/list"] = {"prompts": w.server.prompts}
    listed = [{"uri": uri, "name": uri} for uri in ("demo://docs/a", "demo://docs/drafts/a", "demo://vault/a", "x://y")]
    w.server.answers["resources/list"] = {"resources": listed}
    for kind, expected in (("prompts", ["greet"]), ("resources", ["demo://docs/a"])):
        said = await w.send({**LIST, "method": f"{kind}/list"}).json()
        assert [each.get("uri", each["name"]) for each in said["result"][kind]] == expected
        assert "vault" not in str(said)
    return [w.send(get("vault", {})), w.send(read("demo://vault/a"))]


@case("H-33.d")
async def sampling_in_a_result(w: Any) -> list[Wire]:
    wanted = {"resultType": "input_required", "inputRequests": {"a": {"method": "sampling/createMessage"}}}
    return [await answered(w, json.dumps({"jsonrpc": "2.0", "id": 1, "result": wanted}).encode())]


async def answered(w: Any, answer: bytes) -> Wire:
    """A call that is granted, and runs; the server answers it like this."""
    w.server.answers["tools/call"] = answer
    wire = await instead(w, GOOD).begun()
    del w.server.answers["tools/call"]
    w.granted += 1
    return wire


@case("H-34.a")
async def hundred_megabytes(w: Any) -> list[Wire]:
    text = b"x" * 100_000_000
    return [await answered(w, b'{"jsonrpc":"2.0","id":1,"result":{"text":"%s"}}' % text)]


@case("H-34.b")
async def endless(w: Any) -> list[Wire]:
    original = w.server._post

    async def endlessly(message: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(1_000):
            await send({"type": "http.response.body", "body": b" " * 10_000, "more_body": True})

    w.server._post = endlessly
    wire = await instead(w, GOOD).begun()
    w.server._post = original
    w.granted += 1
    return [wire]


@case("H-34.c")
async def hangs(w: Any) -> list[Wire]:
    original, hanging = w.server._post, asyncio.Event()

    async def hang(message: Any, receive: Any, send: Any) -> None:
        hanging.set()
        await asyncio.Event().wait()

    w.server._post = hang
    wire = instead(w, GOOD)
    await asyncio.wait_for(hanging.wait(), 5)
    w.f.clock.advance(60)
    w.app.guard.hear_revocations()
    await wire.begun()
    w.server._post = original
    w.granted += 1
    return [wire]


@case("H-34.e")
async def another_id(w: Any) -> list[Wire]:
    return [await answered(w, b'{"jsonrpc":"2.0","id":2,"result":{}}')]


@case("H-34.f")
async def no_json(w: Any) -> list[Wire]:
    return [await answered(w, b"not json")]


@case("H-34.g")
async def html(w: Any) -> list[Wire]:
    w.server.media = "text/html"
    wire = await answered(w, b"<html>sign in</html>")
    w.server.media = "application/json"
    return [wire]


def told(signed: Callable[[Any], Any]) -> Case:
    """A guard that is told one thing as its first, and has nothing else to go by."""

    async def run(w: Any) -> list[Wire]:
        return [await ask_after(w, [("snapshot", signed(w.f))])]

    return run


async def ask_after(w: Any, events: list[tuple[str, Any]], state_file: Path | None = None) -> Wire:
    """What a new guard answers to an honest call, after the broker said this to it and all of it was heard."""
    f = w.f
    object.__setattr__(f.settings, "state_file", state_file)
    broker = GuardBroker(f, first_snapshot=False)
    server = SessionServer()
    app = ToolCallMiddleware(server, f.settings, MiddlewareOptions(clock=f.clock, broker=broker.client()))
    f.guard = app.guard
    app.start()
    try:
        await until(lambda: bool(broker.queues))
        connections = len(broker.queues)
        for event, data in events:
            broker.push(event, data)
        # What must not be believed ends the connection, and the guard comes again.
        await until(lambda: len(broker.queues) > connections or not events)
        token = f.token(l3("refund", REFUND))
        headers = [
            ("authorization", f"DPoP {token}"),
            ("dpop", f.proof(token)),
            ("content-type", "application/json"),
        ]
        answer = await Wire(app, "POST", headers, GOOD).begun()
        assert server.received == []
        return answer
    finally:
        await app.stop()
        f.guard = w.app.guard
        object.__setattr__(f.settings, "state_file", None)


async def well_again(w: Any) -> None:
    """The guard of the lab itself was told nothing of it."""
    w.app.guard.hear_revocations()


def altered(f: Fixture) -> Any:
    signed = f.sign_snapshot(f.document())
    return {**signed, "snapshot": signed["snapshot"].replace('"L3"', '"L1"')}


def unsigned(f: Fixture) -> Any:
    signed = f.sign_snapshot(f.document())
    return {**signed, "signature": ""}


def wrong_definition(f: Fixture) -> Any:
    document = copy.deepcopy(f.document())
    document["tools"][2]["definition"]["description"] += "."
    return f.sign_snapshot(document)


CASES["H-32.a"] = told(lambda f: f.sign_snapshot(f.document(issued_at=f.clock.now - 100, expires_at=f.clock.now - 1)))
CASES["H-32.c"] = told(unsigned)
CASES["H-32.d"] = told(altered)
CASES["H-32.e"] = told(lambda f: f.sign_snapshot(f.document(), signer=f.broker))
CASES["H-32.f"] = told(lambda f: f.sign_snapshot(f.document(resource=RESOURCE_OF_ANOTHER)))
CASES["H-32.g"] = told(lambda f: f.sign_snapshot(f.document(issuer="https://other.example.com")))
CASES["H-32.h"] = told(wrong_definition)


@case("H-32.b")
async def not_begun_or_too_long(w: Any) -> list[Wire]:
    now = w.f.clock.now
    later = w.f.document(issued_at=now + 600, expires_at=now + 1200)
    longer = w.f.document(issued_at=now - 10, expires_at=now + 3591)
    return [await ask_after(w, [("snapshot", w.f.sign_snapshot(each))]) for each in (later, longer)]


@case("H-32.i")
async def word_without_a_snapshot(w: Any) -> list[Wire]:
    said: list[tuple[str, Any]] = [("alive", {}), ("revocation", {"kind": "tool", "name": "lookup"})]
    return [await ask_after(w, [each]) for each in said]


@case("H-32.j")
async def older_than_the_highest_seen(w: Any) -> list[Wire]:
    await newer(w, version=5)
    older = w.f.sign_snapshot(w.f.document(version=4))
    connections = len(w.broker.queues)
    w.broker.first_snapshot = False
    w.broker.push("snapshot", older)
    w.broker.push("alive", {})
    await until(lambda: len(w.broker.queues) > connections)
    w.broker.push("alive", {})
    await until(lambda: len(w.broker.queues) > connections + 1)
    w.f.clock.advance(61)
    return [await instead(w, GOOD).begun()]


@case("H-32.k")
async def registry_rolled_back(w: Any) -> list[Wire]:
    withdrawn = w.f.document(version=5)
    withdrawn["tools"] = [tool for tool in withdrawn["tools"] if tool["definition"]["name"] != "refund"]
    w.broker.first_snapshot = False
    w.broker.push("snapshot", w.f.sign_snapshot(withdrawn))
    await until(lambda: w.app.guard.snapshot.version == 5)
    connections = len(w.broker.queues)
    w.broker.push("snapshot", w.f.sign_snapshot(w.f.document(version=4)))
    await until(lambda: len(w.broker.queues) > connections)
    answer = await instead(w, GOOD).begun()
    await newer(w, version=6)
    return [answer]


async def newer(w: Any, version: int) -> None:
    w.broker.version = version
    w.broker.push("snapshot", w.broker.snapshot())
    await until(lambda: w.app.guard.snapshot.version == version)


@case("H-32.l")
async def older_after_a_restart(w: Any) -> list[Wire]:
    f, memory = w.f, Path(w.folder.name) / "state.json"
    memory.write_text(json.dumps({"issuer": f.settings.issuer, "resource": f.settings.resource, "highest_version": 5}))
    return [await ask_after(w, [("snapshot", f.sign_snapshot(f.document(version=4)))], memory)]


@case("H-32.m")
async def restarted_before_any_word(w: Any) -> list[Wire]:
    memory = Path(w.folder.name) / "state.json"
    memory.write_text(
        json.dumps({"issuer": w.f.settings.issuer, "resource": w.f.settings.resource, "highest_version": 1})
    )
    return [await ask_after(w, [], memory)]


# What the catalogue says of the broker's registry, a guard sees in its server: the live definition is another.
@pytest.mark.parametrize("change", [("description", "refund."), ("annotations", {"destructiveHint": False}), "schema"])
async def test_a_live_definition_that_changes_by_one_character_is_not_called(change: Any) -> None:
    async with lab() as w:
        tool = w.server.live[2]
        if change == "schema":
            tool["inputSchema"]["properties"]["note"]["type"] = "number"
        else:
            tool[change[0]] = change[1]
        body = await instead(w, GOOD).json()
        assert body["error"] == "insufficient_scope"
        w.server.live = definitions()
        w.f.clock.advance(6)
        await w.runs(instead(w, GOOD))
        w.server.live = definitions()[:2]
        w.f.clock.advance(6)
        assert (await instead(w, GOOD).begun()).status == 403, "it vanished"
        w.server.live = definitions()
        w.f.clock.advance(6)
        await w.runs(instead(w, GOOD))
