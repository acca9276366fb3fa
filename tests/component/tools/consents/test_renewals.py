"""Tokens of users are renewed in time, once, and lost by nobody: while their store is away, their server hangs, their gateway ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from component.tools.conftest import WITHIN, Box
from component.tools.consents.consenting import (
    KEYS,
    Hasty,
    at,
    consented,
    holding_of,
    key,
    known,
    link_of,
    stored,
    upstream,
)
from fakes.authorization import ACCESS, REFRESH, Authorization
from moorage_api.ledger.consents import ConsentLedger
from moorage_gateway.auth import INVOKE
from moorage_gateway.clock import SystemClock
from moorage_gateway.consents.holding import Holding
from moorage_gateway.consents.records import ConsentRecords
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import REVOKED
from moorage_gateway.store import Store, StoreError, StoreUnavailable

pytestmark = pytest.mark.component


async def test_tokens_are_renewed_before_they_end_and_rotate(desk: Box, auth: Authorization) -> None:
    auth.expires_in = 0
    await consented(desk)
    for number in (1, 2, 3):
        assert await desk.run(str(number)) == (f"add {number}: {number}", False)
    used = [each["refresh_token"] for each in auth.granted("refresh_token")]
    assert len(used) == len(set(used)) == 3, "each refresh token is used once"


async def test_a_token_that_is_not_accepted_is_renewed_where_nothing_is_done_twice(
    desk: Box, auth: Authorization
) -> None:
    await consented(desk)
    auth.expire()
    assert await desk.run("r", tool="get_one") == ("get_one 1: r", False)
    auth.expire()
    text, error = await desk.run("w")
    assert error and "it answered 401. It was not carried out." in text
    assert await desk.run("w2") == ("add 2: w2", False) and len(auth.granted("refresh_token")) == 2


async def test_two_gateways_that_renew_at_once_use_a_refresh_token_once(desk: Box, auth: Authorization) -> None:
    auth.expires_in = 0
    await consented(desk)
    first = desk.gateways[0]
    second = await at(desk, auth, public_url=first.public_url)
    auth.gate = threading.Event()
    calls = [asyncio.create_task(desk.run(f"c{n}", at=gateway)) for n, gateway in enumerate((first, second))]
    async with asyncio.timeout(WITHIN):
        while not auth.holding.is_set():
            await asyncio.sleep(0.01)
    assert len(auth.granted("refresh_token")) == 1, "the other one waits"
    auth.expires_in = 3600
    auth.gate.set()
    found = await asyncio.gather(*calls)
    assert [error for _, error in found] == [False, False], found
    used = [each["refresh_token"] for each in auth.granted("refresh_token")]
    assert len(used) == len(set(used)), "no refresh token was used twice"


async def test_an_answer_that_came_too_late_for_its_call_is_kept_all_the_same(desk: Box, auth: Authorization) -> None:
    auth.expires_in = 0
    await consented(desk)
    auth.gate = threading.Event()
    await desk.toolbox("t", {**upstream(desk, auth), "timeout": "500ms"})
    for text in ("late", "later"):
        told, error = await desk.run(text)
        assert error and "did not answer in time" in told
    assert len(auth.granted("refresh_token")) == 1, "who comes meanwhile waits for the same answer"
    auth.expires_in = 3600
    auth.gate.set()
    await desk.toolbox("t", upstream(desk, auth))
    assert await desk.run("x") == ("add 1: x", False)
    used = [each["refresh_token"] for each in auth.granted("refresh_token")]
    assert len(used) == len(set(used))


@contextlib.contextmanager
def full(store: Path) -> Iterator[None]:
    """A store that can be read and takes nothing."""
    (store / ".tmp").rename(store / ".away")
    (store / ".tmp").touch()
    try:
        yield
    finally:
        (store / ".tmp").unlink()
        (store / ".away").rename(store / ".tmp")


async def test_what_the_store_does_not_take_is_used_and_written_when_it_does(desk: Box, auth: Authorization) -> None:
    auth.expires_in = 0
    await consented(desk)
    core, clock = desk.gateways[0].core, Hasty(most=1800)
    subject, terms = await known(core)
    holding, other = holding_of(core, clock), holding_of(core)
    auth.expires_in = 3600
    with full(desk.folder / "store"):
        assert await holding.token(subject, terms) == f"{ACCESS}-4"
        async with asyncio.timeout(WITHIN):
            while clock.ahead < 1800:  # half an hour without the store
                await asyncio.sleep(0.01)
        with pytest.raises(StoreError):
            await other.token(subject, terms)
        lock = f"oauth:lock:{subject.place}"
        await desk.ledger.read("PEXPIRE", lock, 5000)
        async with asyncio.timeout(WITHIN):
            while await desk.ledger.read("PTTL", lock) <= 5000:
                await asyncio.sleep(0.01)
        assert await holding.token(subject, terms) == f"{ACCESS}-4"
    assert await desk.run("x") == ("add 1: x", False)
    assert len(auth.granted("refresh_token")) == 1, "another gateway found it"
    for each in (holding, other):
        await each.aclose()


async def test_what_the_store_does_not_take_for_too_long_is_saved_at_the_next_call(
    desk: Box, auth: Authorization, caplog: pytest.LogCaptureFixture
) -> None:
    auth.expires_in = 0
    await consented(desk)
    core = desk.gateways[0].core
    subject, terms = await known(core)
    holding = holding_of(core)
    auth.expires_in = 3600
    with full(desk.folder / "store"):
        assert await holding.token(subject, terms) == f"{ACCESS}-4"
        async with asyncio.timeout(WITHIN):
            while await desk.ledger.read("EXISTS", f"oauth:lock:{subject.place}"):  # an hour has an end
                await asyncio.sleep(0.01)
    assert "could not be saved for 3600 s" in caplog.text and REFRESH not in caplog.text
    assert await holding.token(subject, terms) == f"{ACCESS}-4"
    await holding.aclose()
    assert await holding_of(core).token(subject, terms) == f"{ACCESS}-4" and len(auth.granted("refresh_token")) == 1


class Cut:
    """The gateway's store as one gateway finds it that it takes nothing from, or does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.takes = self.answers = True

    async def list(self, prefix: str, **more: Any) -> list[str]:
        self._asked()
        return await self._store.list(prefix, **more)

    async def get(self, key: str) -> bytes | None:
        self._asked()
        return await self._store.get(key)

    async def put(self, key: str, data: bytes) -> None:
        if not self.takes:
            raise StoreUnavailable("full")
        await self._store.put(key, data)

    async def delete(self, key: str) -> None:
        await self._store.delete(key)

    def _asked(self) -> None:
        if not self.answers:
            raise StoreUnavailable("away")


async def test_a_consent_that_was_revoked_elsewhere_counts_for_no_call_of_who_could_not_save_its_token(
    desk: Box, auth: Authorization
) -> None:
    auth.expires_in = 0
    await consented(desk)
    core, url = desk.gateways[0].core, f"{desk.gateways[0].public_url}/v1/oauth/consents/t/one"
    subject, terms = await known(core)
    store = Cut(core.store)
    records = ConsentRecords(store, Sealing([KEYS]))  # type: ignore[arg-type]
    holding = Holding(records, ConsentLedger(core.runner), core.upstreams, Hasty())
    auth.expires_in, store.takes = 3600, False
    assert await holding.token(subject, terms) == f"{ACCESS}-4"
    async with asyncio.timeout(WITHIN):
        while await desk.ledger.read("EXISTS", f"oauth:lock:{subject.place}"):  # an hour has an end
            await asyncio.sleep(0.01)
    gone = await desk.http.delete(url, headers=await key(desk, "ann", INVOKE))
    assert gone.status_code == 200
    store.answers = False
    with pytest.raises(StoreUnavailable):
        await holding.token(subject, terms)
    store.answers = True
    assert await holding.token(subject, terms) is None
    store.takes = True
    assert await holding.token(subject, terms) is None
    await holding.aclose()
    left = [data for name, data in stored(desk) if b'"toolbox": "t"' in data and name.endswith(".json")]
    assert len(left) == 1 and b"sealed" not in left[0], "nor is it written any more"


async def test_a_lock_that_redis_forgot_vouches_for_no_token(desk: Box, auth: Authorization) -> None:
    auth.expires_in = 0
    await consented(desk)
    core, clock = desk.gateways[0].core, Hasty(most=1800)
    subject, terms = await known(core)
    store, lock = Cut(core.store), f"oauth:lock:{subject.place}"
    records = ConsentRecords(store, Sealing([KEYS]))  # type: ignore[arg-type]
    holding = Holding(records, ConsentLedger(core.runner), core.upstreams, clock)
    auth.expires_in, store.takes = 3600, False
    assert await holding.token(subject, terms) == f"{ACCESS}-4"
    async with asyncio.timeout(WITHIN):
        while clock.ahead < 1800:
            await asyncio.sleep(0.01)
    store.answers = False
    assert await holding.token(subject, terms) == f"{ACCESS}-4", "while it stands nobody can have revoked it"
    await desk.ledger.read("SET", lock, "0" * 32)
    (before,) = (await core.consents.given("acme", "ann")).data
    await core.consents.holding.put(replace(before, version=before.version + 10**9, state=REVOKED, tokens=None))
    await desk.ledger.read("DEL", lock)
    async with asyncio.timeout(WITHIN):
        while not await desk.ledger.read("EXISTS", lock):  # it is taken anew, to save what came
            await asyncio.sleep(0.01)
    with pytest.raises(StoreUnavailable):
        await holding.token(subject, terms)
    store.answers = True
    assert await holding.token(subject, terms) is None
    await holding.aclose()


class Watched:
    """The gateway's store, with something done around what is read and written."""

    def __init__(self, store: Store, *, read: Callable[[], Awaitable[Any]] | None = None, put_s: float = 0.0) -> None:
        self._store = store
        self._read = read
        self._put_s = put_s
        self.put_ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def get(self, key: str) -> bytes | None:
        found = await self._store.get(key)
        if self._read is not None:
            await self._read()
        return found

    async def put(self, key: str, data: bytes) -> None:
        await asyncio.sleep(self._put_s)
        await self._store.put(key, data)
        self.put_ended = True


async def test_what_is_being_renewed_when_a_gateway_ends_is_saved_first(desk: Box, auth: Authorization) -> None:
    auth.expires_in = 0
    await consented(desk)
    core = desk.gateways[0].core
    subject, terms = await known(core)
    store = Watched(core.store, put_s=0.2)
    records = ConsentRecords(store, Sealing([KEYS]))  # type: ignore[arg-type]
    holding = Holding(records, ConsentLedger(core.runner), core.upstreams, SystemClock())
    auth.expires_in, auth.gate = 3600, threading.Event()
    asked = asyncio.create_task(holding.token(subject, terms))
    await asyncio.to_thread(auth.holding.wait, WITHIN)
    ended = asyncio.create_task(holding.aclose())
    await asyncio.sleep(0)  # its end has begun, and waits for what is asked
    auth.gate.set()
    await ended
    assert store.put_ended
    await asyncio.gather(asked, return_exceptions=True)


async def test_who_lost_the_lock_while_the_store_was_slow_shows_no_refresh_token(
    desk: Box, auth: Authorization
) -> None:
    auth.expires_in = 0
    await consented(desk)
    core = desk.gateways[0].core
    subject, terms = await known(core)
    reads = 0

    async def lost() -> None:
        nonlocal reads
        reads += 1
        if await desk.ledger.read("DEL", f"oauth:lock:{subject.place}"):
            assert await ConsentLedger(core.runner).lock(subject.place, "0" * 32)

    records = ConsentRecords(Watched(core.store, read=lost), Sealing([KEYS]))  # type: ignore[arg-type]
    holding = Holding(records, ConsentLedger(core.runner), core.upstreams, Hasty())
    with pytest.raises(StoreUnavailable):
        await holding.token(subject, terms)
    assert reads and not auth.granted("refresh_token")
    await holding.aclose()


async def test_a_renewal_that_fails_costs_nothing_while_the_token_counts(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    core = desk.gateways[0].core
    subject, terms = await known(core)
    last = Hasty(late=3500)  # of 3600
    for answer in ((503, {}), (401, {"error": "invalid_client"}), (200, {"token_type": "bearer"})):
        auth.answer = answer
        holding = holding_of(core, last)
        found = await asyncio.gather(*(holding.token(subject, terms) for _ in range(3)))
        assert found == [f"{ACCESS}-2"] * 3
        await holding.token(subject, terms)
    assert len(auth.granted("refresh_token")) == 3, "one in vain is enough for a while"


async def test_a_renewal_that_hangs_costs_nothing_while_the_token_counts(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    core = desk.gateways[0].core
    subject, terms = await known(core)
    auth.gate, last = threading.Event(), Hasty(late=3500)  # of 3600
    holding, other = holding_of(core, last), holding_of(core, last)
    found = await asyncio.gather(*(holding.token(subject, terms, 0.5) for _ in range(3)))
    assert found == [f"{ACCESS}-2"] * 3 and auth.holding.is_set()
    assert await holding.token(subject, terms) == f"{ACCESS}-2", "with time it waits a moment"
    assert await other.token(subject, terms, 0.5) == f"{ACCESS}-2", "nor does another gateway's"
    auth.gate.set()
    async with asyncio.timeout(WITHIN):
        while await holding.token(subject, terms) == f"{ACCESS}-2":
            await asyncio.sleep(0.01)
    assert len(auth.granted("refresh_token")) == 1
    for each in (holding, other):
        await each.aclose()


async def test_a_token_server_that_is_away_is_named_and_the_token_used_while_it_counts(
    desk: Box, auth: Authorization
) -> None:
    await consented(desk)
    auth.answer = (503, {"error": "temporarily_unavailable"})
    auth.expire()
    text, error = await desk.run("r", tool="get_one")
    assert error and "its token server answered 503 temporarily_unavailable" in text and desk.tools.ran == []
    auth.answer = None
    assert await desk.run("r2", tool="get_one") == ("get_one 1: r2", False)


async def test_without_a_refresh_token_the_user_consents_anew(desk: Box, auth: Authorization) -> None:
    auth.refreshes = False
    await consented(desk)
    assert await desk.run("x") == ("add 1: x", False)
    auth.expire()
    assert (await desk.run("y"))[1], "an effect, of which a 401 is told"
    await link_of(desk, "z")
