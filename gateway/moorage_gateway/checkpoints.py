"""Checkpoints in the object store: packs, manifests, pointers, and which of them may go. Layer: gateway.

t/TENANT/checkpoints/PARTITION/packs/NAME         NAME is the digest of the bytes
t/TENANT/checkpoints/PARTITION/manifests/NAME     the same
t/TENANT/checkpoints/PARTITION/pointers/ID.json   written last, never again; signed, so that what another put there counts for nothing

The highest pointer that verifies is the newest checkpoint (turns.md §8).

    Damaged    a pointer, pack or manifest that is not what was stored
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from pydantic import ValidationError

from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Checkpoint, Offered
from moorage_gateway.clock import Clock
from moorage_gateway.store import Store, StoreUnavailable

KEPT = 3
"""Pointers kept of a session: the newest, and with them the newest quiet one and the one from before a turn."""

COPIES = 2
"""Checkpoints copied at a time: each holds a pack in memory."""
PRUNE_S = 5.0
"""For removing what no checkpoint needs, of 20 s that the shim waits: once it has given up it puts the packs of its next one."""

_USE = b"moorage checkpoint v1\0"

log = logging.getLogger("moorage.checkpoints")


class Damaged(Exception):
    """What is stored is not what was put there; the message says which object."""


class MissingPacks(Exception):
    """A checkpoint was offered that needs packs which are not there: everything has to be put again."""


def folder(tenant: str, partition: str) -> str:
    """Where everything of a session's checkpoints lies."""
    return f"t/{tenant}/checkpoints/{partition}/"


class Checkpoints:
    """Every method may raise StoreUnavailable. `key`: the platform's signing key (hex), None before it was published."""

    def __init__(self, store: Store, clock: Clock, key: Callable[[], str | None]) -> None:
        self._copies = asyncio.Semaphore(COPIES)
        self._store = store
        self._clock = clock
        self._key = key
        self.damaged = 0
        """Pointers and packs found damaged by this process."""

    # Blobs

    async def put_blob(self, tenant: str, partition: str, kind: str, name: str, data: bytes) -> None:
        """Stores a pack or a manifest (`kind`: packs, manifests). Raises Damaged when the name is not its digest."""
        if wire.digest(data) != name:
            raise Damaged(f"the bytes are not those that {name} names: send them again")
        await self._store.put(f"{folder(tenant, partition)}{kind}/{name}", data)

    async def blob(self, tenant: str, partition: str, kind: str, name: str) -> bytes | None:
        """A pack or a manifest, verified; None when there is none. Raises Damaged."""
        key = f"{folder(tenant, partition)}{kind}/{name}"
        data = await self._store.get(key)
        if data is not None and wire.digest(data) != name:
            self._found_damaged(key)
            raise Damaged(f"{key} is damaged")
        return data

    # Pointers

    async def commit(self, tenant: str, partition: str, offer: Offered) -> Checkpoint:
        """Makes a checkpoint of what was put; the same offer again changes nothing. Raises MissingPacks."""
        began = self._clock.monotonic()
        made = Checkpoint(**offer.model_dump(), created=self._clock.now_ms())
        place = folder(tenant, partition)
        there = set(await self._names(f"{place}packs/"))
        if not {pack.name for pack in offer.packs} <= there:
            raise MissingPacks(f"{len({p.name for p in offer.packs} - there)} of its packs are not stored")
        if await self._store.get(f"{place}manifests/{offer.manifest.name}") is None:
            raise MissingPacks("its manifest is not stored")
        await self._store.put(f"{place}pointers/{made.id}.json", self._signed(tenant, partition, made))
        if self._clock.monotonic() - began < PRUNE_S:
            try:
                async with asyncio.timeout(PRUNE_S):
                    await self._prune(tenant, partition)
            except (StoreUnavailable, TimeoutError) as fault:  # next time
                log.info("older checkpoints of %s stay for now: %s", partition, fault)
        return made

    async def all(self, tenant: str, partition: str) -> list[Checkpoint]:
        """Those that verify, newest first."""
        found = []
        for name in sorted(await self._names(f"{folder(tenant, partition)}pointers/"), reverse=True):
            one = await self.get(tenant, partition, name.removesuffix(".json"))
            if one is not None:
                found.append(one)
        return found

    async def get(self, tenant: str, partition: str, checkpoint: str) -> Checkpoint | None:
        """One by its id; None when there is none, or when it is not what a gateway wrote (said in the log)."""
        if wire.ID.match(checkpoint) is None:
            return None
        key = f"{folder(tenant, partition)}pointers/{checkpoint}.json"
        data = await self._store.get(key)
        found = self._verified(tenant, partition, data) if data is not None else None
        if data is not None and (found is None or found.id != checkpoint):
            self._found_damaged(key)
            return None
        return found

    async def any(self, tenant: str, partition: str) -> bool:
        """Whether there are pointers at all, though none may verify."""
        return bool(await self._names(f"{folder(tenant, partition)}pointers/"))

    async def newest(self, tenant: str, partition: str) -> Checkpoint | None:
        """The newest one whose pointer verifies. What it points to is verified as it is read."""
        for name in sorted(await self._names(f"{folder(tenant, partition)}pointers/"), reverse=True):
            found = await self.get(tenant, partition, name.removesuffix(".json"))
            if found is not None:
                return found
        return None

    async def before(self, tenant: str, partition: str, turn: str) -> Checkpoint | None:
        """The newest quiet one that was made before this turn began."""
        found = await self.all(tenant, partition)
        return next((one for one in found if one.before == turn and one.quiet), None)

    async def verify(self, tenant: str, partition: str, one: Checkpoint) -> None:
        """Reads every byte of it. Raises Damaged."""
        async with aclosing(self._all_of(tenant, partition, one)) as parts:
            async for _ in parts:
                continue

    async def copy(self, tenant: str, partition: str, one: Checkpoint, to: str, session: str) -> Checkpoint:
        """The same files as the first checkpoint of another session of this tenant. Raises Damaged."""
        async with self._copies, aclosing(self._all_of(tenant, partition, one)) as parts:
            async for place, data in parts:
                await self._store.put(f"{folder(tenant, to)}{place}", data)
        offer = Offered(
            session=session, epoch=0, number=self._clock.now_ms(), quiet=one.quiet, why="asked", manifest=one.manifest, packs=one.packs,
            files=one.files, octets=one.octets,
        )  # fmt: skip
        return await self.commit(tenant, to, offer)

    async def remove(self, tenant: str, partition: str) -> None:
        """All of a session's."""
        await self._store.delete_prefix(folder(tenant, partition))

    # Parts

    async def _all_of(self, tenant: str, partition: str, one: Checkpoint) -> AsyncGenerator[tuple[str, bytes], None]:
        """(kind/NAME, bytes) of all that it consists of, verified. Raises Damaged."""
        for kind, refs in (("manifests", [one.manifest]), ("packs", one.packs)):
            for ref in refs:
                data = await self.blob(tenant, partition, kind, ref.name)
                if data is None or len(data) != ref.size:
                    self._found_damaged(f"{kind}/{ref.name} of {partition}")
                    raise Damaged(f"{kind}/{ref.name} is missing")
                yield f"{kind}/{ref.name}", data

    async def _prune(self, tenant: str, partition: str) -> None:
        """What no kept pointer needs goes: pointers first, so that none ever points to nothing.

        The parts are listed before the pointers: those of a checkpoint that comes meanwhile are in no such list. While a pointer does not
        verify, no part goes: it may be whole under another key.
        """
        place = folder(tenant, partition)
        parts = [f"{kind}/{name}" for kind in ("manifests", "packs") for name in await self._names(f"{place}{kind}/")]
        pointers, found = await self._names(f"{place}pointers/"), await self.all(tenant, partition)
        kept = found[:KEPT] + [one for one in found if one.quiet][:1] + [one for one in found if one.before][:1]
        ids = {one.id for one in kept}
        needed = {pack.name for one in kept for pack in one.packs} | {one.manifest.name for one in kept}
        for one in found:
            if one.id not in ids:
                await self._store.delete(f"{place}pointers/{one.id}.json")
        if len(pointers) > len(found):
            return
        for part in parts:
            if part.partition("/")[2] not in needed:
                await self._store.delete(place + part)

    async def _names(self, prefix: str) -> list[str]:
        found: list[str] = []
        after = ""
        while page := await self._store.list(prefix, after=after):
            found += [key[len(prefix) :] for key in page]
            after = page[-1]
            if len(found) > wire.MAX_PACKS * KEPT:
                raise StoreUnavailable(f"there are more than {wire.MAX_PACKS * KEPT} objects below {prefix}")
        return found

    def _mac(self, tenant: str, partition: str, body: bytes) -> str:
        key = self._key()
        if key is None:
            raise StoreUnavailable("the provider has not published the platform's key yet")
        secret = hmac.new(bytes.fromhex(key), _USE, hashlib.sha256).digest()
        whose = json.dumps([tenant, partition]).encode()
        return hmac.new(secret, whose + b"\0" + body, hashlib.sha256).hexdigest()

    def _signed(self, tenant: str, partition: str, one: Checkpoint) -> bytes:
        body = one.model_dump_json()
        return json.dumps({"checkpoint": body, "mac": self._mac(tenant, partition, body.encode())}).encode()

    def _verified(self, tenant: str, partition: str, data: bytes) -> Checkpoint | None:
        try:
            found = json.loads(data)
            body, mac = str(found["checkpoint"]), str(found["mac"])
            if not hmac.compare_digest(mac, self._mac(tenant, partition, body.encode())):
                return None
            return Checkpoint.model_validate_json(body)
        except (ValueError, KeyError, TypeError, ValidationError):
            return None

    def _found_damaged(self, what: str) -> None:
        self.damaged += 1
        log.error("a checkpoint is damaged: %s is not what was stored there", what)
