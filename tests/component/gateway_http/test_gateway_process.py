"""A whole gateway on a real Valkey and a folder: composition, health that means it, metrics, drain; and as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
import redis.asyncio as aioredis

from fakes import gateway_settings
from fakes.raw_http import exchange
from fakes.valkey import Valkey
from moorage_api.ledger.records import SessionIdentity
from moorage_api.ledger.turns import Acceptance, TurnLedger
from moorage_gateway.app import Gateway, create_gateway
from moorage_gateway.egress.budgets import Bounds
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.settings import Settings

pytestmark = pytest.mark.component


def settings(valkey: Valkey, folder: Path) -> Settings:
    return gateway_settings.settings(valkey, folder, dev=True, anonymous=True)


@pytest.fixture
async def gateway(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = await create_gateway(settings(valkey, tmp_path), access_sink=lambda _: None)
    await made.start()
    yield made
    await made.stop()


async def test_the_settings_of_egress_are_the_proxys_bounds(valkey: Valkey, tmp_path: Path) -> None:
    said = {"egress_connections": 3, "egress_requests": 4, "egress_sent": "5Mi", "egress_received": "6Mi"}
    made = await create_gateway(settings(valkey, tmp_path).model_copy(update=said), access_sink=lambda _: None)
    await made.start()
    assert made.egress.budgets.bounds == Bounds(3, 4, 5 << 20, 6 << 20)
    figures = (await exchange(made.control.port, get("/metrics"))).data
    for name in ("moorage_egress_requests_total", "moorage_egress_bytes_total", "moorage_egress_connections"):
        assert name.encode() in figures
    await made.stop()


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_a_started_gateway_is_ready_and_answers_every_listener(gateway: Gateway) -> None:
    assert (await exchange(gateway.public.port, get("/readyz"))).statuses == [200]
    assert (await exchange(gateway.control.port, get("/healthz"))).statuses == [200]
    assert (await exchange(gateway.sandbox.port, get("/healthz"))).statuses == [200]
    metrics = await exchange(gateway.control.port, get("/metrics"))
    assert b"moorage_redis_commands " in metrics.data
    assert (await exchange(gateway.public.port, get("/metrics"))).statuses == [404]
    models = await exchange(gateway.public.port, get("/v1/models"))
    assert models.statuses == [200]


async def test_an_unknown_agent_is_a_404_through_the_real_services(gateway: Gateway) -> None:
    body = b'{"model": "nobody", "input": "x"}'
    reply = await exchange(
        gateway.public.port,
        b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
    )
    assert reply.statuses == [404]
    missing = await exchange(gateway.public.port, get("/v1/agents/x/responses/caresp_" + "0" * 18 + "a" * 32))
    assert missing.statuses == [404]


@pytest.mark.parametrize("store", [True, False])
async def test_a_turn_whose_acceptor_died_before_it_proved_it_is_proved_by_who_takes_it(
    gateway: Gateway, valkey: Valkey, tmp_path: Path, store: bool
) -> None:
    """Else Redis and the second owner going too would leave no trace of it (decisions/0010)."""
    dead = LedgerClient(aioredis.Redis.from_url(valkey.url), who="dead")
    await dead.found()
    turns, response = TurnLedger(dead), "caresp_" + "0" * 18 + "a" * 32
    meta = {
        "tenant": "dev", "user": "u", "agent": "a", "revision": "r1", "session_id": "s1", "partition": "p1",
        "created_at": 1, "model": "a", "body": {}, "store": store, "background": False,
    }  # fmt: skip
    who = SessionIdentity("dev", "a", "u", "s1", "p1", "r1")
    accepted = await turns.accept(
        Acceptance(
            response=response, session="dev:p1", identity=who, queue_limit=2, deadline_ms=2**42, meta=orjson.dumps(meta).decode(),
            input="[]",
            running_events=['{"type":"response.created"}'], queued_events=["{}"],
        )
    )  # fmt: skip
    proof = tmp_path / "open" / f"{response}.json"
    assert not proof.exists()
    await turns.release(response, accepted.fence)
    async with asyncio.timeout(10):
        while gateway.core.keeper.get(response) is None:
            await asyncio.sleep(0.01)
    assert proof.exists() is store
    if store:
        told = orjson.loads(proof.read_bytes())
        assert (told["meta"], told["accepted"], told["queued"]) == (meta, accepted.accepted, False)
    await dead.aclose()


async def test_without_redis_a_gateway_is_unready_but_serves_to_say_so(tmp_path: Path) -> None:
    own = Valkey()
    try:
        made = await create_gateway(settings(own, tmp_path), access_sink=lambda _: None)
        await made.start()
        try:
            own.stop(kill=True)
            ports = made.public.port, made.control.port
            assert [(await exchange(port, get("/readyz"))).statuses for port in ports] == [[503], [503]]
            assert [(await exchange(port, get("/servez"))).statuses for port in ports] == [[200], [200]]
        finally:
            await made.stop()
    finally:
        own.close()


async def test_a_draining_gateway_serves_no_more(valkey: Valkey, tmp_path: Path) -> None:
    noticing = settings(valkey, tmp_path).model_copy(update={"drain_notice_seconds": 2.0})
    made = await create_gateway(noticing, access_sink=lambda _: None)
    await made.start()
    draining = asyncio.create_task(made.drain())
    try:
        await asyncio.sleep(0)  # its first step
        assert (await exchange(made.control.port, get("/servez"))).statuses == [503]
    finally:
        await draining


async def test_a_drained_gateway_leaves_no_beat_and_no_task(valkey: Valkey, tmp_path: Path) -> None:
    gateway = await create_gateway(settings(valkey, tmp_path), access_sink=lambda _: None)
    await gateway.start()
    before = asyncio.all_tasks()
    assert any(task.get_name() == "turns" for task in before)
    await gateway.drain()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_the_process_serves_until_sigterm_and_exits_cleanly(valkey: Valkey, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moorage_gateway",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            "MOORAGE_REDIS_URL": valkey.url,
            "MOORAGE_STORE": str(tmp_path),
            "MOORAGE_DURABILITY": "relaxed",
            "MOORAGE_DRAIN_NOTICE_SECONDS": "0",
            **{f"MOORAGE_{name}_PORT": "0" for name in ("PUBLIC", "SANDBOX", "EGRESS", "CONTROL")},
        },
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        lines = b""
        while b"serves http://" not in lines:
            line = await process.stderr.readline()
            assert line, lines
            lines += line
        port = int(lines.split(b"serves http://127.0.0.1:")[1].split()[0])
        assert (await exchange(port, get("/readyz"))).statuses == [200]
        assert (await exchange(port, get("/v1/models"))).statuses == [401]
        process.send_signal(signal.SIGTERM)
        _, rest = await process.communicate()
    assert process.returncode == 0, rest


async def test_a_bad_setting_ends_the_process_and_is_named() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MOORAGE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "moorage_gateway",
        stderr=asyncio.subprocess.PIPE,
        env={**env, "MOORAGE_STORE": "/x", "MOORAGE_PUBLIC_PORT": "eighty"},
    )
    async with asyncio.timeout(60):
        _, said = await process.communicate()
    assert process.returncode == 2
    assert b"MOORAGE_PUBLIC_PORT" in said and b"MOORAGE_REDIS_URL: is missing" in said
    assert orjson.dumps(said.decode())
