"""`deputize dev`, started on free ports, found through its ready file and ended by its process id."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from deputize import ClientOptions, SigningKey
from deputize.client import AsyncClient, Client

ROOT = Path(__file__).parents[3]
START_SECONDS = 60.0


class Dev:
    """A running development environment: the broker, an identity provider and two MCP servers."""

    def __init__(self, *arguments: str) -> None:
        binary = Path(os.environ.get("DEPUTIZE_BIN", ROOT / "target" / "debug" / "deputize"))
        if not binary.is_file():
            raise FileNotFoundError(f"{binary} is not there: build it (cargo build), or name another in DEPUTIZE_BIN")
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        ready_file, self._log = folder / "ready.json", folder / "dev.log"
        command = [str(binary), "dev", "--port", "0", "--ready-file", str(ready_file), *arguments]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + START_SECONDS
        # It comes by rename, so what is there is whole.
        while not ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"deputize dev did not start:\n{self._log.read_text()}")
            time.sleep(0.05)
        self.ready: dict[str, Any] = json.loads(ready_file.read_text())

    @property
    def alice(self) -> str:
        token = self.ready["user_tokens"]["alice"]
        assert isinstance(token, str)
        return token

    def server(self, index: int = 0) -> dict[str, Any]:
        server = self.ready["servers"][index]
        assert isinstance(server, dict)
        return server

    def client(self, options: ClientOptions | None = None) -> AsyncClient:
        return AsyncClient(self.ready["issuer"], *self._platform(), options)

    def sync_client(self, options: ClientOptions | None = None) -> Client:
        return Client(self.ready["issuer"], *self._platform(), options)

    def _platform(self) -> tuple[str, SigningKey]:
        client = self.ready["client"]
        return client["client_id"], SigningKey.from_jwk(client["private_jwk"])

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Dev:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()
