"""What is not exactly one request is refused before anything is asked of the token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deputize.guard import IncomingCall, Refusal, Refused, VerifiedListing
from deputize.guard.headers import decode_value, encode_value
from guard_fixture import Fixture, Request, call, l0, l1, listing, refusal_of

ONE = json.dumps(call("lookup", {}))


async def refused_body(f: Fixture, body: str | bytes) -> Refusal:
    text = body if isinstance(body, bytes) else body.encode()
    refusal = await refusal_of(f.with_grant(l1("lookup"), text))
    assert (refusal.status, refusal.error) == (400, "invalid_request"), body
    return refusal


@pytest.mark.parametrize(
    "body",
    [
        f"[{ONE},{ONE}]",
        f"[{ONE}]",
        "[]",
        ONE + ONE,
        ONE + " x",
        f"{ONE}\n{ONE}",
        ONE[:-1],
        "",
        "null",
        '"tools/call"',
        "\ufeff" + ONE,
        ONE.encode() + b"\xff",
        ONE + "\0",
    ],
)
async def test_one_request_is_one_call(body: str | bytes) -> None:
    await refused_body(Fixture(), body)


async def test_white_space_around_one_value_is_still_one_value() -> None:
    f = Fixture()
    await f.with_grant(l1("lookup"), f" {ONE}\n".encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping","params":{"name":"lookup"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund","name":"lookup"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"note":"a","note":"b"}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","Method":"ping","params":{"name":"lookup"}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","task":{}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup"},"result":{}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"amount_cents":1e300}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"amount_cents":9007199254740993.0}}}',
        '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lookup","arguments":{"note":"\\ud800"}}}',
    ],
)
async def test_nothing_stands_twice_or_beside(body: str) -> None:
    await refused_body(Fixture(), body)


@pytest.mark.parametrize(
    ("pointer", "values"),
    [
        ("id", [{}, [], None, True, 1.5]),
        ("jsonrpc", ["1.0", 2, None]),
        ("method", [1, None, ["tools/call"]]),
        ("params", [[], "lookup", None]),
        ("params/name", [1, None, ["lookup"]]),
        ("params/arguments", [[], "x", None]),
        ("params/_meta", [[], "x", None]),
    ],
)
async def test_every_member_has_its_type(pointer: str, values: list[Any]) -> None:
    f = Fixture()
    for value in values:
        body = call("lookup", {})
        *parents, last = pointer.split("/")
        target = body
        for parent in parents:
            target = target[parent]
        target[last] = value
        await refused_body(f, json.dumps(body))


async def test_a_notification_smuggles_no_call() -> None:
    f = Fixture()
    smuggled = call("lookup", {})
    del smuggled["id"]
    await refused_body(f, json.dumps(smuggled))
    asking = {"jsonrpc": "2.0", "id": 1, "method": "notifications/cancelled"}
    assert (await refusal_of(f.with_grant(l0(), asking))).status == 400
    notification = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    assert isinstance(await f.with_grant(l0(), notification), VerifiedListing)
    assert (await refusal_of(f.with_grant(l1("lookup"), notification))).error == "insufficient_scope"


@pytest.mark.parametrize("name", ["\r\nX: y", "世", "a b", "x" * 120, "\u0000"])
async def test_a_notification_has_a_name_that_a_header_can_carry(name: str) -> None:
    f = Fixture()
    method = f"notifications/{name}"
    assert (await refusal_of(f.with_grant(l0(), {"jsonrpc": "2.0", "method": method}))).status == 400
    await f.with_grant(l0(), {"jsonrpc": "2.0", "method": "notifications/progress"})


async def test_ids_are_short_enough_to_be_remembered() -> None:
    f = Fixture()
    await f.with_grant(l1("lookup"), {**call("lookup", {}), "id": "x" * 256})
    for long in ("x" * 257, "é" * 129):
        assert (await refusal_of(f.with_grant(l1("lookup"), {**call("lookup", {}), "id": long}))).status == 400


@pytest.mark.parametrize(
    "method", ["resources/subscribe", "completion/complete", "sampling/createMessage", "tools/Call", "", "tools/call "]
)
async def test_unknown_methods_have_no_token(method: str) -> None:
    f = Fixture()
    for grant in (l0(), l1("lookup")):
        refusal = await refusal_of(f.with_grant(grant, {**listing(method), "params": {"name": "lookup"}}))
        assert refusal.status == 403


async def status(f: Fixture, change: Any) -> int:
    try:
        await f.lookup(lambda _, request: change(request))
    except Refusal as refusal:
        return refusal.status
    return 200


async def test_sizes_methods_and_media_types_are_bounded() -> None:
    f = Fixture(max_body_bytes=1000)
    long = json.dumps(call("lookup", {"note": "x" * 1000})).encode()
    assert (await refusal_of(f.with_grant(l1("lookup"), long))).status == 413
    for method in ("GET", "PUT", "DELETE", "post"):
        assert await status(f, lambda request, method=method: setattr(request, "method", method)) == 405
    for media in ("text/plain", "application/json; charset=utf-16", "application/json-patch+json", ""):
        assert await status(f, lambda request, media=media: request.replace("Content-Type", media)) == 415, media
    for media in ("Application/JSON", "application/json; charset=UTF-8"):
        assert await status(f, lambda request, media=media: request.replace("Content-Type", media)) == 200, media
    for encoding in ("gzip", "br", "identity, gzip"):
        assert await status(f, lambda request, value=encoding: request.header("Content-Encoding", value)) == 415
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    assert (await refusal_of(f.with_grant(l1("lookup"), call("lookup", {"note": deep})))).status == 400


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("Mcp-Method", "tools/call"), ("mcp-name", "lookup"), ("Mcp-Param-Payment", "p")], 200),
        ([("Mcp-Name", "=?base64?bG9va3Vw?=")], 200),
        ([("Mcp-Method", "tools/list")], 400),
        ([("Mcp-Method", "Tools/Call")], 400),
        ([("Mcp-Name", "refund")], 400),
        ([("Mcp-Name", "")], 400),
        ([("Mcp-Name", "=?base64?cmVmdW5k?=")], 400),
        ([("Mcp-Name", "=?base64?bG9va3Vx=?=")], 400),
        ([("Mcp-Name", "lookup"), ("mcp-name", "lookup")], 400),
        ([("Mcp-Param-Payment", "q")], 400),
        ([("Mcp-Param-Payment", "p"), ("mcp-param-payment", "p")], 400),
        ([("Mcp-Param-Other", "p")], 400),
        ([("Mcp-Protocol-Version", "2026-07-28"), ("mcp-protocol-version", "2025-06-18")], 400),
    ],
)
async def test_headers_say_what_the_body_says(headers: list[tuple[str, str]], expected: int) -> None:
    def add(request: Request) -> None:
        for name, value in headers:
            request.header(name, value)

    assert await status(Fixture(), add) == expected


async def test_a_listing_has_no_name() -> None:
    f = Fixture()
    request = f.request(f.token(l0()), listing())
    request.header("Mcp-Name", "lookup")
    assert (await f.refused(request)).status == 400


SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "dry": {"type": "boolean", "x-mcp-header": "Dry"},
        "place": {"type": "object", "properties": {"floor": {"type": "integer", "x-mcp-header": "Floor"}}},
        "list": {"type": "array", "items": {"type": "string", "x-mcp-header": "Item"}},
    },
}
ARGUMENTS = {"region": "é", "dry": True, "place": {"floor": 2}, "list": ["x"]}


@pytest.mark.parametrize(
    ("headers", "agrees"),
    [
        ([("Mcp-Param-Region", "=?base64?w6k=?="), ("Mcp-Param-Floor", "2"), ("Mcp-Param-Dry", "true")], True),
        ([("mcp-param-FLOOR", "2.0")], True),
        ([("Mcp-Param-Floor", "3")], False),
        ([("Mcp-Param-Floor", "two")], False),
        ([("Mcp-Param-Floor", "nan")], False),
        ([("Mcp-Param-Floor", "2"), ("mcp-param-floor", "2")], False),
        ([("Mcp-Param-Dry", "True")], False),
        ([("Mcp-Param-Dry", "1")], False),
        ([("Mcp-Param-Item", "x")], False),
        ([("Mcp-Param-Region", "e")], False),
        ([("Mcp-Param-Region", "=?base64?w6k?=")], False),
        ([("Mcp-Param-Other", "x")], False),
    ],
)
def test_headers_mirror_the_arguments_at_any_depth(headers: list[tuple[str, str]], agrees: bool) -> None:
    incoming = IncomingCall("POST", tuple(headers), b"")
    if agrees:
        incoming.check_mirrored_params(SCHEMA, ARGUMENTS)
    else:
        with pytest.raises(Refused):
            incoming.check_mirrored_params(SCHEMA, ARGUMENTS)


@pytest.mark.parametrize("text", ["us-west1", "Hello, 世界", " padded ", "line1\nline2", "=?base64?literal?=", ""])
def test_what_a_header_cannot_carry_is_wrapped_and_read_back(text: str) -> None:
    wrapped = encode_value(text)
    assert decode_value(wrapped) == text
    assert wrapped.isascii()
    assert wrapped == wrapped.strip()
    for broken in ("=?base64?*?=", "=?base64?/w==?=", "=?base64?YQ?=", "=?base64?YR==?="):
        assert decode_value(broken) is None, broken


async def test_no_server_is_told_that_it_could_borrow_the_clients_model() -> None:
    f = Fixture()
    capabilities = {"sampling": {}, "elicitation": {}}
    asked = {**listing("initialize"), "params": {"capabilities": dict(capabilities)}}
    assert b"sampling" not in (await f.with_grant(l0(), asked)).rebuilt_body
    called = call("lookup", {"note": "sampling"})
    called["params"]["_meta"] = {"io.modelcontextprotocol/clientCapabilities": dict(capabilities)}
    forwarded = json.loads((await f.with_grant(l1("lookup"), called)).rebuilt_body)["params"]
    assert forwarded["_meta"] == {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    assert forwarded["arguments"] == {"note": "sampling"}
