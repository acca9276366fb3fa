"""A gateway and a Valkey on this machine beside the node, and the provider's part of the ledger played by hand.

Limits: the provider here only offers what a test has made; nothing is woken, nothing is proved dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio as aioredis

from cluster.node import plan
from fakes.platform import poll
from fakes.valkey import Valkey
from moorage_api import names, tokens
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.kinds import parse
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor
from moorage_gateway.app import open_store
from moorage_gateway.checkpoints import Checkpoints
from moorage_gateway.clock import SystemClock
from moorage_gateway.keys import KeyService, new_text
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.settings import load

TENANT = "dev"
USER = "dev"
REVISION = "r1"
END_SECONDS = 20.0


@dataclass(frozen=True)
class Born:
    """A sandbox to be: its id, and the secrets that its shim and the ledger must agree on."""

    sandbox: str
    secret: str
    token: str
    volume: str


class Desk:
    """`url` and `key`: what a caller needs, `keys` each tenant's; `announce`: where shims find the gateway."""

    def __init__(
        self,
        folder: Path,
        valkey: Valkey,
        names: Mapping[str, str] | None = None,
        more: Mapping[str, str] | None = None,
        tenants: Iterable[str] = (),
    ) -> None:
        self._folder = folder
        self._tenants = (TENANT, *tenants)
        self._more = dict(more or {})
        self._valkey = valkey
        self._token_key = secrets.token_hex(32)
        self._names = dict(names or {})
        self._port, self._sandbox_port = _free_port("127.0.0.1"), _free_port(plan.HOST)
        self._egress_port = _free_port(plan.HOST)
        self.url = f"http://127.0.0.1:{self._port}"
        self.announce = f"http://{plan.HOST}:{self._sandbox_port}"
        self.egress = f"http://{plan.HOST}:{self._egress_port}"
        self.keys: dict[str, str] = {}
        self._gateway: subprocess.Popen[bytes] | None = None

    def open(self, agent: str | None) -> None:
        """Founds the ledger, makes the keys and starts the gateway. Publishes `agent` as its provider would; None: one plays itself."""
        asyncio.run(self._furnish(agent, self._settings()))
        self._start()

    def again(self, more: Mapping[str, str]) -> None:
        """The gateway with these settings too, at the same addresses: it is ended and started, unless it has them already."""
        if self._more | more == self._more:
            return
        self._more |= more
        self.close()
        self._start()

    def _settings(self) -> dict[str, str]:
        return {
            "MOORAGE_REDIS_URL": self._valkey.url,
            "MOORAGE_STORE": str(self._folder / "store"),
            "MOORAGE_PUBLIC_PORT": str(self._port),
            "MOORAGE_CONTROL_PORT": "0",
            "MOORAGE_SANDBOX_HOST": plan.HOST,
            "MOORAGE_SANDBOX_PORT": str(self._sandbox_port),
            "MOORAGE_EGRESS_HOST": plan.HOST,
            "MOORAGE_EGRESS_PORT": str(self._egress_port),
            "MOORAGE_BUILD_HOSTS": ",".join(self._names),
            "MOORAGE_DRAIN_NOTICE_SECONDS": "0",
            "MOORAGE_DRAIN_SECONDS": "2",
        } | self._more

    def _start(self) -> None:
        env = os.environ | self._settings()
        with (self._folder / "gateway.log").open("ab") as log:
            command = [*self._knowing(), sys.executable, "-m", "moorage_gateway"]
            self._gateway = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=log)
        poll("the gateway is ready", self._is_ready)

    @property
    def key(self) -> str:
        """An admin's of the desk's own tenant."""
        return self.keys[TENANT]

    @property
    def gateway_pid(self) -> int:
        """Of the gateway: `exec` keeps the number where a shell came first."""
        assert self._gateway is not None
        return self._gateway.pid

    def birth(self, agent: str) -> Born:
        """What a new sandbox of the agent is told."""
        sandbox = names.new_sandbox_id()
        volume = f"v-{sandbox}"
        token = tokens.sign(tokens.Identity(sandbox, TENANT, agent, REVISION, volume), self._token_key)
        return Born(sandbox, names.new_secret(), token, volume)

    def offer(self, agent: str, born: Born, endpoint: str) -> None:
        """The sandbox is ready to be claimed."""

        async def offered() -> bool:
            async with self._ledger() as ledger:
                return await ledger.offer(
                    Descriptor(born.sandbox, TENANT, agent, REVISION, endpoint, born.secret, born.volume, ())
                )

        assert asyncio.run(offered())

    def whole_checkpoints(self, agent: str, session: str, key: str) -> list[str]:
        """Ids of a session's checkpoints in the store, newest first, each read whole past any gateway. Raises Damaged.

        `key`: what pointers are signed with.
        """
        return asyncio.run(self._whole(names.partition(TENANT, agent, USER, session), key))

    async def _whole(self, partition: str, key: str) -> list[str]:
        store = open_store(load(self._settings()))
        try:
            kept = Checkpoints(store, SystemClock(), lambda: key)
            found = await kept.all(TENANT, partition)
            for one in found:
                await kept.verify(TENANT, partition, one)
        finally:
            await store.aclose()
        return [one.id for one in found]

    def close(self) -> None:
        """Ends the gateway."""
        if self._gateway is not None and self._gateway.poll() is None:
            self._gateway.terminate()
            try:
                self._gateway.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._gateway.kill()
                self._gateway.wait()

    def _knowing(self) -> list[str]:
        """What makes the gateway, and nobody else on this machine, know our names: a hosts file in a mount namespace of its own."""
        if not self._names:
            return []
        hosts = self._folder / "hosts"
        lines = [f"{address} {name.partition(':')[0]}\n" for name, address in self._names.items()]
        hosts.write_text(Path("/etc/hosts").read_text() + "".join(lines))
        return ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]

    def _is_ready(self) -> bool:
        assert self._gateway is not None
        assert self._gateway.poll() is None, (self._folder / "gateway.log").read_text()[-2000:]
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    @contextlib.asynccontextmanager
    async def _ledger(self) -> AsyncIterator[ProviderLedger]:
        client = LedgerClient(aioredis.Redis.from_url(self._valkey.url), who="hand-made-provider")
        try:
            await client.found()
            yield ProviderLedger(client)
        finally:
            await client.aclose()

    @property
    def redis_url(self) -> str:
        """Where the ledger is."""
        return self._valkey.url

    async def _furnish(self, agent: str | None, settings: Mapping[str, str]) -> None:
        if agent is not None:
            await self._publish(agent)
        client = LedgerClient(aioredis.Redis.from_url(self._valkey.url), who="first-key")
        try:
            await client.found()
            store = open_store(load(settings))
            keys = KeyService(store, client, now=time.time, monotonic=time.monotonic)
            for tenant in self._tenants:
                self.keys[tenant] = new_text()
                await keys.ensure(self.keys[tenant], tenant=tenant, user=USER, scopes=("admin",))
            await store.aclose()
        finally:
            await client.aclose()

    async def _publish(self, agent: str) -> None:
        async with self._ledger() as ledger:
            await ledger.set_token_key(self._token_key)
            document = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": agent}}
            spec = parse({**document, "spec": {"source": {"path": "."}}}).spec
            await ledger.publish(
                AgentEntry(
                    tenant=TENANT, agent=agent, revisions=(RevisionEntry(REVISION),),
                    protocols=frozenset({"responses", "invocations"}), contract="moorage",
                    spec=spec.model_dump(mode="json", by_alias=True),
                )
            )  # fmt: skip


@contextlib.contextmanager
def desk(
    folder: Path,
    agent: str | None,
    names: Mapping[str, str] | None = None,
    more: Mapping[str, str] | None = None,
    tenants: Iterable[str] = (),
) -> Iterator[Desk]:
    """An open desk with a Valkey of its own. `names`: host:port → address, which its builds may reach. `more`: settings of the gateway.

    `tenants`: further ones that get a key.
    """
    valkey = Valkey()
    made = Desk(folder, valkey, names, more, tenants)
    try:
        made.open(agent)
        yield made
    finally:
        made.close()
        valkey.close()


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])
