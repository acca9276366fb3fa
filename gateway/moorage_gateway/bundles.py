"""Uploads of agent bundles: in parts that survive a broken connection, verified by digest. Layer: gateway.

Nothing about an upload is held in process: parts are objects under `t/TENANT/uploads/ID/`, so that any replica takes the next
part, and the id follows from the digest, so that a client that lost everything but its file finds its upload again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path

from moorage_api import names
from moorage_api.bundles import BundleError, unpack
from moorage_api.errors import ApiError, Kind
from moorage_gateway.auth import DEPLOY, Principal
from moorage_gateway.clock import Clock
from moorage_gateway.refusals import unavailable
from moorage_gateway.store import Store

MiB = 1 << 20

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
_PART = re.compile(r"p([0-9]{15})-([0-9]{9})\Z")
_CANNOT = "Bundles cannot be stored"


@dataclass(frozen=True)
class UploadLimits:
    """Bounds of uploads. Sizes in bytes, age in seconds."""

    size: int = 256 * MiB
    part: int = 4 * MiB  # kept as one object, and in memory, while it arrives
    open: int = 32  # unfinished uploads of one tenant
    age: float = 24 * 3600.0  # an unfinished upload older than this is forgotten


@dataclass(frozen=True)
class Upload:
    """An upload as its client sees it. `offset` bytes are stored; `complete`: the bundle is there and verified."""

    id: str
    digest: str
    size: int
    offset: int
    complete: bool


@dataclass(frozen=True)
class _Plan:
    digest: str
    size: int
    user: str
    agent: str
    created: int


def bundle_key(tenant: str, digest: str) -> str:
    """Where a bundle is stored; `digest` is 64 hex."""
    return f"t/{tenant}/bundles/{digest}.tar.gz"


def built_key(tenant: str, agent: str, digest: str) -> str:
    """Where what a build made of an agent's source is stored."""
    return f"t/{tenant}/built/{agent}/{digest}.tar.gz"


class Bundles:
    """Uploads of all tenants. Raises ApiError only."""

    def __init__(self, store: Store, clock: Clock, limits: UploadLimits | None = None) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits or UploadLimits()
        self._finishing = asyncio.Semaphore(2)  # assembling costs disk and a thread

    async def has(self, tenant: str, digest: str) -> bool:
        """Whether the tenant has this bundle; the digest with or without `sha256:`."""
        found = _DIGEST.match(digest)
        if found is None:
            return False
        key = bundle_key(tenant, found.group(1))
        with unavailable("Bundles cannot be looked up"):
            return await self._store.list(key, limit=1) == [key]

    async def begin(self, caller: Principal, agent: str, digest: str, size: int) -> Upload:
        """The upload of this bundle: a new one, the one that was broken off, or one that is complete already."""
        self._check_caller(caller, agent)
        found = _DIGEST.match(digest)
        if found is None:
            raise _wrong("digest", "must be the sha256 of the bundle: 64 lower-case hex digits.")
        if not 0 < size <= self._limits.size:
            raise ApiError(
                Kind.TOO_LARGE,
                f"A bundle has 1 to {self._limits.size} bytes, this one {size}. List what the agent does not need in "
                "'.moorageignore'.",
                param="size",
            )
        plan = _Plan(found.group(1), size, caller.user, agent, self._clock.now_ms())
        identifier = hashlib.sha256(f"{plan.digest}/{size}/{caller.user}".encode()).hexdigest()[:32]
        with unavailable(_CANNOT):
            if await self.has(caller.tenant, plan.digest):
                return Upload(identifier, f"sha256:{plan.digest}", size, size, complete=True)
            known = await self._plan(caller, identifier)
            if known is None:
                await self._make_room(caller.tenant)
                await self._store.put(
                    f"{_folder(caller.tenant, identifier)}plan.json", json.dumps(asdict(plan)).encode()
                )
            return await self._state(caller.tenant, identifier, known or plan)

    async def state(self, caller: Principal, identifier: str) -> Upload:
        """How far an upload is; NOT_FOUND for another's, a finished and a forgotten one."""
        caller.require(DEPLOY)
        with unavailable(_CANNOT):
            return await self._state(caller.tenant, identifier, await self._known(caller, identifier))

    async def append(self, caller: Principal, identifier: str, offset: int, body: AsyncIterator[bytes]) -> Upload:
        """Stores what arrives from `offset` on; when the last byte is there the bundle is verified and kept.

        What arrived before the connection broke stays. CONFLICT when `offset` is not where the upload is.
        """
        caller.require(DEPLOY)
        with unavailable(_CANNOT):
            plan = await self._known(caller, identifier)
            at = (await self._state(caller.tenant, identifier, plan)).offset
            if offset != at:
                raise ApiError(
                    Kind.CONFLICT,
                    f"The upload is at offset {at}, not {offset}: go on from there.",
                    param="upload-offset",
                )
            at = await self._take(caller.tenant, identifier, plan, at, body)
            if at < plan.size:
                return Upload(identifier, f"sha256:{plan.digest}", plan.size, at, complete=False)
            await self._finish(caller.tenant, identifier, plan)
            return Upload(identifier, f"sha256:{plan.digest}", plan.size, plan.size, complete=True)

    async def _take(self, tenant: str, identifier: str, plan: _Plan, at: int, body: AsyncIterator[bytes]) -> int:
        held = bytearray()
        try:
            async for chunk in body:
                if at + len(held) + len(chunk) > plan.size:
                    raise ApiError(Kind.TOO_LARGE, f"The bundle was announced with {plan.size} bytes, and more came.")
                held += chunk
                while len(held) >= self._limits.part:
                    at = await self._keep(tenant, identifier, at, bytes(held[: self._limits.part]))
                    del held[: self._limits.part]
        finally:
            # Also when the connection broke: the next call goes on behind what came through.
            if held:
                at = await self._keep(tenant, identifier, at, bytes(held))
        return at

    async def _keep(self, tenant: str, identifier: str, at: int, data: bytes) -> int:
        await self._store.put(f"{_folder(tenant, identifier)}p{at:015d}-{len(data):09d}", data)
        return at + len(data)

    async def _finish(self, tenant: str, identifier: str, plan: _Plan) -> None:
        async with self._finishing:
            with tempfile.TemporaryDirectory(prefix="bundle-") as name:
                archive = Path(name) / "bundle.tar.gz"
                digest = await self._assemble(tenant, identifier, archive)
                problem = "its sha256 differs from the announced one" if digest != plan.digest else None
                if problem is None:
                    problem = await asyncio.to_thread(_hostile, archive, Path(name) / "tree", plan.digest)
                if problem is None:
                    await self._store.put_file(bundle_key(tenant, plan.digest), archive)
        await self._store.delete_prefix(_folder(tenant, identifier))
        if problem is not None:
            raise ApiError(Kind.UNPROCESSABLE, f"The bundle is refused: {problem}.", param="digest")

    async def _assemble(self, tenant: str, identifier: str, archive: Path) -> str:
        digest = hashlib.sha256()
        with await asyncio.to_thread(archive.open, "wb") as file:
            for key, _, _ in await self._parts(tenant, identifier):
                data = await self._store.get(key) or b""
                digest.update(data)
                await asyncio.to_thread(file.write, data)
        return digest.hexdigest()

    async def _parts(self, tenant: str, identifier: str) -> list[tuple[str, int, int]]:
        """(key, offset, length) of the parts that follow each other without a gap from 0."""
        folder = _folder(tenant, identifier)
        chain: list[tuple[str, int, int]] = []
        end, after = 0, ""
        while page := await self._store.list(folder, after=after):
            for key in page:
                found = _PART.match(key[len(folder) :])
                if found and int(found.group(1)) == end:
                    chain.append((key, end, int(found.group(2))))
                    end += int(found.group(2))
            after = page[-1]
        return chain

    async def _state(self, tenant: str, identifier: str, plan: _Plan) -> Upload:
        parts = await self._parts(tenant, identifier)
        end = sum(length for _, _, length in parts)
        if end >= plan.size:  # everything came, and whoever took the last part did not get to its end
            await self._finish(tenant, identifier, plan)
            return Upload(identifier, f"sha256:{plan.digest}", plan.size, plan.size, complete=True)
        return Upload(identifier, f"sha256:{plan.digest}", plan.size, end, complete=False)

    async def _plan(self, caller: Principal, identifier: str) -> _Plan | None:
        data = await self._store.get(f"{_folder(caller.tenant, identifier)}plan.json")
        if data is None:
            return None
        plan = _Plan(**json.loads(data))
        return plan if plan.user == caller.user else None

    async def _known(self, caller: Principal, identifier: str) -> _Plan:
        plan = await self._plan(caller, identifier) if _UPLOAD.match(identifier) else None
        if plan is None or not caller.may_use(plan.agent):
            raise ApiError(
                Kind.NOT_FOUND, "There is no such upload: it is complete or was forgotten. Begin it again.", param="id"
            )
        return plan

    async def _make_room(self, tenant: str) -> None:
        """Forgets uploads that nobody finished; RATE_LIMITED when too many are still open."""
        open_ones = 0
        root, after = f"t/{tenant}/uploads/", ""
        while page := await self._store.list(root, after=after, limit=1):
            folder = root + page[0][len(root) :].split("/")[0] + "/"
            data = await self._store.get(f"{folder}plan.json")
            created = json.loads(data)["created"] if data else 0
            if self._clock.now_ms() - created > self._limits.age * 1000:
                await self._store.delete_prefix(folder)
            else:
                open_ones += 1
            after = f"{folder}~"  # behind every object of this upload
        if open_ones >= self._limits.open:
            raise ApiError(Kind.RATE_LIMITED, "Too many uploads are unfinished: finish one, or wait.", retry_after=60)

    def _check_caller(self, caller: Principal, agent: str) -> None:
        caller.require(DEPLOY)
        if not names.AGENT.match(agent) or not caller.may_use(agent):
            raise ApiError(Kind.NOT_FOUND, f"This key cannot deploy an agent named '{agent[:64]}'.", param="agent")


def _folder(tenant: str, identifier: str) -> str:
    return f"t/{tenant}/uploads/{identifier}/"


def _hostile(archive: Path, tree: Path, digest: str) -> str | None:
    """What is wrong with the archive, by the rules its provider will unpack it by."""
    try:
        with archive.open("rb") as file:
            unpack(file, tree, digest=digest)
    except BundleError as error:
        return str(error).rstrip(".")
    return None


def _wrong(field: str, message: str) -> ApiError:
    return ApiError(Kind.INVALID_PARAMETERS, f"'{field}' {message}", param=field)
