"""A sandbox in a pod and a real gateway: no secret in what the pod is told, two proofs at every call, a route that returns after a loss."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis.asyncio as aioredis

from fakes import pod_tokens as cluster
from fakes.catalogs import learned
from fakes.gateway_settings import settings
from fakes.raw_http import exchange
from fakes.two_containers import SANDBOX, TwoContainers
from fakes.valkey import Valkey
from moorage_api import names, tokens
from moorage_api.catalog import AgentEntry, RevisionEntry
from moorage_api.ledger import keys
from moorage_api.ledger.provider import ProviderLedger
from moorage_api.ledger.records import Descriptor, SessionIdentity, SessionRecord
from moorage_api.wire.hop import HopPool
from moorage_gateway.activation import Wanted
from moorage_gateway.app import Gateway, create_gateway
from moorage_gateway.catalog import Catalog
from moorage_gateway.clock import SystemClock
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.upstream import Route
from moorage_sandbox.config import Limits

pytestmark = pytest.mark.component

KEY = "5a" * 32
IDENTITY = tokens.Identity(SANDBOX, cluster.TENANT, "a", "r1", "vol-1")
WHO = SessionIdentity(cluster.TENANT, "a", "ada", "s-12345678", names.partition("acme", "a", "ada", "s-12345678"), "r1")
SESSION = names.session_key(WHO.tenant, WHO.partition)
WITHIN = 60.0


async def until(what: str, look: Callable[[], Any]) -> Any:
    """The first truthy answer of an async `look`, or AssertionError naming `what`."""
    deadline = time.monotonic() + WITHIN
    while not (found := await look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {WITHIN} s"
        await asyncio.sleep(0.02)
    return found


@dataclass
class Platform:
    """A gateway in this process, and the provider's half of the ledger."""

    gateway: Gateway
    provider: ProviderLedger

    async def publish(self) -> None:
        """What the operator publishes, in its order; back when the gateway has been told."""
        await self.provider.set_pod_tokens(cluster.published())
        await self.provider.set_token_key(KEY)
        entry = AgentEntry(cluster.TENANT, "a", (RevisionEntry("r1"),), frozenset({"responses"}), "moorage", {})
        await self.provider.publish(entry)
        await learned(
            [self.gateway],
            lambda known: None not in (known.pod_tokens, known.token_key, known.get(cluster.TENANT, "a")),
        )

    async def acquire(self) -> Route:
        """The session's sandbox, as a turn gets it."""
        core = self.gateway.core
        core.activation.forget(SESSION)
        return await core.activation.acquire(Wanted(SESSION, WHO, named=True), deadline=core.clock.monotonic() + WITHIN)

    async def session(self) -> SessionRecord | None:
        return await self.gateway.core.session_ledger.session(SESSION)

    async def announce(self, *shown: tuple[str, str], **said: Any) -> tuple[int, dict[str, Any]]:
        """One call of the sandbox port with these headers."""
        body = orjson.dumps({"sandbox": SANDBOX, "state": "unbound", "endpoint": "http://127.0.0.1:9", **said})
        lines = [f"{name}: {value}" for name, value in (("Host", "x"), ("Content-Length", str(len(body))), *shown)]
        head = "\r\n".join(["POST /sandbox/v1/announce HTTP/1.1", *lines, "", ""])
        reply = await exchange(self.gateway.sandbox.port, head.encode() + body)
        return reply.statuses[0], orjson.loads(reply.data.partition(b"\r\n\r\n")[2])


@pytest.fixture
async def platform(valkey: Valkey, ledger: LedgerClient, tmp_path: Path) -> AsyncIterator[Platform]:
    gateway = await create_gateway(settings(valkey, tmp_path / "store"), access_sink=lambda _: None)
    await gateway.start()
    yield Platform(gateway, ProviderLedger(ledger))
    await gateway.stop()


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[TwoContainers]:
    made = TwoContainers(tmp_path)
    yield made
    made.close()


def bearer() -> tuple[str, str]:
    return "Authorization", f"Bearer {tokens.sign(IDENTITY, KEY)}"


def pod_token(name: str = SANDBOX, **other: Any) -> tuple[str, str]:
    return "x-moorage-pod-token", cluster.token(cluster.claims(name, time.time(), **other))


async def test_a_shim_that_was_told_no_secret_is_bound_and_its_route_returns_after_a_loss(
    platform: Platform, pod: TwoContainers, valkey: Valkey, tmp_path: Path
) -> None:
    await platform.publish()
    token, secret = tmp_path / "token", tokens.sandbox_secret(SANDBOX, KEY)
    pod.agent()
    pod.shim(
        tenant=cluster.TENANT,
        secret="",
        secret_sha256=tokens.secret_sha256(secret),
        token=tokens.sign(IDENTITY, KEY),
        token_file=str(token),
        gateways=(platform.gateway.sandbox_url,),
        limits=Limits(announce=0.3),
    )
    assert secret not in (pod.folder / "shim.json").read_text()
    address = pod.endpoint.removeprefix("http://").split(":")
    await until("the shim listens", lambda: asyncio.to_thread(listens, address[0], int(address[1])))
    one = Descriptor(SANDBOX, cluster.TENANT, "a", "r1", pod.endpoint, secret, "vol-1")
    assert await platform.provider.offer(one)

    route = await platform.acquire()
    assert (route.sandbox, await status(route)) == (SANDBOX, "bound")

    valkey.flush()
    # Nothing can bring the route back as long as the pod's token is not there to be read.
    assert (await platform.announce(bearer()))[0] == 401
    assert await platform.session() is None
    token.write_text(pod_token()[1])
    record = await until("the route returned", platform.session)
    assert (record.sandbox, record.endpoint, record.epoch) == (SANDBOX, pod.endpoint, route.epoch)
    again = await platform.acquire()
    assert (again.secret, await status(again)) == (secret, "bound")


def listens(host: str, port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((host, port)) == 0


async def status(route: Route) -> str:
    """What the shim behind a route says of itself to who shows the route's secret."""
    pool = HopPool()
    head = [(b"x-moorage-secret", route.secret.encode())]
    answer = await pool.request(route.endpoint, "GET", "/shim/status", head, None, connect_timeout=5, head_timeout=10)
    said: dict[str, Any] = orjson.loads(await answer.read(100_000))
    await pool.close()
    await asyncio.sleep(0)
    return str(said.get("state"))


async def test_of_a_sandbox_that_serves_its_provider_is_told_once_and_only_with_proof(
    platform: Platform, ledger: LedgerClient, valkey: Valkey
) -> None:
    await platform.publish()
    async with aioredis.Redis.from_url(valkey.url) as redis, redis.pubsub(ignore_subscribe_messages=True) as heard:
        await heard.subscribe(keys.HINT_SERVING)
        assert (await platform.announce(bearer()))[0] == 401
        for _ in range(2):
            assert (await platform.announce(bearer(), pod_token()))[0] == 200
        await redis.publish(keys.HINT_SERVING, "the last")
        said = []
        while b"the last" not in said:
            async with asyncio.timeout(WITHIN):
                message = await heard.get_message(timeout=WITHIN)
            said += [message["data"]] if message else []
    assert said == [f"{SANDBOX} http://127.0.0.1:9".encode(), b"the last"]


async def test_a_descriptor_alone_is_refused_and_so_is_one_with_anothers_pod_token(platform: Platform) -> None:
    await platform.publish()
    assert (await platform.announce(bearer(), pod_token()))[0] == 200
    for shown in (
        (bearer(),),
        (pod_token(),),
        (bearer(), pod_token("sb-other")),
        (bearer(), pod_token(namespace="default")),
        (bearer(), pod_token(aud=["https://kubernetes.default.svc"])),
        (bearer(), pod_token(exp=int(time.time()) - 3600)),
        (bearer(), pod_token(), pod_token()),
        (bearer(), bearer(), pod_token()),
        (bearer(), ("x-moorage-pod-token", "")),
        (bearer(), ("x-moorage-pod-token", "a" * 5000)),
    ):
        status, answer = await platform.announce(*shown)
        assert status == 401, shown
        assert not any(value in str(answer) for _, value in shown if value)


async def test_a_platform_without_pods_takes_the_token_alone(platform: Platform) -> None:
    await platform.provider.set_token_key(KEY)

    async def told() -> bool:
        return platform.gateway.core.catalog.token_key is not None

    await until("the gateway was told", told)
    assert (await platform.announce(bearer(), secret="s"))[0] == 200


async def test_a_loss_never_takes_back_that_pods_must_prove_themselves(platform: Platform, valkey: Valkey) -> None:
    await platform.publish()
    valkey.flush()
    await platform.gateway.core.catalog.load()
    assert (await platform.announce(bearer()))[0] == 401
    assert (await platform.announce(bearer(), pod_token()))[0] == 200


async def test_what_a_gateway_cannot_read_lets_nobody_in_until_it_is_mended(ledger: LedgerClient) -> None:
    catalog, provider = Catalog(ledger, SystemClock()), ProviderLedger(ledger)
    await ledger.read("HSET", keys.PLATFORM, "pod_tokens", '{"issuer":"x"}')
    await catalog.load()
    assert catalog.pod_tokens is not None and catalog.pod_tokens.namespaces == {}
    await provider.set_pod_tokens(cluster.published())
    await catalog.load()
    assert catalog.pod_tokens == cluster.published()
    await ledger.read("HSET", keys.PLATFORM, "pod_tokens", "nonsense")
    await catalog.load()
    assert catalog.pod_tokens == cluster.published(), "the last that could be read"
