"""Checkpoints of this sandbox's session: made and brought back by a child, through a gateway (turns.md §8). Layer: engine, below `shim`.

`volume/.moorage/checkpoint` holds the manifest of the last one, so that the next reads only what changed; without it everything is read.
One job runs at a time.

    NotKept   it was not made, or not brought back; `damaged` says that what is stored cannot be used, `unfit` that these files cannot be
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Offered, PackRef, Saved, Why
from moorage_api.wire.hop import HopError, HopPool
from moorage_api.wire.http1 import Headers
from moorage_api.wire.shim import Bind
from moorage_sandbox import child, gateway_store
from moorage_sandbox.checkpoint import manifest, restoring, saving, swapping
from moorage_sandbox.clock import Clock
from moorage_sandbox.errors import NoProof, ShimFault
from moorage_sandbox.gateway_store import GatewayStore
from moorage_sandbox.proof import Proof

COMMIT_SECONDS = 20.0
FINISH_SECONDS = 60.0
"""For ending an exchange of files that broke off: renames, and removing what was replaced."""
PATIENCE_SECONDS = 20.0
"""For a store that is away, when a checkpoint is made: the next one comes."""
SHOWN = 20
"""Names of skipped files that are told."""


class NotKept(ShimFault):
    """The volume is as it was."""

    def __init__(self, detail: str, *, damaged: bool = False, unfit: bool = False) -> None:
        super().__init__(detail)
        self.damaged = damaged
        self.unfit = unfit


class Keeping:
    """Saves and restores what lies in `volume`. `gateways` is asked at each job: those known change."""

    def __init__(self, volume: str, proof: Proof, gateways: Callable[[], Sequence[str]], clock: Clock) -> None:
        self._volume = Path(volume)
        self._proof = proof
        self._gateways = gateways
        self._clock = clock
        self._pool = HopPool(max_idle=1)
        self._job = asyncio.Lock()
        self._works: asyncio.Task[dict[str, Any]] | None = None
        self._number = 0
        self.torn = False
        """An interrupted exchange of files could not be ended: nothing may run here any more."""

    @property
    def running(self) -> bool:
        """A job runs."""
        return self._job.locked()

    def abort(self) -> None:
        """The sandbox ends: what runs is given up."""
        if self._works is not None:
            self._works.cancel()

    async def close(self) -> None:
        """Lets go of the connection."""
        await self._pool.close()

    async def save(self, bound: Bind, why: Why, before: str, quiet: Callable[[], bool], seconds: float) -> Saved:
        """A checkpoint of the session's files. `quiet` is asked when all is read: whether nothing ran meanwhile. Raises NotKept."""
        try:
            async with asyncio.timeout(seconds), self._job:
                found = await self._put(seconds, anew=False)
                try:
                    return await self._commit(bound, why, before, quiet(), found)
                except _Missing:
                    found = await self._put(seconds, anew=True)
                    return await self._commit(bound, why, before, quiet(), found)
        except (TimeoutError, child.ChildFailed, _Missing, HopError, NoProof, OSError, ValueError) as fault:
            unfit = isinstance(fault, child.ChildFailed) and fault.kind == "BadCheckpoint"
            said = f"no checkpoint was made: {fault}" if str(fault) else "no checkpoint was made in time"
            raise NotKept(said, unfit=unfit) from fault

    async def restore(self, checkpoint: str, seconds: float) -> str:
        """Puts a checkpoint's files in place of what is there; its id. No process of the sandbox may live. Raises NotKept."""
        try:
            work = functools.partial(_restore, self._volume, self._store(seconds, seconds), checkpoint)
            async with asyncio.timeout(seconds):
                await self._job.acquire()
            try:
                return str((await self._work(work, seconds))["id"])
            except BaseException as fault:
                # Killed at any instant it may have left half of each: ended here, before anything runs on it.
                if await self._settled() and isinstance(fault, child.ChildFailed):
                    return checkpoint
                raise
            finally:
                self._job.release()
        except child.ChildFailed as fault:
            damaged = fault.kind in ("Damaged", "BadCheckpoint", "NoCheckpoint")
            raise NotKept(f"the checkpoint {checkpoint} was not restored: {fault.detail}", damaged=damaged) from fault
        except (TimeoutError, NoProof, OSError) as fault:
            raise NotKept(f"the checkpoint {checkpoint} was not restored: {fault or 'not in time'}") from fault

    async def _work(self, work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
        """What a child made of it. Raises ChildFailed, also when it was given up (`abort`)."""
        made = self._works = asyncio.ensure_future(child.run(work, seconds))
        try:
            await asyncio.wait({made})
        finally:
            self._works = None
            if not made.done():  # who asked was cancelled
                made.cancel()
                await asyncio.wait({made})
        if made.cancelled():
            raise child.ChildFailed("ended", "the sandbox ends")
        return made.result()

    async def _settled(self) -> bool:
        """Ends an exchange of files that broke off, though who asked is cancelled; whether the new ones are in place by it."""
        work = asyncio.ensure_future(child.run(functools.partial(_finish, self._volume), FINISH_SECONDS))
        cancelled = False
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError:
                cancelled = True
        self.torn = self.torn or work.exception() is not None
        if cancelled:
            raise asyncio.CancelledError
        return not self.torn and bool(work.result()["done"])

    async def _put(self, seconds: float, *, anew: bool) -> dict[str, Any]:
        store = self._store(seconds, PATIENCE_SECONDS)
        return await self._work(functools.partial(_save, self._volume, store, anew=anew), seconds)

    def _store(self, seconds: float, patience: float) -> GatewayStore:
        self._proof.headers(b"authorization")  # here, where what it raises is told apart
        proof = functools.partial(self._proof.headers, b"authorization")
        return GatewayStore(self._gateways(), proof, seconds, patience)

    async def _commit(self, bound: Bind, why: Why, before: str, quiet: bool, found: dict[str, Any]) -> Saved:
        self._number = max(self._number + 1, self._clock.wall_ms())
        offer = Offered(
            session=bound.session,
            epoch=bound.epoch,
            number=self._number,
            quiet=quiet and not found["unsteady"],
            why=why,
            before=before,
            manifest=PackRef(name=found["manifest"], size=found["size"]),
            packs=[PackRef(name=name, size=size) for name, size in found["needed"]],
            files=found["files"],
            octets=found["octets"],
        )
        await self._offer(offer)
        _keep_manifest(self._volume)
        return Saved(
            id=offer.id, quiet=offer.quiet, files=offer.files, octets=offer.octets, hashed=found["hashed"],
            packs=found["packs"], skipped=found["skipped"],
        )  # fmt: skip

    async def _offer(self, offer: Offered) -> None:
        head: Headers = [*self._proof.headers(b"authorization"), (b"content-type", b"application/json")]
        why = "there is no gateway"
        for gateway in self._gateways():
            try:
                answer = await self._pool.request(
                    gateway, "POST", wire.PATH, head, offer.model_dump_json().encode(),
                    connect_timeout=COMMIT_SECONDS, head_timeout=COMMIT_SECONDS,
                )  # fmt: skip
                async with answer:
                    text = await answer.read(wire.MAX_OFFER, idle=COMMIT_SECONDS)
            except HopError as fault:
                why = f"{gateway}: {fault}"
                continue
            if answer.status == 200:
                return
            if answer.status == 409:
                raise _Missing
            why = f"{gateway} answered {answer.status}: {text[:200].decode('utf-8', 'replace')}"
        raise OSError(why)


class _Missing(Exception):
    """The store lacks packs that an earlier checkpoint had: they are put again."""


# In the child


def _save(volume: Path, store: GatewayStore, *, anew: bool) -> dict[str, Any]:
    try:
        saved = saving.save(volume, None if anew else _last(volume), lambda name, data: store.put("packs", name, data))
        if len(saved.data) > wire.MAX_MANIFEST:
            raise manifest.BadCheckpoint(f"its list of files is longer than {wire.MAX_MANIFEST} bytes: delete some")
        name = wire.digest(saved.data)
        store.put("manifests", name, saved.data)
    finally:
        store.close()
    _note(volume, saved.data)
    return {
        "manifest": name,
        "size": len(saved.data),
        "needed": [(pack.name, pack.size) for pack in saved.manifest.packs],
        "files": saved.manifest.files,
        "octets": saved.manifest.octets,
        "hashed": saved.hashed,
        "packs": saved.packs,
        "unsteady": saved.unsteady,
        "skipped": list(saved.skipped[:SHOWN]),
    }


def _restore(volume: Path, store: GatewayStore, checkpoint: str) -> dict[str, Any]:
    place = volume / ".moorage" / "restoring"
    swapping.finish(volume)
    try:
        one = store.pointer(checkpoint)
        data = store.get("manifests", one.manifest.name, wire.MAX_MANIFEST)
        if wire.digest(data) != one.manifest.name:
            raise gateway_store.Damaged("the manifest is not the one that its name says")
        wanted = manifest.decode(data, manifest.Limits())
        fresh = place / "fresh"
        fresh.mkdir(mode=0o700, parents=True)
        restoring.unpack(wanted, lambda name: store.get("packs", name, wire.MAX_PACK), fresh, owner=_owner(volume))
        swapping.swap(volume, fresh)
    except BaseException:
        if not swapping.finish(volume):
            shutil.rmtree(place, ignore_errors=True)
        raise
    finally:
        store.close()
    _note(volume, data)
    _keep_manifest(volume)
    return {"id": one.id}


def _finish(volume: Path) -> dict[str, Any]:
    return {"done": swapping.finish(volume)}


def _owner(volume: Path) -> tuple[int, int] | None:
    """Whose the files are where the shim is root and the agent is not."""
    if os.geteuid() != 0:
        return None
    at = (volume / "workspace").stat()
    return at.st_uid, at.st_gid


def _last(volume: Path) -> manifest.Manifest | None:
    try:
        return manifest.decode((volume / ".moorage" / "checkpoint").read_bytes(), manifest.Limits())
    except (OSError, manifest.BadCheckpoint):
        return None  # then everything is read


def _note(volume: Path, data: bytes) -> None:
    """Where a full volume takes it not, the next checkpoint reads everything."""
    fresh = volume / ".moorage" / "checkpoint.new"
    try:
        fresh.write_bytes(data)
    except OSError:
        fresh.unlink(missing_ok=True)


def _keep_manifest(volume: Path) -> None:
    """What `_note` left is the last checkpoint now."""
    try:
        os.replace(volume / ".moorage" / "checkpoint.new", volume / ".moorage" / "checkpoint")
    except OSError:
        return
