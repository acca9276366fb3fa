"""Who may write itself into a lease, and that its holder lets go in time. The server is played; a real one is the cluster tier's."""

from __future__ import annotations

import asyncio
import copy
import time
from typing import Any

import pytest

from moorage_operator import lease
from moorage_operator.kube import KubeError
from moorage_operator.lease import LASTS_SECONDS, Lease, Watched, may_take

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("holder", "silent", "expected"),
    [
        ("me", 0.0, True),
        ("me", 1000.0, True),
        ("", 0.0, True),
        ("other", 0.0, False),
        ("other", LASTS_SECONDS - 0.1, False),
        ("other", float(LASTS_SECONDS), True),
    ],
)
def test_a_lease_is_taken_only_from_nobody_or_the_silent(holder: str, silent: float, expected: bool) -> None:
    assert may_take(Watched(holder, "7", since=100.0), "me", now=100.0 + silent) is expected


class Server:
    """One Lease object. `hang`: no call is answered any more."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 0
        self.hang = False

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        if self.hang:
            await asyncio.Event().wait()
        return copy.deepcopy(self.body)

    async def create(self, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
        if self.body is not None:
            raise KubeError(409, "AlreadyExists", "there is one")
        return self._store(body)

    async def replace(self, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
        if body["metadata"].get("resourceVersion") != str(self.version):
            raise KubeError(409, "Conflict", "changed meanwhile")
        return self._store(body)

    def _store(self, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        self.body = copy.deepcopy(body)
        self.body["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lease, "GIVE_UP_SECONDS", 0.2)
    monkeypatch.setattr(lease, "LASTS_SECONDS", 1)
    return Server()


def made(server: Server, me: str) -> Lease:
    return Lease(server, "moorage", "lease", me, now=time.monotonic, wall=time.time)  # type: ignore[arg-type]


async def within(work: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        await work


async def test_an_api_server_that_hangs_costs_the_lease_before_another_may_take_it(server: Server) -> None:
    one = made(server, "one")
    await within(one.held())
    server.hang = True
    await within(one.lost())


async def test_whoever_finds_another_in_its_place_stops(server: Server) -> None:
    one = made(server, "one")
    await within(one.held())
    assert server.body is not None
    server.body["spec"]["holderIdentity"] = "two"
    server.version += 1
    server.body["metadata"]["resourceVersion"] = str(server.version)
    await within(one.lost())
    assert server.body["spec"]["holderIdentity"] == "two", "it writes over nobody"


async def test_a_follower_waits_and_takes_over_from_the_silent_and_at_once_from_who_gave_it_back(
    server: Server,
) -> None:
    one, two, three = (made(server, name) for name in ("one", "two", "three"))
    await within(one.held())
    assert not await two._try()
    await within(two.held())  # the first is silent
    await two.release()
    assert await three._try()
    assert server.body is not None and server.body["spec"]["leaseTransitions"] == 3
