"""The guard's link to the broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from deputize.call.keys import SigningKey
from deputize.guard import Guard, GuardSettings, SettingsError
from deputize.guard import link as link_module
from deputize.guard.link import BrokerLink
from deputize.guard.report import Event, Outbox
from guard_broker import GuardBroker, until
from guard_fixture import Fixture, call, definitions, jwks_of, l1, refusal_of


@asynccontextmanager
async def linked(broker: GuardBroker, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guard]:
    monkeypatch.setattr(link_module, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(link_module, "_LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(link_module, "_REPORT_SECONDS", 0.001)
    f = broker.f
    link = BrokerLink(f.settings, f.clock, broker.client())
    f.guard = Guard(f.settings, link, clock=f.clock)
    following = asyncio.create_task(link.run(f.guard))
    try:
        yield f.guard
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def look(f: Fixture) -> Any:
    f.guard.observe_tools(definitions())
    return await f.with_grant(l1("lookup"), call("lookup", {}))


async def test_what_the_broker_says_is_what_the_guard_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    f = Fixture()
    broker = GuardBroker(f)
    async with linked(broker, monkeypatch) as guard:
        await until(lambda: guard.snapshot is not None)
        await look(f)
        broker.push("revocation", {"kind": "tool", "name": "lookup"})
        broker.version = 2
        broker.push("snapshot", broker.snapshot(revocations=[{"kind": "everything"}]))
        await until(lambda: guard.snapshot is not None and guard.snapshot.version == 2)
        assert (await refusal_of(look(f))).status == 401
        broker.version = 3
        broker.push("snapshot", broker.snapshot())
        await until(lambda: guard.snapshot is not None and guard.snapshot.version == 3)
        await look(f)
        f.clock.advance(61)
        assert (await refusal_of(look(f))).status == 503, "silence"
        broker.push("alive", {})
        await until(lambda: guard._revocations._heard == f.clock.uptime())
        await look(f)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("revocation", {"kind": "unheard of"}),
        ("revocation", "{"),
        ("snapshot", {}),
        ("news", {}),
        ("alive", None),
    ],
)
async def test_what_cannot_be_understood_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, event: str, data: Any
) -> None:
    broker = GuardBroker(Fixture(), first_snapshot=event != "alive")
    async with linked(broker, monkeypatch) as guard:
        await until(lambda: len(broker.queues) == 1)
        # Word about revocations counts only after a snapshot of this connection.
        broker.push(event, data if data is not None else {})
        await until(lambda: len(broker.queues) > 1)
        if event == "alive":
            assert guard._revocations._heard is None


async def test_a_snapshot_that_is_older_forged_or_of_another_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    f = Fixture()
    broker = GuardBroker(f)
    broker.version = 5
    async with linked(broker, monkeypatch) as guard:
        await until(lambda: guard.snapshot is not None)
        older = f.sign_snapshot(f.document(version=4))
        forged = f.sign_snapshot(f.document(version=9), f.broker)
        foreign = f.sign_snapshot(f.document(version=9, resource="https://crm.example.com/mcp"))
        for snapshot in (older, forged, foreign):
            connections = len(broker.queues)
            broker.push("snapshot", snapshot)
            await until(lambda connections=connections: len(broker.queues) > connections)
        assert guard.snapshot is not None
        assert guard.snapshot.version == 5


async def test_it_comes_again_when_the_stream_ends_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = GuardBroker(Fixture())
    async with linked(broker, monkeypatch):
        await until(lambda: len(broker.queues) == 1)
        broker.status = 503
        broker.end()
        asked = len(broker.assertions)
        await until(lambda: len(broker.assertions) > asked + 3)
        broker.status = 200
        await until(lambda: len(broker.queues) == 2)


async def test_the_highest_version_is_remembered_through_restarts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    f = Fixture(state_file=state)
    broker = GuardBroker(f)
    broker.version = 7
    async with linked(broker, monkeypatch) as guard:
        await until(lambda: guard.snapshot is not None)
    assert json.loads(state.read_text())["highest_version"] == 7
    assert [each.name for each in tmp_path.iterdir()] == ["state.json"]
    broker.version = 6
    async with linked(broker, monkeypatch) as guard:
        connections = len(broker.queues)
        await until(lambda: len(broker.queues) > connections + 1)
        assert guard.snapshot is None
        broker.version = 8
        await until(lambda: guard.snapshot is not None)
    other = Fixture(state_file=state)
    object.__setattr__(other.settings, "resource", "https://crm.example.com/mcp")
    for text in (None, "", "{}", '{"highest_version":"7"}'):
        if text is not None:
            state.write_text(text)
        with pytest.raises(SettingsError):
            BrokerLink(other.settings, other.clock)


async def test_redemption_asks_the_broker_and_fails_closed() -> None:
    f = Fixture()
    broker = GuardBroker(f)
    link = BrokerLink(f.settings, f.clock, broker.client())
    assert [await link.redeem("t"), await link.redeem("t"), await link.redeem("u")] == ["yes", "already_used", "yes"]
    unreachable = BrokerLink(f.settings, f.clock)
    unreachable._client.broker.issuer = "https://127.0.0.1:1"
    assert await unreachable.redeem("t") == "unavailable"
    await unreachable.aclose()


async def test_what_was_seen_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    f = Fixture()
    broker = GuardBroker(f)
    monkeypatch.setattr(link_module, "_REPORT_SECONDS", 0.001)
    link = BrokerLink(f.settings, f.clock, broker.client())
    broker.status = 503
    for number in range(250):
        link.report(Event(kind="executed", tool=f"tool-{number}", txn="t" * 300, result_bytes=number))
    reporting = asyncio.create_task(link._report())
    asked = len(broker.assertions)
    await until(lambda: len(broker.assertions) > asked + 2)
    assert broker.reported == []
    broker.status = 200
    await until(lambda: len(broker.reported) == 250)
    reporting.cancel()
    assert [each["tool"] for each in broker.reported] == [f"tool-{number}" for number in range(250)]
    assert len({each["id"] for each in broker.reported}) == 250
    first = broker.reported[0]
    assert (first["kind"], first["bytes"], len(first["txn"])) == ("executed", 0, 64)
    assert first["id"][14] == "7"
    assert first["id"][19] in "89ab"


def test_events_that_find_no_room_are_lost_and_counted() -> None:
    outbox = Outbox(Fixture().clock)
    for _ in range(1_005):
        outbox.put(Event(kind="failed", detail={"long": "x" * 5000}))
    assert (len(outbox.next_batch()), outbox.lost) == (100, 5)
    assert all(isinstance(each, dict) and "detail" not in each for each in outbox.next_batch())


def test_settings_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    key, signer = SigningKey.generate(), SigningKey.generate()
    private = {**key._key.as_dict(private=True), "kid": key.kid}
    settings = {
        "issuer": "https://deputize.example.com",
        "resource": "https://pay.example.com/mcp",
        "public_url": "https://pay.example.com/mcp",
        "client_id": "pay-guard",
        "private_key": private,
        "snapshot_keys": {"keys": [{**signer.public.jwk, "kid": signer.kid}]},
    }
    file = tmp_path / "guard.json"
    file.write_text(json.dumps(settings))
    environment = {
        f"DEPUTIZE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in settings.items()
    }
    read = [
        GuardSettings.from_file(file),
        GuardSettings.from_env(environment),
        GuardSettings.from_env({"DEPUTIZE_GUARD_SETTINGS": str(file)}),
    ]
    for each in read:
        assert (each.issuer, each.client_id) == ("https://deputize.example.com", "pay-guard")
        assert each.private_key.public.thumbprint == key.public.thumbprint
        assert each.snapshot_keys.keys[0].thumbprint == jwks_of(signer).keys[0].thumbprint
        assert each.resource_metadata == "https://pay.example.com/.well-known/oauth-protected-resource/mcp"
        assert str(private["d"]) not in repr(each)
    for name, value in (
        ("issuer", "http://deputize.example.com"),
        ("public_url", "pay"),
        ("resource", ""),
        ("client_id", 1),
        ("private_key", {"kty": "EC"}),
        ("private_key", key.public.jwk),
        ("snapshot_keys", {"keys": []}),
        ("unknown", "x"),
    ):
        with pytest.raises(SettingsError):
            GuardSettings.from_mapping({**settings, name: value})
    for text in (b"", b"[]", b'{"issuer":1,"issuer":2}'):
        file.write_bytes(text)
        with pytest.raises(SettingsError, match=r"guard\.json"):
            GuardSettings.from_file(file)
    with pytest.raises(SettingsError):
        GuardSettings.from_file(tmp_path / "missing.json")
