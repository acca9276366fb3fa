"""What is saved comes back: odd trees, and what is counted on the way."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from component.checkpoint.trees import noise, returns
from fakes.volumes import Store, picture, volume
from moorage_sandbox.checkpoint.manifest import MAX_PIECE, BadCheckpoint, Limits
from moorage_sandbox.checkpoint.restoring import unpack
from moorage_sandbox.checkpoint.saving import save

pytestmark = pytest.mark.component
MEGA = 2**20


def test_a_volume_without_folders_and_one_with_empty_ones_come_back(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    store = Store()
    assert picture(store.restore(store.save(tmp_path / "bare").manifest, tmp_path / "bare again")) == {}
    returns(store, volume(tmp_path / "empty"), tmp_path)
    assert store.packs == {}


def test_an_odd_tree_comes_back(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    work = source / "workspace"
    deep = work.joinpath(*["d"] * 60)
    deep.mkdir(parents=True)
    (deep / "leaf").write_bytes(b"leaf")
    (work / "ünïcödé ☃ \n").write_text("snow")
    Path(os.fsdecode(os.fsencode(work) + b"/\xff\xfe")).write_bytes(b"no UTF-8")
    (work / "README").write_text("a")
    (work / "readme").write_text("b")
    for number, size in enumerate((0, 1, MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, 2 * MAX_PIECE + 5)):
        (work / f"size {number}").write_bytes(noise(size, number))
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    (source / "home" / "second name").hardlink_to(work / "run")
    (work / "zzz").hardlink_to(work / "run")
    (work / "dangling").symlink_to("nowhere/at all")
    (work / "absolute").symlink_to("/etc/passwd")
    (work / "loop").symlink_to("loop")
    os.utime(work / "README", ns=(1, 1_234_567_890_123_456_789))
    os.utime(work / "loop", ns=(1, -5_000_000_001), follow_symlinks=False)
    read_only = work / "ro"
    read_only.mkdir()
    (read_only / "inner").write_text("x")
    read_only.chmod(0o555)
    os.utime(work, ns=(7, 7))
    returns(Store(), source, tmp_path)


def test_many_small_files_come_back_in_little_memory(tmp_path: Path) -> None:
    """10,000 files, saved and restored in a process of its own."""
    source = volume(tmp_path / "source")
    for number in range(10_000):
        folder = source / "workspace" / str(number // 100)
        folder.mkdir(exist_ok=True)
        (folder / str(number)).write_bytes(noise(3000, number))
    (tmp_path / "packs").mkdir()
    (tmp_path / "again").mkdir()
    code = """if True:
        import sys
        from pathlib import Path
        from moorage_sandbox.checkpoint.manifest import decode
        from moorage_sandbox.checkpoint.restoring import unpack
        from moorage_sandbox.checkpoint.saving import save
        at = Path(sys.argv[1])
        saved = save(at / "source", None, lambda name, data: (at / "packs" / name).write_bytes(data))
        assert save(at / "source", saved.manifest, lambda *_: 1 / 0).hashed == 0
        unpack(decode(saved.data), lambda name: (at / "packs" / name).read_bytes(), at / "again", owner=None)
        print(saved.manifest.files, Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # KiB
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], check=True, capture_output=True, text=True, timeout=100
    )
    files, peak = map(int, done.stdout.split())
    assert files == 10_000 and peak < 72 * 1024, f"{peak / 1024:.0f} MiB"
    assert picture(tmp_path / "again") == picture(source)


def test_a_hole_is_neither_stored_nor_written(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    sparse = source / "workspace" / "disk.img"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.seek(5 * 2**30 + 3)
        file.write(b"middle")
        file.truncate(10 * 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF)
    store = Store()
    saved = store.save(source)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert saved.octets < 4096 and saved.manifest.octets < MEGA
    assert after.ru_inblock - before.ru_inblock < 100_000  # blocks of 512: it was not read through
    again = store.restore(saved.manifest, tmp_path / "again") / "workspace" / "disk.img"
    assert again.stat().st_size == 10 * 2**30 and again.stat().st_blocks * 512 < 2 * MEGA
    with again.open("rb") as file:
        assert file.read(6) == b"begin\0" and file.seek(5 * 2**30 + 3) and file.read(7) == b"middle\0"


def test_set_ids_are_not_kept(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    (source / "workspace" / "tool").write_text("x")
    (source / "workspace" / "tool").chmod(0o6755)
    (source / "workspace" / "shared").mkdir()
    (source / "workspace" / "shared").chmod(0o1777)
    store = Store()
    again = picture(store.restore(store.save(source).manifest, tmp_path / "again"))
    assert again[b"workspace/tool"][1] == 0o755 and again[b"workspace/shared"][1] == 0o777


def test_sockets_and_pipes_are_told_and_left_out(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    os.mkfifo(source / "home" / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(source / "workspace")  # the path of a socket must be short
        try:
            server.bind("door")
        finally:
            os.chdir(here)
    store = Store()
    saved = store.save(source)
    assert saved.skipped == ("home/pipe", "workspace/door") and not saved.unsteady
    assert set(picture(store.restore(saved.manifest, tmp_path / "again"))) == {b"home", b"workspace"}


@pytest.fixture
def anybodys() -> Iterator[Path]:
    """A folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_what_its_owner_locked_is_saved_and_stays_locked(anybodys: Path) -> None:
    tmp_path = anybodys
    source = volume(tmp_path / "source")
    work = source / "workspace"
    (work / "cellar" / "deeper").mkdir(parents=True)
    (work / "cellar" / "deeper" / "secret").write_text("treasure")
    (work / "listed").mkdir()
    (work / "listed" / "file").write_text("y")
    (work / "lone").write_text("z")
    if os.geteuid() == 0:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            os.chown(path, 65534, 65534)
    code = """if True:
        import ctypes, os, sys
        from pathlib import Path
        from moorage_sandbox.checkpoint import clearing
        from fakes.volumes import Store, picture
        if os.geteuid() == 0:
            os.setgroups([]); os.setgid(65534); os.setuid(65534)
            ctypes.CDLL(None).prctl(4, 1)  # a process that was root may not look into its own /proc
        at = Path(sys.argv[1])
        work = at / "source" / "workspace"
        plain = picture(at / "source")
        for name, mode in (("cellar/deeper/secret", 0), ("cellar/deeper", 0), ("cellar", 0), ("listed", 0o400), ("lone", 0)):
            (work / name).chmod(mode)
        store = Store()
        saved = store.save(at / "source")
        assert (saved.skipped, saved.unsteady, saved.hashed) == ((), False, 3), saved
        assert store.save(at / "source", saved.manifest).hashed == 0, "unlocking must not look like a change"
        store.restore(saved.manifest, at / "again")
        for folder in ("source", "again"):
            modes = []
            for name in ("cellar", "cellar/deeper", "cellar/deeper/secret", "listed", "lone"):
                path = at / folder / "workspace" / name
                modes.append(path.stat().st_mode & 0o777)
                path.chmod(plain[b"workspace/" + name.encode()][1])
            assert modes == [0, 0, 0, 0o400, 0], (folder, modes)
            assert picture(at / folder) == plain, folder
        work.joinpath("cellar", "deeper").chmod(0)
        work.joinpath("cellar").chmod(0)
        fd = os.open(at / "source", os.O_RDONLY)
        clearing.clear(fd)
        assert os.listdir(fd) == []
    """
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=60, check=False, env=env
    )
    assert done.returncode == 0, done.stderr


names = st.binary(min_size=1, max_size=20).filter(lambda n: not set(n) & {0, 47} and n not in (b".", b".."))
leaves = st.one_of(
    st.binary(max_size=300),
    st.builds(lambda size: b"\0" * size, st.integers(0, 200_000)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=60).filter(lambda n: 0 not in n)),
)
trees = st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)


def _plant(at: bytes, tree: object) -> None:
    if isinstance(tree, dict):
        os.mkdir(at)
        for name, inner in tree.items():
            _plant(at + b"/" + name, inner)
    elif isinstance(tree, tuple):
        os.symlink(tree[1], at)
    else:
        assert isinstance(tree, bytes)
        with open(at, "wb") as file:
            if tree.strip(b"\0"):
                file.write(tree)
            else:
                file.truncate(len(tree))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.dictionaries(names, trees, max_size=4))
def test_any_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[bytes, object]) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "source").mkdir()
    _plant(os.fsencode(folder / "source" / "workspace"), tree)
    returns(Store(), folder / "source", folder)


# -- bounds, and doors that fail


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(files=20), "more than 20 files"),
        (Limits(octets=10_000), "more than 10000 bytes"),
        (Limits(depth=2), "deeper than 2 folders"),
        (Limits(path=30), "longer than 30 bytes"),
        (Limits(parts=5), "one file or hole too many"),
    ],
)
def test_a_tree_beyond_the_limits_is_refused_with_what_to_do(tmp_path: Path, limits: Limits, said: str) -> None:
    source = volume(tmp_path / "source")
    (source / "workspace" / "a" / "b" / "c" / ("long name" * 5)).mkdir(parents=True)
    for number in range(30):
        (source / "workspace" / str(number)).write_bytes(noise(1000, number))
    with pytest.raises(BadCheckpoint, match=f"(?s){said}.*remove"):
        save(source, None, lambda name, data: None, limits=limits)


def test_what_the_store_raises_comes_through(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    (source / "workspace" / "file").write_bytes(noise(6 * MEGA))

    def refuse(*_: object) -> None:
        raise ConnectionResetError("503")

    with pytest.raises(ConnectionResetError, match="503"):
        save(source, None, refuse)
    store = Store()
    manifest = store.save(source).manifest
    (tmp_path / "again").mkdir()
    with pytest.raises(KeyError):
        unpack(manifest, {}.__getitem__, tmp_path / "again", owner=None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_are_given_to_their_owner(tmp_path: Path) -> None:
    source = volume(tmp_path / "source")
    (source / "workspace" / "file").write_text("x")
    (source / "workspace" / "link").symlink_to("/etc/passwd")
    store = Store()
    manifest = store.save(source).manifest
    (tmp_path / "again").mkdir()
    unpack(manifest, store.get, tmp_path / "again", owner=(4321, 1234))
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (tmp_path / "again").rglob("*")}
    assert owners == {(4321, 1234)} and Path("/etc/passwd").stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_an_error_of_restoring_and_none_of_saving(tmp_path: Path) -> None:
    """Nothing is written to a volume to save it."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, timeout=30, check=False).returncode:
        pytest.skip("this machine gives no tmpfs")
    try:
        source = volume(small / "source")
        with (source / "workspace" / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            for number in range(4000):
                file.write(noise(4096, number))
        store = Store()
        saved = store.save(source)
        assert saved.hashed == 1 and saved.manifest.octets > MEGA
        (small / "again").mkdir()
        with pytest.raises(OSError, match="space"):
            unpack(saved.manifest, store.get, small / "again", owner=None)
    finally:
        subprocess.run(["umount", str(small)], check=True, timeout=30)
