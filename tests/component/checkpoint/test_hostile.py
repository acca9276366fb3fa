"""Packs that were altered, stores that lie, and trees that change while they are saved."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from fakes.volumes import Store, picture, volume
from moorage_sandbox.checkpoint import handles, reading
from moorage_sandbox.checkpoint.manifest import BadCheckpoint, Manifest, Pack
from moorage_sandbox.checkpoint.packing import digest
from moorage_sandbox.checkpoint.restoring import unpack
from moorage_sandbox.checkpoint.saving import save
from moorage_sandbox.checkpoint.table import PIECE

pytestmark = pytest.mark.component

LONG = os.environ.get("MOORAGE_LONG") == "1"
MEGA = 2**20


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Store, Manifest]:
    """A small checkpoint of three files in one pack."""
    source = volume(tmp_path / "source")
    for number in range(3):
        (source / "workspace" / str(number)).write_bytes(b"%d" % number * 40)
    store = Store()
    return store, store.save(source).manifest


def unpacked(manifest: Manifest, data: bytes, target: Path) -> None:
    target.mkdir(exist_ok=True)
    unpack(manifest, lambda name: data, target, owner=None)


def test_every_flipped_bit_of_a_pack_is_refused(saved: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = saved
    ((_, data),) = store.packs.items()
    for at in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[at] ^= 1 << bit
            target = tmp_path / f"{at} {bit}"
            with pytest.raises(BadCheckpoint, match="not the one that was saved"):
                unpacked(manifest, bytes(altered), target)
            assert list((target / "workspace").iterdir()) == []


def renamed(manifest: Manifest, data: bytes, **other: int) -> Manifest:
    """The manifest of somebody who names his own pack rightly."""
    pack = Pack(digest(data).hex(), len(data), manifest.packs[0].raw)
    return replace(manifest, packs=(replace(pack, **other),))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"0" * 40 + b"1" * 40 + b"x" * 40, "another piece"),
        (b"0" * 40 + b"1" * 40 + b"2" * 39, "ends in the middle"),
        (b"0" * 40 + b"1" * 40 + b"2" * 41, "more than 120"),
        (bytes(300 * MEGA), "another piece"),
    ],
    ids=["another", "shorter", "longer", "bomb"],
)
def test_a_pack_with_other_content_is_refused(
    saved: tuple[Store, Manifest], tmp_path: Path, content: bytes, said: str
) -> None:
    data = zstandard.ZstdCompressor().compress(content)
    with pytest.raises(BadCheckpoint, match=said):
        unpacked(renamed(saved[1], data), data, tmp_path / "again")


def test_a_pack_that_is_no_frame_or_wants_much_memory_is_refused(saved: tuple[Store, Manifest], tmp_path: Path) -> None:
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    large = stream.compress(b"0" * 40 + b"1" * 40 + b"2" * 40) + stream.flush()
    for number, data in enumerate((b"no frame", large)):
        with pytest.raises(BadCheckpoint, match="cannot be inflated"):
            unpacked(renamed(saved[1], data), data, tmp_path / str(number))


def test_a_target_that_is_not_empty_is_not_written_over(saved: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = saved
    target, victim = tmp_path / "target", tmp_path / "victim"
    target.mkdir()
    victim.mkdir()
    (target / "workspace").symlink_to(victim)
    with pytest.raises(FileExistsError):
        unpack(manifest, store.get, target, owner=None)
    assert list(victim.iterdir()) == []


def test_a_link_that_appears_on_the_way_is_not_followed(saved: tuple[Store, Manifest], tmp_path: Path) -> None:
    store, manifest = saved
    target, victim = tmp_path / "target", tmp_path / "victim"
    target.mkdir()
    victim.mkdir()

    def get(name: str) -> bytes:
        (target / "workspace").rmdir()
        (target / "workspace").symlink_to(victim)
        return store.get(name)

    with pytest.raises((OSError, BadCheckpoint)):
        unpack(manifest, get, target, owner=None)
    assert list(victim.iterdir()) == []


# -- while the tree changes


class Interrupted:
    """Does something to the tree at the n-th piece that is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: object) -> None:
        self.acted = False
        plain = os.pread

        def pread(fd: int, size: int, at: int) -> bytes:
            data = plain(fd, size, at)
            if not self.acted:
                self.acted = True
                act()  # type: ignore[operator]
            return data

        monkeypatch.setattr(reading.os, "pread", pread)


def test_a_file_that_changes_while_it_is_read_is_told_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = volume(tmp_path / "source")
    path = source / "workspace" / "log"
    path.write_bytes(b"one")
    with monkeypatch.context() as patch:
        interrupted = Interrupted(patch, lambda: path.write_bytes(b"two"))
        store = Store()
        first = store.save(source)
    assert interrupted.acted and first.unsteady
    again = store.save(source, first.manifest)
    assert (again.hashed, again.unsteady) == (1, False)
    assert picture(store.restore(again.manifest, tmp_path / "again")) == picture(source)


def test_a_file_that_shrinks_while_it_is_read_is_saved_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = volume(tmp_path / "source")
    path = source / "workspace" / "log"
    path.write_bytes(random.Random(1).randbytes(9 * MEGA))
    with monkeypatch.context() as patch:
        Interrupted(patch, lambda: os.truncate(path, 5 * MEGA))
        store = Store()
        saved = store.save(source)
    assert saved.unsteady
    again = store.restore(saved.manifest, tmp_path / "again") / "workspace" / "log"
    assert again.read_bytes() == path.read_bytes()


def test_a_name_that_comes_after_its_folder_was_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = volume(tmp_path / "source")
    (source / "workspace" / "a").write_bytes(b"one")
    with monkeypatch.context() as patch:
        Interrupted(patch, lambda: (source / "workspace" / "late").write_bytes(b"three"))
        saved = Store().save(source)
    assert saved.unsteady and saved.manifest.files == 1


def test_a_name_that_goes_after_its_folder_was_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = volume(tmp_path / "source")
    (source / "workspace" / "a").write_bytes(b"one")
    (source / "workspace" / "gone").write_bytes(b"two")
    with monkeypatch.context() as patch:
        Interrupted(patch, (source / "workspace" / "gone").unlink)
        saved = Store().save(source)
    assert saved.unsteady and saved.manifest.files == 1 and saved.skipped == ()


def test_a_file_whose_clock_has_not_gone_on_is_read_again_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write in the same tick of the clock would leave size and times as they are."""
    source = volume(tmp_path / "source")
    path = source / "workspace" / "a"
    path.write_bytes(b"one")
    store = Store()
    with monkeypatch.context() as patch:
        patch.setattr(reading.time, "time_ns", lambda: path.stat().st_ctime_ns)
        first = store.save(source)
    assert (first.hashed, first.unsteady) == (1, False)
    second = store.save(source, first.manifest)
    assert (second.hashed, store.save(source, second.manifest).hashed) == (1, 0)


def test_a_link_that_is_put_in_place_of_a_folder_or_a_file_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = volume(tmp_path / "source")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("not yours")
    for name in ("file", "folder"):
        if name == "folder":
            (source / "workspace" / name).mkdir()
        else:
            (source / "workspace" / name).write_text("x")
    plain = os.stat

    def stat(name: object, **given: object) -> os.stat_result:
        found = plain(name, **given)  # type: ignore[call-overload]
        if name in (b"file", b"folder"):
            path = source / "workspace" / os.fsdecode(name)
            path.unlink() if name == b"file" else path.rmdir()
            path.symlink_to(victim / "secret" if name == b"file" else victim)
        return found  # type: ignore[no-any-return]

    packs: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", stat)
        saved = save(source, None, lambda name, data: packs.append(data))
    assert saved.unsteady and saved.manifest.files == 0 and packs == []


def test_a_link_that_becomes_a_file_after_it_was_looked_at_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = volume(tmp_path / "source")
    link = source / "workspace" / "link"
    link.symlink_to("elsewhere")
    readlink = os.readlink

    def replaced(name: bytes, *, dir_fd: int) -> bytes:
        link.unlink()
        link.write_bytes(b"a file now")
        return readlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(handles.os, "readlink", replaced)
        assert save(source, None, {}.__setitem__).unsteady
    assert not save(source, None, {}.__setitem__).unsteady


def test_a_tree_that_others_change_is_saved_or_told_unsteady(tmp_path: Path) -> None:
    """A process makes, appends, renames, links, locks and removes as fast as it can, while checkpoints are made of it."""
    source = volume(tmp_path / "source")
    code = """if True:
        import os, random, shutil, sys
        os.chdir(sys.argv[1])
        print("ready", flush=True)
        rng = random.Random(1)
        def act(name, other):
            kind = rng.randrange(8)
            if kind == 0: os.makedirs(name, exist_ok=True)
            elif kind == 1: open(name, "ab").write(rng.randbytes(rng.randrange(9000)))
            elif kind == 2: os.rename(name, other)
            elif kind == 3: os.symlink("/etc/passwd", name)
            elif kind == 4: os.link(name, other)
            elif kind == 5: shutil.rmtree(name) if os.path.isdir(name) else os.unlink(name)
            elif kind == 6: os.chmod(name, rng.choice([0, 0o755]), follow_symlinks=True) if not os.path.islink(name) else None
            else: open(os.path.join(name, "inner"), "wb").write(b"x")
        while True:
            try: act(f"n{rng.randrange(40)}", f"n{rng.randrange(40)}")
            except OSError: pass
    """
    process = subprocess.Popen([sys.executable, "-c", code, source / "workspace"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        previous: Manifest | None = None
        packs: dict[str, bytes] = {}
        unsteady = 0
        for number in range(300 if LONG else 40):
            saved = save(source, previous, packs.__setitem__)
            unsteady += saved.unsteady
            target = tmp_path / str(number)
            target.mkdir()
            unpack(saved.manifest, packs.__getitem__, target, owner=None)
            previous = saved.manifest
        assert unsteady > 0, "the tree did not change while it was saved"
    finally:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()
    store = Store()
    store.packs = packs
    last = save(source, previous, packs.__setitem__)
    assert not last.unsteady
    assert picture(store.restore(last.manifest, tmp_path / "last")) == picture(source)


def test_a_piece_is_known_by_all_of_its_digest(saved: tuple[Store, Manifest]) -> None:
    found = [record[0] for record in PIECE.iter_unpack(saved[1].pieces)]
    assert found == [digest(b"%d" % number * 40) for number in range(3)]
