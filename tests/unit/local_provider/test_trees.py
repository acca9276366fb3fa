"""Trees that an agent made are measured and removed whatever their depth, names, modes and links."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from moorage_local import trees

pytestmark = pytest.mark.unit


def deep(root: Path, levels: int, *, name: str = "d" * 20) -> None:
    """`levels` folders in one another, a file of 64 KiB at the bottom: made as an agent would, a step at a time."""
    here = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, b"x" * 65_536)
    os.close(file)
    os.close(here)


def measured(root: Path) -> trees.Usage:
    """Without a limit of time."""
    return trees.measure([root], time.monotonic, time.monotonic() + 60)


def test_a_tree_longer_than_any_path_is_counted(tmp_path: Path) -> None:
    deep(tmp_path, 240)
    used = measured(tmp_path)
    assert used.files == 241 and used.octets >= 65_536
    assert used.complete and not used.deep
    trees.remove(tmp_path)


def test_a_tree_deeper_than_is_measured_says_so(tmp_path: Path) -> None:
    deep(tmp_path, trees.DEEPEST + 50)
    used = measured(tmp_path)
    assert used.deep and not used.complete
    trees.remove(tmp_path)


def test_a_tree_deeper_than_a_walk_may_recurse_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("a", "b"):
        deep(root, 1_500, name=name)
    trees.remove(root)
    assert not root.exists()


def test_links_are_neither_followed_nor_counted_by_what_they_point_to(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "precious").write_bytes(b"x" * 1_000_000)
    for name, target in (
        ("folder", outside),
        ("file", outside / "precious"),
        ("loop", "loop"),
        ("nowhere", "/nowhere"),
    ):
        (root / name).symlink_to(target)
    assert measured(root).octets < 100_000
    trees.remove(root)
    assert not root.exists() and (outside / "precious").exists()


def test_a_root_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    trees.remove(tmp_path / "link")
    assert measured(tmp_path / "link").files == 0
    assert (tmp_path / "real" / "kept").exists()


def test_hard_links_count_once_and_closed_folders_go_too(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "closed" / "inner").mkdir(parents=True)
    (root / "closed" / "inner" / ".moved-0").write_bytes(b"x" * 65_536)
    (root / ".moved-0").mkdir()
    for number in range(3):
        os.link(root / "closed" / "inner" / ".moved-0", root / f"again-{number}")
    assert 65_536 <= measured(root).octets < 2 * 65_536
    (root / "closed" / "inner").chmod(0)
    (root / "closed").chmod(0)
    trees.remove(root)
    assert not root.exists()


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    trees.remove(tmp_path / "absent")
    assert measured(tmp_path / "absent") == trees.Usage(0, 0, complete=True)
