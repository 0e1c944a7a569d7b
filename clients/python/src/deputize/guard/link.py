"""The guard's link to the broker: its snapshot, pushed revocations, redemption, and what it reports."""

from __future__ import annotations

import json
import logging
import os
import random
import tempfile
from pathlib import Path

import anyio
import httpx2

from deputize.call.strict_json import MAX_DEPTH, JsonRefused, JsonValue, parse_object, parse_value
from deputize.client import AsyncClient, ClientOptions
from deputize.clock import Clock
from deputize.errors import DeputizeError

from .guard import Guard, Redeemed
from .pin import SnapshotRefused
from .report import Event, Outbox
from .revocation import Revocation
from .settings import GuardSettings, SettingsError
from .snapshot import MAX_SNAPSHOT_BYTES, Snapshot

logger = logging.getLogger("deputize.guard")


class BrokerLink:
    """Keeps one guard supplied, redeems for it, and reports what it saw. It speaks as the server's own client."""

    def __init__(self, settings: GuardSettings, clock: Clock, client: AsyncClient | None = None) -> None:
        self._settings = settings
        self._clock = clock
        options = ClientOptions(clock=clock, encryption_key=settings.encryption_key)
        self._client = client or AsyncClient(settings.issuer, settings.client_id, settings.private_key, options)
        self._memory = _Memory(settings)
        self._outbox = Outbox(clock)
        self.connected = anyio.Event()
        """Set once a snapshot was taken."""

    async def redeem(self, token: str) -> Redeemed:
        """Ask the maker of an L3 token whether this is its first use."""
        try:
            answer = await self._client.redeem(token)
        except DeputizeError as error:
            logger.warning("token not redeemed", extra={"problem": str(error)})
            return "unavailable"
        return "yes" if answer == "redeemed" else answer

    def report(self, event: Event) -> None:
        """Tell the broker, some time soon, what was seen."""
        self._outbox.put(event)

    async def run(self, guard: Guard) -> None:
        """Follow the broker and report to it, for ever."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._report)
            await self._follow(guard)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def _follow(self, guard: Guard) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            # What cannot be understood, or must not be believed, ends a connection: the guard then hears nothing, and
            # stops calls when the last word is too old.
            heard = _Heard()
            try:
                await self._listen(guard, heard)
                problem = "the broker ended the stream"
            except (httpx2.HTTPError, httpx2.SSEError, DeputizeError, SnapshotRefused, ValueError) as error:
                problem = f"{type(error).__name__}: {error}"
            logger.warning("not connected to the broker", extra={"problem": problem})
            pause = _FIRST_PAUSE_SECONDS if heard.snapshot else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            # Guards that lost the broker together do not come back together.
            await anyio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311

    async def _listen(self, guard: Guard, heard: _Heard) -> None:
        headers = {**self._authorization(), "accept": "text/event-stream", "accept-encoding": "identity"}
        timeout = httpx2.Timeout(_REQUEST_SECONDS, read=_SILENCE_SECONDS)
        async with self._client.http.stream("GET", self._url("events"), headers=headers, timeout=timeout) as response:
            response.raise_for_status()
            async for message in httpx2.EventSource(response, max_event_size=2 * MAX_SNAPSHOT_BYTES):
                self._take(guard, heard, message.event, message.data)

    def _take(self, guard: Guard, heard: _Heard, event: str, data: str) -> None:
        # INVARIANT: word about revocations counts only after a snapshot of this connection was taken: a broker that was
        # put back to an older state has no say in what is revoked.
        if event == "snapshot":
            self._install(guard, _parse(data))
            heard.snapshot = True
        elif event == "revocation" and heard.snapshot:
            guard.revoke(Revocation.read(_parse(data)))
        elif event == "alive" and heard.snapshot:
            guard.hear_revocations()
        else:
            # One that is not known would be ignored where it must not be.
            raise ValueError("the broker's message cannot be read")

    def _install(self, guard: Guard, signed: JsonValue) -> None:
        snapshot = Snapshot.open(signed, self._settings.snapshot_keys, self._clock.now_seconds())
        self._memory.check(snapshot.version)
        guard.install(snapshot)
        self._memory.remember(snapshot.version)
        self.connected.set()

    async def _report(self) -> None:
        while True:
            await anyio.sleep(_REPORT_SECONDS)
            batch = self._outbox.next_batch()
            if not batch:
                continue
            try:
                response = await self._client.http.post(
                    self._url("events"), json={"events": batch}, headers=self._authorization(), timeout=_REQUEST_SECONDS
                )
            except httpx2.HTTPError as error:
                logger.warning("events not reported", extra={"problem": type(error).__name__})
                continue
            if response.status_code == 429 or response.status_code >= 500:
                continue
            if response.status_code != 200:
                # It will not take them next time either.
                logger.error("events refused by the broker", extra={"status": response.status_code})
            self._outbox.done(len(batch))

    def _authorization(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._client.broker.assertion()}"}

    def _url(self, name: str) -> str:
        return f"{self._settings.issuer.rstrip('/')}/guard/{name}"


class _Heard:
    """What came over one connection."""

    snapshot = False


class _Memory:
    """The highest version ever taken, in a file if there is one: through restarts a guard never goes back."""

    def __init__(self, settings: GuardSettings) -> None:
        self._path = settings.state_file
        self._identity = {"issuer": settings.issuer, "resource": settings.resource}
        self._highest = -1 if self._path is None else self._recall(self._path)

    def check(self, version: int) -> None:
        if version < self._highest:
            raise SnapshotRefused(f"snapshot version {version} is below {self._highest}, which was taken before")

    def remember(self, version: int) -> None:
        if version == self._highest:
            return
        self._highest = version
        if self._path is None:
            return
        try:
            # First beside its place, then renamed: what is there is whole.
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
                json.dump({**self._identity, "highest_version": version}, file)
                file.flush()
                os.fsync(file.fileno())
            Path(file.name).replace(self._path)
        except OSError as error:
            # This process knows it; one that starts after it might take an older one.
            logger.error("snapshot version not remembered", extra={"problem": error.strerror})  # noqa: TRY400

    def _recall(self, path: Path) -> int:
        try:
            state = parse_object(path.read_bytes())
        except FileNotFoundError:
            return -1
        except (OSError, JsonRefused) as error:
            raise SettingsError(f"state_file {path} cannot be read: {error}") from None
        version = state.pop("highest_version", None)
        if type(version) is not int or state != self._identity:
            raise SettingsError(f"state_file {path} is of another guard, or none: give each guard its own")
        return version


def _parse(data: str) -> JsonValue:
    return parse_value(data.encode(), MAX_DEPTH)


_REQUEST_SECONDS = 10.0
# The broker says every ten seconds that it is there.
_SILENCE_SECONDS = 25.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
_REPORT_SECONDS = 1.0
