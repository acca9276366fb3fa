"""New trees in place of old ones: all of them or none, though killed at any step, and nothing that an agent left is in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fakes import killed_swap
from fakes.volumes import picture, volume
from moorage_sandbox.checkpoint import clearing, swapping

pytestmark = pytest.mark.component


def test_new_trees_are_in_place_and_the_folders_stay(tmp_path: Path) -> None:
    at = volume(tmp_path / "volume")
    killed_swap.plant(at, "old")
    fresh = at / swapping.PLACE / "fresh"
    killed_swap.plant(fresh, "new")
    wanted = picture(fresh)
    inode = (at / "workspace").stat().st_ino
    swapping.swap(at, fresh)
    assert picture(at) == wanted and (at / "workspace").stat().st_ino == inode
    assert list((at / ".moorage").iterdir()) == [] and swapping.finish(at) is False


def test_killed_at_any_step_leaves_the_old_trees_or_the_new(tmp_path: Path) -> None:
    """In memory where there is such a place: each swap waits for the disk, and there are some hundred."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK):
        with tempfile.TemporaryDirectory(dir=memory) as name:
            _killed_everywhere(Path(name))
    else:
        _killed_everywhere(tmp_path)


def _killed_everywhere(folder: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "fakes.killed_swap", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=env)
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    # On some file systems a mode or a time is set through another call; the ones below are always there.
    assert {"mkdir", "rename", "unlink", "rmdir", "fsync", "fchmod", "chmod", "utime"} <= {
        kill["call"] for kill in kills
    }
    assert [kill for kill in kills if kill["kept"] == "mixed"] == []
    assert [kill for kill in kills if kill["told"] and kill["kept"] != "new"] == []
    assert {kill["kept"] for kill in kills} == {"old", "new"}
    # Only when everything but the work folder is gone, or finish was killed after that, is there nothing to tell.
    quiet = [kill for kill in kills if kill["kept"] == "new" and not kill["told"] and not kill["again"]]
    assert len(quiet) <= 6, quiet


def test_what_a_killed_restore_left_is_removed(tmp_path: Path) -> None:
    at = volume(tmp_path / "volume")
    (at / "workspace" / "file").write_text("old")
    before = picture(at)
    killed_swap.plant(at / swapping.PLACE / "fresh", "new")
    assert swapping.finish(at) is False
    assert picture(at) == before and not (at / swapping.PLACE).exists()


def test_a_volume_that_was_never_restored_has_nothing_to_finish(tmp_path: Path) -> None:
    assert swapping.finish(volume(tmp_path / "volume")) is False


def test_trees_that_lie_elsewhere_are_not_swapped_in(tmp_path: Path) -> None:
    at = volume(tmp_path / "volume")
    with pytest.raises(ValueError, match="restoring/fresh"):
        swapping.swap(at, tmp_path / "fresh")


def test_a_top_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    at = volume(tmp_path / "volume")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("x")
    (at / "workspace").rmdir()
    (at / "workspace").symlink_to(victim)
    killed_swap.plant(at / swapping.PLACE / "fresh", "new")
    with pytest.raises(OSError):
        swapping.swap(at, at / swapping.PLACE / "fresh")
    assert [path.name for path in victim.iterdir()] == ["file"]


def test_a_deep_tree_full_of_links_is_removed_and_nothing_else(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("x")
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for number in range(3000):
        os.mkdir("0", dir_fd=here)
        os.symlink(victim, "out", dir_fd=here)
        if number % 50 == 0:
            os.chmod("0", 0o700, dir_fd=here)
        below = os.open("0", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    fd = os.open(tree, os.O_RDONLY)
    clearing.clear(fd)
    os.close(fd)
    assert list(tree.iterdir()) == [] and (victim / "file").read_text() == "x"
