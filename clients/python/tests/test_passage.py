"""What of a request reaches the app, and what of its answer reaches the client."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from deputize.asgi import MiddlewareOptions, ToolCallMiddleware
from guard_broker import GuardBroker
from guard_fixture import Fixture, call, definitions, l1, l3
from session_server import LIST, LOOKUP, REFUND, Stream, again, world

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_headers_that_nobody_verified_do_not_reach_the_app() -> None:
    async with world() as w:
        forged = {
            "cookie": "session=admin",
            "forwarded": "for=10.0.0.1",
            "x_forwarded_for": "10.0.0.1",
            "x_forwarded_host": "evil.example.com",
            "x_real_ip": "10.0.0.1",
            "x_user": "admin",
            "proxy_authorization": "Basic x",
            "deputize_call": "forged",
            "deputize_person": "admin",
            "mcp_param_payment": "p",
            "mcp_other": "x",
            "last_event_id": "1",
            "x_request_id": "theirs",
            "client_cert": ":AAAA:",
            "host": "pay.example.com",
            "accept": "application/json",
            "traceparent": PARENT,
        }
        body = call("lookup", {"payment_id": "p"})
        token = w.f.token(l1("lookup"))
        assert (await w.send(body, token=token, scope={"query_string": b"admin=1"}, **forged).begun()).status == 200
        headers, _ = w.server.received[0]
        assert headers == {
            "host": "pay.example.com",
            "accept": "application/json",
            "content-type": "application/json",
            "content-length": headers["content-length"],
            "mcp-method": "tools/call",
            "mcp-name": "lookup",
            "mcp-param-payment": "p",
            "deputize-call": token,
            "traceparent": PARENT,
            "x-request-id": headers["x-request-id"],
        }
        assert headers["x-request-id"] != "theirs"
        assert w.server.scopes[-1]["query_string"] == b""
        broken = w.send(LOOKUP, l1("lookup"), traceparent=PARENT.replace("4", "0").replace("b", "z"))
        assert (await broken.begun()).status == 200
        assert "traceparent" not in w.server.received[-1][0]


async def test_headers_of_a_trusted_proxy_pass_where_they_are_named() -> None:
    async with world(passed_headers=("X-Forwarded-For",)) as w:
        sent = w.send(LOOKUP, l1("lookup"), x_forwarded_for="10.0.0.1", x_forwarded_host="evil.example.com")
        assert (await sent.begun()).status == 200
        headers = w.server.received[0][0]
        assert headers["x-forwarded-for"] == "10.0.0.1"
        assert "x-forwarded-host" not in headers
    f = Fixture()
    for name in ("Authorization", "DPoP", "Mcp-Name", "Deputize-Call", "Content-Length"):
        with pytest.raises(ValueError, match="never passed on"):
            ToolCallMiddleware(
                w.server, f.settings, MiddlewareOptions(passed_headers=(name,), broker=GuardBroker(f).client())
            )


async def test_the_arguments_in_headers_are_made_anew() -> None:
    async with world() as w:
        body = call("lookup", {"payment_id": "é "})
        assert (await w.send(body, l1("lookup")).begun()).status == 200
        assert w.server.received[0][0]["mcp-param-payment"] == "=?base64?w6kg?="


async def test_the_arguments_in_headers_are_due_since_the_stateless_version() -> None:
    async with world() as w:
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        bare = call("lookup", {"payment_id": "é", "note": "n"})
        body = {**bare, "params": {**bare["params"], "_meta": meta}}
        due = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "lookup"}
        for said in (None, "e", "=?base64?w6k?="):
            refused = w.send(body, l3("lookup", bare["params"]["arguments"]), mcp_param_payment=said, **due)
            heard = await w.refused(refused, 400)
            message = "Mcp-Param headers and the body say different things"
            assert heard == {"jsonrpc": "2.0", "id": 1, "error": {"code": -32020, "message": message}}
            assert refused.headers["dpop-nonce"]
            assert "www-authenticate" not in refused.headers
        assert w.broker.redeemed == []
        sent = w.send(body, l1("lookup"), mcp_param_payment="=?base64?w6k=?=", **due)
        assert (await sent.begun()).status == 200
        nothing = {**LOOKUP, "params": {**LOOKUP["params"], "_meta": meta}}
        assert (await w.send(nothing, l1("lookup"), **due).begun()).status == 200, "what is absent is not mirrored"
        earlier = w.send(bare, l1("lookup"), mcp_protocol_version="2025-11-25")
        assert (await earlier.begun()).status == 200, "earlier versions know no such headers"
        assert (await w.send(bare, l1("lookup")).begun()).status == 200


async def test_the_stateless_version_is_refused_in_its_own_words() -> None:
    async with world() as w:
        headers = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tasks/result"}
        unknown = w.send({**LIST, "method": "tasks/result"}, **headers)
        error = {"code": -32601, "message": "Method not found"}
        assert await w.refused(unknown, 404) == {"jsonrpc": "2.0", "id": "a", "error": error}
        assert (await w.refused(w.send({**LIST, "method": "tasks/result"}), 403))["error"] == "insufficient_scope"
        headers["mcp_method"] = "tools/call"
        assert (await w.refused(w.send(LIST, **headers), 400))["error"]["code"] == -32020
        named = w.send(LIST, mcp_protocol_version="2026-07-28")
        assert "_meta" in (await w.refused(named, 400))["error"]["message"]


async def test_extensions_that_would_send_past_the_screen_are_taken_away() -> None:
    async with world() as w:
        tls: dict[str, Any] = {"client_cert_chain": [], "client_cert_error": None}
        extensions = {"http.response.pathsend": {}, "http.response.push": {}, "tls": tls}
        sent = w.send(LOOKUP, l1("lookup"), scope={"extensions": extensions})
        assert (await sent.begun()).status == 200
        assert w.server.scopes[-1]["extensions"] == {"tls": tls}


async def test_pages_of_other_origins_may_not_call() -> None:
    async with world(allowed_origins=("https://inspector.example.com",)) as w:
        for origin in ("https://evil.example.com", "null", "http://pay.example.com"):
            refused = w.send(LOOKUP, l1("lookup"), origin=origin)
            assert (await w.refused(refused, 403))["error"] == "forbidden_origin"
            assert "www-authenticate" not in refused.headers
        for origin in ("https://pay.example.com", "https://inspector.example.com"):
            assert (await w.send(LOOKUP, l1("lookup"), origin=origin).begun()).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp_protocol_version": "2025-11-25", "mcp_method": "tools/call", "mcp_name": "lookup"},
        {"mcp_protocol_version": None, "mcp_method": "tools/call", "mcp_name": "lookup"},
        {"mcp_protocol_version": "latest", "mcp_method": "tools/call", "mcp_name": "lookup"},
        {"mcp_protocol_version": "2026-07-28", "mcp_name": "lookup"},
        {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call"},
    ],
)
async def test_a_request_of_the_stateless_version_says_everything_twice(headers: dict[str, str | None]) -> None:
    async with world() as w:
        meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
        body = {**LOOKUP, "params": {**LOOKUP["params"], "_meta": meta}}
        await w.refused(w.send(body, l1("lookup"), **headers), 400)
        whole = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "lookup"}
        sent = w.send(body, l1("lookup"), mcp_session_id="ignored", **whole)
        assert (await sent.begun()).status == 200
        assert "mcp-session-id" not in w.server.received[-1][0]
        undeclared = w.send(LOOKUP, l1("lookup"), **whole)
        await w.refused(undeclared, 400)


async def test_nothing_is_offered_that_is_not_let_through() -> None:
    async with world() as w:
        capabilities = {"tools": {"listChanged": True}, "prompts": {}, "resources": {}, "completions": {}, "tasks": {}}
        # A server that begins no session has no stream on which news of lists could come.
        for method, expected in (("initialize", {"tools": {}}), ("server/discover", {"tools": {"listChanged": True}})):
            w.server.answers[method] = {"capabilities": capabilities, "protocolVersion": "2025-11-25"}
            sent = w.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
            assert (await sent.json())["result"]["capabilities"] == expected


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 226, 299])
async def test_no_other_success_than_200_is_an_answer(status: int) -> None:
    async with world() as w:
        session = await w.begin()
        done = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "tools": definitions()}}
        w.server.answers = {method: json.dumps(done).encode() for method in ("tools/call", "tools/list")}
        w.server.status = status
        for sent in (
            w.send(LOOKUP, l1("lookup")),
            w.send(again(LIST, 1)),
            listening := w.send(None, method="GET", mcp_session_id=session),
        ):
            assert (await sent.json())["error"] == "server_error"
            assert sent.status == 502
        listening.leave()
        noted = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await w.send(noted, mcp_session_id=session).begun()).status == 202, "nothing was asked"
        w.server.status = 200
        assert (await w.send(LOOKUP, l1("lookup")).json())["result"] == done["result"]
        assert [each["name"] for each in (await w.send(again(LIST, 1)).json())["result"]["tools"]] == [
            "lookup",
            "transfer",
            "refund",
        ]


@pytest.mark.parametrize(
    ("status", "answered", "error"),
    [
        *((status, 502, "server_error") for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, 502, "server_error") for status in (401, 403, 405, 406, 418, 421, 500)),
        *((status, 503, "server_unavailable") for status in (502, 503, 504)),
    ],
)
async def test_what_is_no_answer_reaches_nobody_and_sends_nobody_elsewhere(
    status: int, answered: int, error: str
) -> None:
    async with world() as w:
        w.server.status, w.server.more = status, [(b"location", b"https://evil.example.com/mcp")]
        unapproved = {"name": "unapproved", "inputSchema": {"type": "object"}}
        listed = {"jsonrpc": "2.0", "id": "a", "result": {"tools": [unapproved]}}
        failed = {"jsonrpc": "2.0", "id": "a", "error": {"code": -1, "message": "unapproved"}}
        # Each has few of them: whoever gets no answers is stopped after a while.
        for person, answer in (("bob", listed), ("carol", failed)):
            for media in ("application/json", "text/html", "text/event-stream"):
                w.server.answers["tools/list"], w.server.media = json.dumps(answer).encode(), media
                sent = w.send(LIST, claims={"sub": f"user:acme:x:{person}"})
                body = await sent.rest()
                assert (sent.status, json.loads(body)["error"]) == (answered, error)
                assert b"unapproved" not in body
                assert "location" not in sent.headers
                assert sent.headers.get("retry-after") == ("1" if answered == 503 else None)
        w.server.noted = status
        noted = w.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (await noted.json())["error"] == error
        assert noted.status == answered
        w.server.answers.clear()
        assert (await w.send(LIST).begun()).status == 200


@pytest.mark.parametrize("status", [400, 404])
async def test_of_an_error_of_the_protocol_only_the_error_passes(status: int) -> None:
    async with world() as w:
        w.server.status = status
        error = {"code": -32601, "message": "no such method", "data": {"a": 1}}
        for answer in (
            {"jsonrpc": "2.0", "id": "a", "error": error},
            {"jsonrpc": "2.0", "id": None, "error": error, "result": {"tools": definitions()}},
        ):
            w.server.answers["tools/list"] = json.dumps(answer).encode()
            sent = w.send(LIST)
            assert await sent.json() == {"jsonrpc": "2.0", "id": "a", "error": error}
            assert sent.status == status
        for none in (b"", b"not json", b"{}", b'{"error":"x"}', b'{"jsonrpc":"2.0","id":"a","result":{"tools":[]}}'):
            w.server.answers["tools/list"] = none
            sent = w.send(LIST)
            assert (await sent.json())["error"] == "server_error"
            assert sent.status == 502


async def test_a_session_that_the_server_forgot_is_none() -> None:
    async with world() as w:
        session = await w.begin()
        w.server.status, w.server.answers["tools/list"] = 404, b'{"jsonrpc":"2.0","id":"a","error":{}}'
        gone = w.send(LIST, mcp_session_id=session)
        assert (await gone.json())["error"] == "unknown_session"
        assert gone.status == 404
        w.server.status = 200
        await w.refused(w.send(LIST, mcp_session_id=session), 404)


@pytest.mark.parametrize(("status", "answered"), [(400, 405), (405, 405), (404, 404), (302, 502), (503, 503)])
async def test_a_stream_that_the_server_does_not_give_is_none(status: int, answered: int) -> None:
    async with world() as w:
        session = await w.begin()
        w.server.status = status
        listening = w.send(None, method="GET", mcp_session_id=session)
        assert (await listening.json())["error_description"]
        assert listening.status == answered
        listening.leave()


async def test_a_list_shows_the_approved_definitions() -> None:
    async with world() as w:
        w.server.live[1]["description"] = "another"
        w.server.live[0]["_meta"] = {"ui": "https://evil.example.com"}
        w.server.live.append({"name": "unapproved", "inputSchema": {"type": "object"}})
        (listed,) = [(await w.send(LIST).json())["result"]["tools"]]
        assert [tool["name"] for tool in listed] == ["lookup", "refund"]
        assert "_meta" not in listed[0]
        w.server.live.append(w.server.live[0])
        listed = (await w.send(LIST).json())["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["refund"], "a name that stands twice is none"


SAMPLING = {"jsonrpc": "2.0", "id": 1, "result": {"resultType": "input_required"}}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"[]",
        b'{"jsonrpc":"1.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":2,"result":{}}',
        b'{"jsonrpc":"2.0","id":"1","result":{}}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":[]}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","method":"notifications/message"}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"[" * 100_000,
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"' + b"x" * 3_000 + b'"}}',
        json.dumps(
            {**SAMPLING, "result": {**SAMPLING["result"], "inputRequests": {"a": {"method": "sampling/createMessage"}}}}  # type: ignore[dict-item]
        ).encode(),
    ],
)
async def test_an_answer_that_is_none_is_not_passed_on(answer: bytes) -> None:
    async with world(max_result_bytes=2_000) as w:
        w.server.answers["tools/call"] = answer
        sent = w.send(LOOKUP, l1("lookup"))
        assert (await sent.json())["error"] == "server_error"
        assert sent.status == 502
        assert sent.headers["dpop-nonce"]

        async def streams(stream: Stream) -> None:
            await stream.say(answer.decode())
            await stream.say({"jsonrpc": "2.0", "id": 1, "result": {"late": True}})

        w.server.answers.clear()
        w.server.serve = streams
        streamed = w.send(LOOKUP, l1("lookup"))
        said = await streamed.event()
        if not answer or b"notifications" in answer or b"ping" in answer:
            # What is no answer yet may stand before one in a stream.
            return
        assert (said["id"], said["error"]["code"]) == (1, -32603)
        assert await streamed.event() is None
        await streamed.done()


async def test_a_stream_without_a_response_ends_with_an_error() -> None:
    async with world() as w:

        async def silent(stream: Stream) -> None:
            await stream.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}, cursor="c1")

        w.server.serve = silent
        streamed = w.send(LOOKUP, l1("lookup"))
        assert (await streamed.event())["method"] == "notifications/message"
        assert (await streamed.event())["error"]["code"] == -32603


async def test_what_is_said_twice_is_heard_once() -> None:
    async with world() as w:
        w.server.answers["tools/call"] = b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2},"result":{"a":3}}'
        answered = await w.send(LOOKUP, l1("lookup")).rest()
        assert answered == b'{"jsonrpc":"2.0","id":1,"result":{"a":3}}'
        w.server.answers["tools/call"] = b'{"jsonrpc":"2.0","id":1,"result":{"n":123456789012345678901234567890}}'
        assert b"123456789012345678901234567890" in await w.send(LOOKUP, l1("lookup")).rest()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\ttext\r\n", "plain\ttext\r\n"),
        ("\x1b[2J\x1b]0;title\x07", "\ufffd[2J\ufffd]0;title\ufffd"),
        ("\x9b31m\x7f\0", "\ufffd31m\ufffd\ufffd"),
        ("pay_\u202e18\u202c", "pay_\ufffd18\ufffd"),
        ("\u2066a\u2069", "\ufffda\ufffd"),
        ("a\U000e0001\U000e0068\U000e007f", "a\ufffd\ufffd\ufffd"),
        ("a\u2060b\u2063", "a\ufffdb\ufffd"),
        ("\u845b\U000e0100\U000f0000\ufeff\u200c", "\u845b\U000e0100\U000f0000\ufeff\u200c"),
        ("\u05e9\u05dc\u200f! é €", "\u05e9\u05dc\u200f! é €"),
    ],
)
async def test_what_would_steer_a_terminal_or_turn_text_round_is_put_in_plain_sight(said: str, shown: str) -> None:
    async with world() as w:
        inside = {"requestState": said, "a": [{"requestState": {"b": said}}]}
        result = {"content": [{"type": "text", "text": said}], said: True, "requestState": said, "is": inside}
        w.server.answers["tools/call"] = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
        heard = (await w.send(LOOKUP, l1("lookup")).json())["result"]
        inside = {"requestState": shown, "a": [{"requestState": {"b": shown}}]}
        assert heard == {
            "content": [{"type": "text", "text": shown}],
            shown: True,
            "requestState": shown,
            "is": inside,
        }
        error = {"code": -1, "message": said}
        w.server.answers["tools/call"] = json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()
        for w.server.status in (200, 400):
            assert (await w.send(LOOKUP, l1("lookup")).json())["error"]["message"] == shown
        w.server.answers.clear()

        async def notes(stream: Stream) -> None:
            await stream.say({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": said}})
            await stream.say({"jsonrpc": "2.0", "method": "notifications/message", "params": [{"data": said}]})
            await stream.answer({"text": said})

        w.server.serve = notes
        streamed = w.send(LOOKUP, l1("lookup"))
        assert (await streamed.event())["params"] == {"data": shown}
        assert (await streamed.event())["params"] == [{"data": shown}]
        assert (await streamed.event())["result"] == {"text": shown}


HIDDEN, SEEN = "\x1b[2J\u202e", "\ufffd[2J\ufffd"


async def test_of_a_list_of_tools_only_the_approved_definitions_are_as_they_came() -> None:
    async with world() as w:
        result = {"tools": w.server.live, "_meta": {"note": HIDDEN}, "nextCursor": HIDDEN, "requestState": HIDDEN}
        w.server.answers["tools/list"] = result
        heard = (await w.send(LIST).json())["result"]
        assert [each["name"] for each in heard.pop("tools")] == ["lookup", "transfer", "refund"]
        assert heard == {"_meta": {"note": SEEN}, "nextCursor": SEEN, "requestState": SEEN}


async def test_what_goes_back_to_the_server_is_as_it_came_where_it_is_asked_for() -> None:
    async with world() as w:
        for state, heard in ((HIDDEN, HIDDEN), ({"requestState": HIDDEN}, {"requestState": SEEN}), ([HIDDEN], [SEEN])):
            asked = {"a": {"method": "elicitation/create", "params": {"message": HIDDEN, "requestState": HIDDEN}}}
            result = {"resultType": "input_required", "requestState": state, "inputRequests": asked}
            w.server.answers["tools/call"] = result
            shown = {"a": {"method": "elicitation/create", "params": {"message": SEEN, "requestState": SEEN}}}
            expected = {"resultType": "input_required", "requestState": heard, "inputRequests": shown}
            assert (await w.send(LOOKUP, l1("lookup")).json())["result"] == expected


async def test_errors_of_the_server_are_its_own() -> None:
    async with world() as w:
        error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}}
        w.server.answers["tools/call"] = json.dumps(error).encode()
        assert await w.send(LOOKUP, l1("lookup")).json() == error


CERTIFICATE = base64.b64encode(b"a certificate of the client's").decode()
PEM = f"-----BEGIN CERTIFICATE-----\n{CERTIFICATE}\n-----END CERTIFICATE-----\n"


def bound() -> dict[str, Any]:
    digest = hashlib.sha256(base64.b64decode(CERTIFICATE)).digest()
    return {"cnf": {"x5t#S256": base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}}


async def test_a_token_bound_to_a_certificate_needs_the_connection_that_proved_it() -> None:
    async with world() as w:

        def sent(chain: list[str], problem: str | None = None, scheme: str = "Bearer", **headers: str | None) -> Any:
            token = w.f.token(l3("refund", {}), **bound())
            tls = {"client_cert_chain": chain, "client_cert_error": problem}
            headers = {"authorization": f"{scheme} {token}", "dpop": None, **headers}
            return w.send(REFUND, token=token, scope={"extensions": {"tls": tls}}, **headers)

        other = PEM.replace(CERTIFICATE, base64.b64encode(b"another").decode())
        for refused in (
            sent([]),
            sent([other]),
            sent([other, PEM]),
            sent([PEM], "self-signed"),
            sent([PEM], scheme="DPoP"),
            sent([], client_cert=f":{CERTIFICATE}:"),
        ):
            assert (await w.refused(refused, 401))["error"] == "invalid_token"
        assert w.broker.redeemed == []
        assert (await sent([PEM, other]).begun()).status == 200


@pytest.mark.parametrize(
    "value", [f":{CERTIFICATE}:", PEM.replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B").replace("=", "%3D")]
)
async def test_a_proxy_may_say_the_certificate_where_it_is_trusted_to(value: str) -> None:
    async with world(client_certificate_header="Client-Cert") as w:

        def sent(value: str | None, **scope: Any) -> Any:
            token = w.f.token(l1("lookup"), **bound())
            headers = {"authorization": f"Bearer {token}", "dpop": None, "client_cert": value}
            return w.send(LOOKUP, token=token, scope=scope, **headers)

        assert (await sent(value).begun()).status == 200
        assert "client-cert" not in w.server.received[-1][0]
        tls = {"client_cert_chain": [PEM], "client_cert_error": None}
        await w.refused(sent(None, extensions={"tls": tls}), 401)
        await w.refused(sent(":YW5vdGhlcg==:"), 401)
        for broken in (":*:", "nonsense", "%FF", ":"):
            await w.refused(sent(broken), 400)


async def test_a_listing_id_may_be_a_number_or_a_text() -> None:
    async with world() as w:
        for request_id in (0, -5, "0", "x" * 256):
            assert (await w.send(again(LIST, request_id)).json())["id"] == request_id
        for bad in ("x" * 257, 1.5, None, True, [], {}):
            await w.refused(w.send(again(LIST, bad)), 400)
