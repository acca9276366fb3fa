"""Checkpoints as objects: the pointer comes last, the highest that verifies counts, what another wrote counts for nothing."""

from __future__ import annotations

import json

import pytest

from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Checkpoint, Offered, PackRef
from moorage_gateway.checkpoints import KEPT, Checkpoints, Damaged, MissingPacks, folder
from moorage_gateway.clock import SystemClock
from moorage_gateway.store import MemoryStore, StoreUnavailable

pytestmark = pytest.mark.component

T, P = "acme", "0123456789abcdef"


class Desk:
    def __init__(self, key: str | None = "cd" * 32) -> None:
        self.store = MemoryStore()
        self.kept = Checkpoints(self.store, SystemClock(), lambda: key)

    async def put(self, kind: str, data: bytes) -> PackRef:
        name = wire.digest(data)
        await self.kept.put_blob(T, P, kind, name, data)
        return PackRef(name=name, size=len(data))

    async def offer(self, number: int, *packs: bytes, epoch: int = 7, quiet: bool = True, before: str = "") -> Offered:
        refs = [await self.put("packs", data) for data in packs]
        manifest = await self.put("manifests", b"manifest of %d" % number)
        return Offered(
            session=f"{T}:{P}", epoch=epoch, number=number, quiet=quiet, why="schedule", before=before, manifest=manifest,
            packs=refs, files=3, octets=10,
        )  # fmt: skip

    async def make(self, number: int, *packs: bytes, **more: object) -> Checkpoint:
        return await self.kept.commit(T, P, await self.offer(number, *packs, **more))  # type: ignore[arg-type]

    async def names(self, kind: str) -> list[str]:
        place = folder(T, P) + kind + "/"
        return [key[len(place) :] for key in await self.store.list(place)]


async def test_the_highest_epoch_then_the_highest_number_is_the_newest() -> None:
    desk = Desk()
    for epoch, number in ((7, 5), (8, 1), (7, 9)):
        await desk.make(number, b"a", epoch=epoch)
    found = await desk.kept.all(T, P)
    assert [(one.epoch, one.number) for one in found] == [(8, 1), (7, 9), (7, 5)]
    newest = await desk.kept.newest(T, P)
    assert newest == found[0]
    await desk.kept.verify(T, P, found[0])


async def test_bytes_that_are_not_what_their_name_says_are_not_stored() -> None:
    desk = Desk()
    with pytest.raises(Damaged):
        await desk.kept.put_blob(T, P, "packs", "0" * 64, b"something")
    assert await desk.names("packs") == []


@pytest.mark.parametrize("kind", ["packs", "manifests"])
async def test_a_checkpoint_whose_parts_are_not_there_is_none(kind: str) -> None:
    desk = Desk()
    offer = await desk.offer(1, b"a")
    name = offer.packs[0].name if kind == "packs" else offer.manifest.name
    await desk.store.delete(f"{folder(T, P)}{kind}/{name}")
    with pytest.raises(MissingPacks):
        await desk.kept.commit(T, P, offer)
    assert await desk.kept.newest(T, P) is None


@pytest.mark.parametrize("kind", ["packs", "manifests"])
async def test_a_part_that_was_altered_or_removed_is_found(kind: str) -> None:
    desk = Desk()
    one = await desk.make(1, b"a", b"b")
    name = one.packs[1].name if kind == "packs" else one.manifest.name
    key = f"{folder(T, P)}{kind}/{name}"
    await desk.store.put(key, b"altered")
    with pytest.raises(Damaged):
        await desk.kept.verify(T, P, one)
    await desk.store.delete(key)
    with pytest.raises(Damaged):
        await desk.kept.verify(T, P, one)
    assert desk.kept.damaged == 2


async def test_an_altered_pointer_or_anothers_counts_for_nothing_and_the_older_one_stands() -> None:
    desk = Desk()
    older, newer = await desk.make(1, b"a"), await desk.make(2, b"b")
    key = f"{folder(T, P)}pointers/{newer.id}.json"
    data = await desk.store.get(key)
    assert data is not None
    said = json.loads(data)
    forged = said | {"checkpoint": said["checkpoint"].replace('"files":3', '"files":4')}
    for wrong in (json.dumps(forged).encode(), b"{}", b"no json", data[:-20]):
        await desk.store.put(key, wrong)
        assert await desk.kept.newest(T, P) == older
    elsewhere = "f" * 16
    await desk.store.put(f"{folder(T, elsewhere)}pointers/{newer.id}.json", data)
    assert await desk.kept.newest(T, elsewhere) is None  # it is signed for the session it was made of
    await desk.store.put(f"{folder(T, P)}pointers/{older.id}.json", data)
    assert await desk.kept.get(T, P, older.id) is None  # and for its own number


async def test_only_what_kept_pointers_need_stays() -> None:
    desk = Desk()
    await desk.make(1, b"before", quiet=True, before="caresp_1")
    await desk.make(2, b"quiet")
    for number in range(3, 3 + KEPT + 2):
        await desk.make(number, b"common", b"pack %d" % number, quiet=False)
    found = await desk.kept.all(T, P)
    assert [one.number for one in found] == [7, 6, 5, 2, 1]
    kept = {wire.digest(data) for data in (b"before", b"quiet", b"common", b"pack 5", b"pack 6", b"pack 7")}
    assert set(await desk.names("packs")) == kept
    assert len(await desk.names("manifests")) == 5
    assert (await desk.kept.before(T, P, "caresp_1") or found[0]).number == 1
    assert await desk.kept.before(T, P, "caresp_2") is None


async def test_the_same_offer_again_changes_nothing_but_the_time() -> None:
    desk = Desk()
    offer = await desk.offer(1, b"a")
    first, again = await desk.kept.commit(T, P, offer), await desk.kept.commit(T, P, offer)
    assert first.id == again.id and len(await desk.kept.all(T, P)) == 1


async def test_a_copy_is_the_other_sessions_own_first_checkpoint() -> None:
    desk = Desk()
    one = await desk.make(1, b"a", b"b")
    made = await desk.kept.copy(T, P, one, "f" * 16, "acme:" + "f" * 16)
    await desk.kept.remove(T, P)
    assert await desk.kept.newest(T, P) is None and await desk.names("packs") == []
    await desk.kept.verify(T, "f" * 16, made)
    assert (made.epoch, made.session) == (0, "acme:" + "f" * 16)


async def test_without_the_platforms_key_nothing_is_believed_or_written() -> None:
    desk = Desk(key=None)
    with pytest.raises(StoreUnavailable):
        await desk.make(1, b"a")


@pytest.mark.parametrize("name", ["..", "ck-1-1", "ck-" + "0" * 20 + "-" + "0" * 16 + "/x", ""])
async def test_an_id_that_is_none_finds_nothing(name: str) -> None:
    assert await Desk().kept.get(T, P, name) is None
