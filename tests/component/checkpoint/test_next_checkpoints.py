"""A checkpoint after another one reads and puts what has changed, and little else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from component.checkpoint.trees import noise
from fakes.volumes import Store, picture, volume
from moorage_sandbox.checkpoint import rewriting
from moorage_sandbox.checkpoint.manifest import MAX_PIECE

pytestmark = pytest.mark.component


def test_nothing_changed_nothing_read_nothing_put(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    for number in range(50):
        (source / "workspace" / str(number)).write_bytes(noise(1000, number))
    store = Store()
    first = store.save(source)
    again = store.save(source, first.manifest)
    assert (first.hashed, first.packs) == (50, 1)
    assert (again.hashed, again.packs, again.octets, again.data) == (0, 0, 0, first.data)


def test_one_change_is_one_file_read_and_one_pack(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    for number in range(50):
        (source / "workspace" / str(number)).write_bytes(noise(1000, number))
    store = Store()
    first = store.save(source)
    (source / "workspace" / "7").write_bytes(noise(1000, 99))
    again = store.save(source, first.manifest)
    assert (again.hashed, again.packs) == (1, 1) and len(again.manifest.packs) == 2
    assert picture(store.restore(again.manifest, tmp_path / "again")) == picture(source)
    assert set(store.got.values()) == {1}


def test_a_write_that_leaves_size_and_time_alike_is_seen(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    path = source / "workspace" / "sly"
    path.write_bytes(b"one")
    store = Store()
    first = store.save(source)
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = store.save(source, first.manifest)
    assert again.hashed == 1
    assert (store.restore(again.manifest, tmp_path / "again") / "workspace" / "sly").read_bytes() == b"two"


def test_what_is_only_touched_or_moved_is_read_but_not_put_again(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    for number in range(9):
        (source / "workspace" / str(number)).write_bytes(noise(1000, number))
    store = Store()
    first = store.save(source)
    (source / "workspace" / "3").touch()
    (source / "workspace" / "4").rename(source / "home" / "moved")
    again = store.save(source, first.manifest)
    assert again.hashed in (1, 2) and (again.packs, again.manifest.packs) == (0, first.manifest.packs)
    returned = store.restore(again.manifest, tmp_path / "again")
    assert picture(returned) == picture(source)
    third = store.save(returned, again.manifest)
    assert (third.hashed, third.packs) == (9, 0), "a restored volume has new inodes and old pieces"


def test_a_longer_file_shares_its_beginning(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    log = source / "workspace" / "log"
    log.write_bytes(noise(2 * MAX_PIECE))
    store = Store()
    first = store.save(source)
    with log.open("ab") as file:
        file.write(noise(1000, 2))
    again = store.save(source, first.manifest)
    assert again.packs == 1 and again.octets < 2000
    assert picture(store.restore(again.manifest, tmp_path / "again")) == picture(source)


def test_a_pack_that_is_hardly_used_is_written_anew(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    for number in range(10):
        (source / "workspace" / str(number)).write_bytes(noise(100_000, number))
    store = Store()
    first = store.save(source)
    for number in range(4):
        (source / "workspace" / str(number)).unlink()
    second = store.save(source, first.manifest)
    assert (second.hashed, second.packs, second.manifest.packs) == (0, 0, first.manifest.packs)
    for number in (4, 5):
        (source / "workspace" / str(number)).unlink()
    third = store.save(source, second.manifest)
    assert (third.hashed, third.packs) == (4, 1)
    assert [pack.raw for pack in third.manifest.packs] == [400_000]
    assert picture(store.restore(third.manifest, tmp_path / "again")) == picture(source)


def test_many_small_packs_become_one(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    store = Store()
    saved = store.save(source)
    counts = []
    for number in range(rewriting.MANY + 3):
        (source / "workspace" / str(number)).write_bytes(noise(500, number))
        saved = store.save(source, saved.manifest)
        counts.append(len(saved.manifest.packs))
    assert max(counts) == rewriting.MANY + 1 and counts[-1] <= 2
    assert picture(store.restore(saved.manifest, tmp_path / "again")) == picture(source)
