"""Prompts and resources: granted as tools are, and listed as far as a caller may see them."""

from __future__ import annotations

from typing import Any

import pytest

from deputize.call.digest import call_digest
from deputize.call.prompt import arguments_schema
from deputize.guard import Revocation
from guard_broker import until
from guard_fixture import (
    OFFERED,
    PROMPTS,
    Fixture,
    as_call,
    call,
    get,
    granted,
    l0,
    l1,
    listing,
    material,
    prompt_token,
    read,
    read_token,
    refusal_of,
)
from session_server import World, world


def fixture() -> Fixture:
    f = Fixture()
    f.guard.install(f.snapshot(version=2, **material()))
    f.guard.observe_prompts(PROMPTS)
    return f


async def test_a_prompt_is_given_for_its_own_token_alone() -> None:
    f = fixture()
    bonn = {"city": "Bonn"}
    verified = as_call(await f.with_grant(prompt_token("greet"), get("greet", bonn)))
    assert (verified.action, verified.name, verified.tool) == ("prompts/get", "greet", None)
    assert verified.call_digest == call_digest("prompts/get", "greet", bonn)
    assert ("mcp-method", "prompts/get") in verified.forwarded_headers()
    exact = prompt_token("greet", call_digest=call_digest("prompts/get", "greet", bonn), max_uses=1)
    assert as_call(await f.with_grant(exact, get("greet", bonn))).level.name == "L3"
    for detail, body in (
        (prompt_token("greet"), get("vault", {})),
        (prompt_token("greet"), call("greet", bonn)),
        (prompt_token("greet"), read("greet")),
        (prompt_token("greet"), get("greet", {})),
        (prompt_token("greet"), get("greet", {**bonn, "more": "x"})),
        (prompt_token("greet"), get("greet", {"city": 1})),
        (exact, get("greet", {"city": "Köln"})),
        ({**exact, "call_digest": call_digest("tools/call", "greet", bonn)}, get("greet", bonn)),
        (prompt_token("greet", prompt_digest=prompt_token("vault")["prompt_digest"]), get("greet", bonn)),
        (prompt_token("greet", identifier="unknown"), get("unknown", {})),
        (l1("lookup", identifier="greet"), get("greet", bonn)),
        (l0(*OFFERED), get("greet", bonn)),
    ):
        assert (await refusal_of(f.with_grant(detail, body))).status in (401, 403), (detail, body)


async def test_a_prompt_that_is_not_what_was_approved_is_not_given() -> None:
    f = fixture()
    body = get("greet", {"city": "Bonn"})
    f.guard.observe_prompts([{**PROMPTS[0], "description": "Greets!"}])
    assert (await refusal_of(f.with_grant(prompt_token("greet"), body))).status == 403
    f.guard.observe_prompts([PROMPTS[0], PROMPTS[0]])
    assert (await refusal_of(f.with_grant(prompt_token("greet"), body))).status == 403
    f.guard.observe_prompts(PROMPTS)
    await f.with_grant(prompt_token("greet"), body)
    f.guard.revoke(Revocation("tool", "greet"))
    await f.with_grant(prompt_token("greet"), body)


async def test_a_resource_is_read_where_token_and_registry_name_it_as_it_stands() -> None:
    f = fixture()
    verified = as_call(await f.with_grant(read_token("demo://docs/a/b"), read("demo://docs/a/b")))
    assert (verified.action, verified.name) == ("resources/read", "demo://docs/a/b")
    for uri in (
        *(
            "demo://docs/drafts/a",
            "demo://docs/../vault/a",
            "demo://docs/%2e%2e/a",
            "demo://docs/./a",
            "demo://docs//a",
        ),
        *("demo://docs/", "demo://other/a", "file:///etc/passwd", "docs/a", "demo://docs/a?x", ""),
    ):
        refused = await refusal_of(f.with_grant(read_token(uri) if uri else l1("lookup"), read(uri)))
        assert refused.status == 403, uri
    assert (await refusal_of(f.with_grant(read_token("demo://docs/a"), read("demo://docs/b")))).status == 403
    extra = read("demo://docs/a")
    extra["params"]["arguments"] = {}
    assert (await refusal_of(f.with_grant(read_token("demo://docs/a"), extra))).status == 400
    with_digest = {**read_token("demo://docs/a"), "tool_digest": l1("lookup")["tool_digest"]}
    assert (await refusal_of(f.with_grant(with_digest, read("demo://docs/a")))).status == 401


@pytest.mark.parametrize("kind", ["prompts", "resources"])
@pytest.mark.parametrize("change", ["twice", "unknown member", "no level", "bad name"])
def test_a_snapshot_whose_material_does_not_hold_is_refused(kind: str, change: str) -> None:
    f, members = Fixture(), material()
    first = members[kind][0]
    if change == "twice":
        members[kind].append(first)
    elif change == "unknown member":
        first["more"] = 1
    elif change == "no level":
        first["least_level"] = "L0"
    else:
        described = "definition" if kind == "prompts" else "shown"
        first[described] = {
            **first[described],
            "name" if kind == "prompts" else "uri": "" if kind == "prompts" else "a b",
        }
    with pytest.raises(ValueError, match="snapshot"):
        f.snapshot(**members)


def test_what_a_prompt_lists_is_what_it_takes() -> None:
    assert arguments_schema({}) == {"type": "object", "properties": {}, "additionalProperties": False}
    for wrong in ({"city": {}}, ["city"], [{"name": 1}], [{"name": "a"}, {"name": "a"}], None, [{"name": "a"}] * 101):
        with pytest.raises(ValueError, match="argument"):
            arguments_schema({"arguments": wrong})
    with pytest.raises(ValueError, match="required"):
        arguments_schema({"arguments": [{"name": "a", "required": "yes"}]})


async def listed(w: World, method: str, result: dict[str, Any], detail: Any) -> Any:
    w.server.answers[method] = result
    said = await w.send(listing(method), detail).json()
    (member,) = [value for value in said["result"].values() if isinstance(value, list)]
    return member


async def test_lists_show_what_the_token_says_and_no_more() -> None:
    async with world() as w:
        w.broker.push("snapshot", w.f.sign_snapshot(w.f.document(version=2, **material())))
        await until(lambda: w.app.guard.snapshot is not None and w.app.guard.snapshot.version == 2)
        some = l0(*OFFERED, hidden=("refund", "vault", "demo://vault/*"))
        tools, prompts = {"tools": w.server.live}, {"prompts": w.server.prompts}
        assert [each["name"] for each in await listed(w, "tools/list", tools, some)] == ["lookup", "transfer"]
        assert await listed(w, "prompts/list", prompts, some) == [PROMPTS[0]]
        live = {"uri": "demo://docs/a", "name": "call me", "title": "now", "mimeType": "text/plain", "size": 3}
        others = [{"uri": uri} for uri in ("demo://vault/a", "demo://docs/drafts/a", "demo://docs/%41", "x://y")]
        shown = await listed(w, "resources/list", {"resources": [live, *others, {"uri": 1}]}, some)
        about = {"name": "Documents", "description": "Of the demo"}
        assert shown == [{"uri": "demo://docs/a", **about, "mimeType": "text/plain", "size": 3}]
        odd = {**live, "mimeType": "text/plain; ignore all of it", "size": "3"}
        assert await listed(w, "resources/list", {"resources": [odd]}, some) == [{"uri": "demo://docs/a", **about}]
        texts = ("demo://docs/{id}", "demo://{id}", "demo://vault/{id}", "{x}")
        # Below a folder that is switched off, whatever is on around it.
        texts += ("demo://docs/drafts/{id}", "demo://docs/drafts/a/{id}")
        templates = [{"uriTemplate": text} for text in texts]
        shown = await listed(w, "resources/templates/list", {"resourceTemplates": templates}, some)
        assert shown == [{"uriTemplate": "demo://docs/{id}", **about}]
        silent = {**granted(), "actions": ["tools/list"]}
        assert await listed(w, "tools/list", tools, silent) == [], "a token that says nothing shows nothing"
        stale = w.send(listing(), l0())
        assert ((await stale.json())["error"], stale.status) == ("invalid_token", 401), "of another state"
        assert (await w.send(listing("ping"), l0()).begun()).status == 200


async def test_what_is_approved_is_offered_and_a_change_is_noticed() -> None:
    async with world(tools_max_age_seconds=1e9) as w:
        offered = {"tools": {}, "prompts": {}, "resources": {"subscribe": True, "listChanged": True}, "logging": {}}
        offered |= {"completions": {}, "tasks": {}}
        w.server.answers["server/discover"] = {"capabilities": offered}
        discover = listing("server/discover")
        assert (await w.send(discover).json())["result"]["capabilities"] == {"tools": {}, "logging": {}}
        w.broker.push("snapshot", w.f.sign_snapshot(w.f.document(version=2, **material())))
        await until(lambda: w.app.guard.snapshot is not None and w.app.guard.snapshot.version == 2)
        expected = {"tools": {}, "prompts": {}, "resources": {"listChanged": True}, "logging": {}}
        assert (await w.send(discover).json())["result"]["capabilities"] == expected
        w.app._watch.look_again()
        w.server.answers["prompts/get"] = {"messages": []}
        body = get("greet", {"city": "Bonn"})
        assert (await w.send(body, prompt_token("greet")).begun()).status == 200
        assert w.server.received[-1][0]["mcp-name"] == "greet"
        w.server.prompts[0]["description"] = "Greets!"
        w.looking = l0(*OFFERED)
        session = await w.begin()
        listening = await w.send(None, method="GET", mcp_session_id=session).begun()
        await w.server.streams[0].say({"jsonrpc": "2.0", "method": "notifications/resources/updated"})
        await w.server.streams[0].say({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"})
        assert (await listening.event())["method"] == "notifications/prompts/list_changed"
        await w.refused(w.send(body, prompt_token("greet")), 403)
        await until(lambda: any(event["kind"] == "drifted" for event in w.broker.reported))
        drifted = next(event for event in w.broker.reported if event["kind"] == "drifted")
        assert (drifted["tool"], drifted["action"]) == ("greet", "prompts/get")
