"""Volumes have one writer, are measured, labelled, and removed whatever the agent did to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moorage_local.volume_store import Users, VolumeError, VolumeStore

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> VolumeStore:
    return VolumeStore(tmp_path / "volumes", plain=False)


def test_a_volume_has_one_writer_at_a_time(store: VolumeStore) -> None:
    volume = store.create("dev", "a", uid=None)
    lease = store.hold("dev", "a", volume, uid=None)
    with pytest.raises(VolumeError, match="held by another sandbox"):
        store.hold("dev", "a", volume, uid=None)
    lease.release()
    lease.release()
    store.hold("dev", "a", volume, uid=None).release()


@pytest.mark.parametrize("name", ["", "..", "../x", "v-xyz", "v-0123456789abcdef/..", "v-0123456789ABCDEF"])
def test_a_name_that_no_volume_has_is_refused(store: VolumeStore, name: str) -> None:
    assert not store.exists("dev", "a", name)
    with pytest.raises(VolumeError):
        store.path("dev", "a", name)


def test_a_volume_that_is_not_there_is_refused(store: VolumeStore) -> None:
    with pytest.raises(VolumeError, match="not there"):
        store.hold("dev", "a", "v-0123456789abcdef", uid=None)


def test_binding_and_label_are_read_back(store: VolumeStore) -> None:
    volume = store.create("dev", "a", uid=None)
    assert store.bound("dev", "a", volume) is None and store.label("dev", "a", volume) is None
    place = store.path("dev", "a", volume) / ".moorage"
    (place / "binding.json").write_text('{"session": "dev:x", "epoch": 7, "sandbox": "sb"}')
    found = store.bound("dev", "a", volume)
    assert found is not None and (found.session, found.epoch) == ("dev:x", 7)
    store.set_label("dev", "a", volume, {"user": "ann"})
    assert store.label("dev", "a", volume) == {"user": "ann"}
    (place / "binding.json").write_text("{")
    assert store.bound("dev", "a", volume) is not None, "an unreadable binding is never taken for none"


async def test_usage_counts_blocks_and_hard_links_once(store: VolumeStore) -> None:
    volume = store.create("dev", "a", uid=None)
    work = store.path("dev", "a", volume) / "workspace"
    (work / "one").write_bytes(bytes(1 << 20))
    os.link(work / "one", work / "two")
    (work / "loop").symlink_to("..")
    used = await store.usage("dev", "a", volume, within=5)
    assert used.octets >> 20 == 1 and used.complete and used.files == 3


def test_a_volume_is_removed_with_closed_folders_and_links(store: VolumeStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    volume = store.create("dev", "a", uid=None)
    work = store.path("dev", "a", volume) / "workspace"
    (work / "link").symlink_to(outside)
    (work / "closed").mkdir()
    (work / "closed" / "x").write_text("x")
    (work / "closed").chmod(0)
    store.remove("dev", "a", volume)
    store.remove("dev", "a", volume)
    assert store.listed() == [] and list((tmp_path / "volumes" / "dev" / "a").iterdir()) == []
    assert (outside / "kept").exists()


def test_each_agent_has_a_user_of_its_own_for_good(tmp_path: Path) -> None:
    users = Users(tmp_path / "users.json", as_root=True)
    first, second = users.of("dev", "a"), users.of("dev", "b")
    assert first != second and Users(tmp_path / "users.json", as_root=True).of("dev", "a") == first
    assert Users(tmp_path / "users.json", as_root=False).of("dev", "a") is None
