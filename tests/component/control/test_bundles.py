"""Bundle uploads: resumable, verified, bounded, each tenant's own."""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import tarfile
from collections.abc import AsyncIterator

import pytest

from fakes.control_worlds import ANN, RIVAL
from moorage_api.errors import ApiError, Kind
from moorage_gateway.auth import Principal
from moorage_gateway.bundles import Bundles, UploadLimits, bundle_key
from moorage_gateway.store import MemoryStore

pytestmark = pytest.mark.component

DEPLOYER = Principal("acme", "ann", "k", None, frozenset({"deploy"}))
THEIRS = Principal("rival", "ann", "k", None, frozenset({"deploy"}))


class Clock:
    time = 1_000_000_000_000

    def now_ms(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1000

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def archive(size: int = 50_000, name: str = "host.py") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(secrets.token_bytes(size)))
    return out.getvalue()


async def chunks(data: bytes, size: int = 1000, *, breaks: bool = False) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
    if breaks:
        raise ConnectionResetError


class World:
    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), Clock()
        self.limits = UploadLimits(size=1 << 20, part=8_000, open=3)

    def replica(self) -> Bundles:
        return Bundles(self.store, self.clock, self.limits)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_bundle_arrives_whole_and_leaves_no_parts(world: World) -> None:
    data = archive()
    digest = hashlib.sha256(data).hexdigest()
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", digest, len(data))
    done = await bundles.append(DEPLOYER, upload.id, 0, chunks(data))
    assert done.complete and done.offset == len(data)
    assert await world.store.get(bundle_key("acme", digest)) == data
    assert await world.store.list("t/acme/uploads/") == []
    assert await bundles.has("acme", f"sha256:{digest}") and not await bundles.has("rival", digest)


async def test_a_broken_upload_goes_on_at_another_replica_from_where_it_was(world: World) -> None:
    data = archive()
    digest = hashlib.sha256(data).hexdigest()
    first = await world.replica().begin(DEPLOYER, "hello", digest, len(data))
    with pytest.raises(ConnectionResetError):
        await world.replica().append(DEPLOYER, first.id, 0, chunks(data[:20_500], breaks=True))
    again = await world.replica().begin(DEPLOYER, "hello", f"sha256:{digest}", len(data))
    assert (again.id, again.offset, again.complete) == (first.id, 20_500, False)
    assert (await world.replica().state(DEPLOYER, first.id)).offset == 20_500
    done = await world.replica().append(DEPLOYER, first.id, 20_500, chunks(data[20_500:]))
    assert done.complete and await world.store.get(bundle_key("acme", digest)) == data


async def test_a_bundle_that_is_there_is_complete_at_once(world: World) -> None:
    await test_a_bundle_arrives_whole_and_leaves_no_parts(world)
    (key,) = await world.store.list("t/acme/bundles/")
    digest = key.split("/")[-1].removesuffix(".tar.gz")
    size = len(await world.store.get(key) or b"")
    assert (await world.replica().begin(DEPLOYER, "hello", digest, size)).complete


async def test_an_upload_that_nobody_finished_verifying_is_finished_by_the_next_look(world: World) -> None:
    data = archive()
    digest = hashlib.sha256(data).hexdigest()
    upload = await world.replica().begin(DEPLOYER, "hello", digest, len(data))
    await world.store.put(f"t/acme/uploads/{upload.id}/p{0:015d}-{len(data):09d}", data)
    assert (await world.replica().state(DEPLOYER, upload.id)).complete
    assert await world.replica().has("acme", digest)


async def test_bytes_that_differ_from_the_digest_are_refused_and_forgotten(world: World) -> None:
    data = archive()
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", "0" * 64, len(data))
    with pytest.raises(ApiError) as caught:
        await bundles.append(DEPLOYER, upload.id, 0, chunks(data))
    assert caught.value.kind is Kind.UNPROCESSABLE and caught.value.param == "digest"
    assert await world.store.list("t/") == []


@pytest.mark.parametrize("name", ["../escape.py", "/etc/passwd"])
async def test_a_hostile_archive_is_refused_with_its_reason(world: World, name: str) -> None:
    data = archive(name=name)
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", hashlib.sha256(data).hexdigest(), len(data))
    with pytest.raises(ApiError) as caught:
        await bundles.append(DEPLOYER, upload.id, 0, chunks(data))
    assert caught.value.kind is Kind.UNPROCESSABLE
    assert await world.store.list("t/acme/bundles/") == []


async def test_bytes_that_are_no_archive_are_refused(world: World) -> None:
    data = secrets.token_bytes(5_000)
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", hashlib.sha256(data).hexdigest(), len(data))
    with pytest.raises(ApiError) as caught:
        await bundles.append(DEPLOYER, upload.id, 0, chunks(data))
    assert caught.value.kind is Kind.UNPROCESSABLE


async def test_a_wrong_offset_is_409_and_names_the_right_one(world: World) -> None:
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", "0" * 64, 100)
    with pytest.raises(ApiError) as caught:
        await bundles.append(DEPLOYER, upload.id, 50, chunks(b"x" * 50))
    assert caught.value.kind is Kind.CONFLICT and "offset 0" in caught.value.message


async def test_more_bytes_than_announced_are_refused(world: World) -> None:
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", "0" * 64, 100)
    with pytest.raises(ApiError) as caught:
        await bundles.append(DEPLOYER, upload.id, 0, chunks(b"x" * 101))
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize(
    ("digest", "size", "kind"),
    [("nope", 10, Kind.INVALID_PARAMETERS), ("0" * 63, 10, Kind.INVALID_PARAMETERS), ("A" * 64, 10, Kind.INVALID_PARAMETERS),
     ("0" * 64, 0, Kind.TOO_LARGE), ("0" * 64, 2 << 20, Kind.TOO_LARGE)],
)  # fmt: skip
async def test_a_wrong_announcement_is_refused(world: World, digest: str, size: int, kind: Kind) -> None:
    with pytest.raises(ApiError) as caught:
        await world.replica().begin(DEPLOYER, "hello", digest, size)
    assert caught.value.kind is kind


async def test_an_upload_is_its_users_own(world: World) -> None:
    bundles = world.replica()
    upload = await bundles.begin(DEPLOYER, "hello", "0" * 64, 100)
    other_user = Principal("acme", "bob", "k", None, frozenset({"deploy"}))
    for caller in (THEIRS, other_user):
        for call in (bundles.state(caller, upload.id), bundles.append(caller, upload.id, 0, chunks(b"x"))):
            with pytest.raises(ApiError) as caught:
                await call
            assert caught.value.kind is Kind.NOT_FOUND
    for caller in (ANN, RIVAL):
        with pytest.raises(ApiError) as caught:
            await bundles.begin(caller, "hello", "0" * 64, 100)
        assert caught.value.kind is Kind.FORBIDDEN
    for identifier in ("", "..", "x" * 32, upload.id.upper()):
        with pytest.raises(ApiError) as caught:
            await bundles.state(DEPLOYER, identifier)
        assert caught.value.kind is Kind.NOT_FOUND


async def test_unfinished_uploads_are_bounded_and_forgotten_after_a_day(world: World) -> None:
    bundles = world.replica()
    for n in range(3):
        await bundles.begin(DEPLOYER, "hello", f"{n:064d}", 100)
    with pytest.raises(ApiError) as caught:
        await bundles.begin(DEPLOYER, "hello", f"{9:064d}", 100)
    assert caught.value.kind is Kind.RATE_LIMITED
    world.clock.time += 25 * 3600 * 1000
    await bundles.begin(DEPLOYER, "hello", f"{9:064d}", 100)
    assert len(await world.store.list("t/acme/uploads/")) == 1


async def test_two_senders_of_one_bundle_end_with_one_whole_bundle(world: World) -> None:
    data = archive()
    digest = hashlib.sha256(data).hexdigest()
    upload = await world.replica().begin(DEPLOYER, "hello", digest, len(data))

    async def send() -> bool:
        try:
            return (await world.replica().append(DEPLOYER, upload.id, 0, chunks(data))).complete
        except ApiError:
            return False

    await asyncio.gather(send(), send())
    assert await world.store.get(bundle_key("acme", digest)) == data
