"""Bundles: the same folder gives the same bytes; a hostile archive is refused whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage_api import bundles

pytestmark = pytest.mark.unit

SMALL = bundles.Limits(files=20, octets=100_000, ratio=50, ratio_from=50_000, depth=5, name=60, path=200)


def folder(root: Path) -> Path:
    (root / "pkg").mkdir(parents=True)
    (root / "host.py").write_text("print('hello')\n")
    (root / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (root / "pkg" / "run.sh").chmod(0o755)
    for ignored in (".git/config", "__pycache__/x.pyc", ".venv/bin/python", "node_modules/a.js"):
        (root / ignored).parent.mkdir(parents=True, exist_ok=True)
        (root / ignored).write_text("x")
    return root


def packed(root: Path) -> tuple[bytes, bundles.Packed]:
    out = io.BytesIO()
    result = bundles.pack(root, out)
    return out.getvalue(), result


def test_the_same_files_give_the_same_bundle_anywhere(tmp_path: Path) -> None:
    first, one = packed(folder(tmp_path / "a"))
    os.utime(tmp_path / "a" / "host.py", (1, 1))
    second, _ = packed(folder(tmp_path / "b"))
    assert first == second and one.digest == hashlib.sha256(first).hexdigest() and one.files == 2


def test_a_bundle_unpacks_to_what_was_packed(tmp_path: Path) -> None:
    data, result = packed(folder(tmp_path / "a"))
    target = tmp_path / "out"
    assert bundles.unpack(io.BytesIO(data), target, digest=result.digest) == 2
    assert (target / "host.py").read_text() == "print('hello')\n"
    assert os.access(target / "pkg" / "run.sh", os.X_OK) and not os.access(target / "host.py", os.X_OK)
    assert bundles.tree_digest(bundles.files_of(target)) == bundles.tree_digest(bundles.files_of(tmp_path / "a"))


def test_names_of_any_length_and_script_travel(tmp_path: Path) -> None:
    root = tmp_path / "a"
    long = "n" * 120 + ".txt"
    root.mkdir()
    (root / long).write_text("1")
    (root / "größe.txt").write_text("2")
    data, _ = packed(root)
    bundles.unpack(io.BytesIO(data), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([long, "größe.txt"])


def test_the_ignore_file_leaves_names_paths_and_folders_out(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    (root / ".moorageignore").write_text("# notes\n*.log\ndata/\npkg/run.sh\n")
    (root / "x.log").write_text("x")
    (root / "data").mkdir()
    (root / "data" / "big").write_text("x")
    assert [f.name for f in bundles.files_of(root)] == [".moorageignore", "host.py"]


def test_a_link_inside_is_packed_as_its_file_and_one_outside_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    (root / "alias.py").symlink_to("host.py")
    assert "alias.py" in [f.name for f in bundles.files_of(root)]
    (root / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(bundles.BundleError, match="passwd is a link"):
        bundles.files_of(root)


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, data: bytes = b"x", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=link)


def pax_bomb() -> bytes:
    info = tarfile.TarInfo("x")
    info.type = tarfile.XHDTYPE
    info.size = 10**9
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "traversal": lambda: archive(member("ok"), member("../evil")),
    "traversal inside": lambda: archive(member("a/../../evil")),
    "absolute": lambda: archive(member("/etc/evil")),
    "backslash": lambda: archive(member("..\\evil")),
    "control character": lambda: archive(member("a\nb")),
    "symlink": lambda: archive(special("l", tarfile.SYMTYPE, "/etc"), member("l/passwd")),
    "hardlink": lambda: archive(member("a"), special("b", tarfile.LNKTYPE, "a")),
    "device": lambda: archive(special("d", tarfile.CHRTYPE)),
    "fifo": lambda: archive(special("f", tarfile.FIFOTYPE)),
    "sparse": lambda: archive(special("s", tarfile.GNUTYPE_SPARSE)),
    "setuid": lambda: archive(member("s", mode=0o4755)),
    "sticky folder": lambda: archive(special("d", tarfile.DIRTYPE), member("d/x", mode=0o1644)),
    "case clash": lambda: archive(member("Readme"), member("README")),
    "folder case clash": lambda: archive(member("A/x"), member("a/y")),
    "unicode clash": lambda: archive(member("caf\u00e9"), member("cafe\u0301")),
    "ligature clash": lambda: archive(member("\ufb01le"), member("file")),
    "twice": lambda: archive(member("a"), member("a")),
    "file and folder": lambda: archive(member("a"), member("a/b")),
    "too many": lambda: archive(*(member(f"f{n}") for n in range(30))),
    "too deep": lambda: archive(member("/".join("abcdefgh"))),
    "long name": lambda: archive(member("n" * 61)),
    "too large": lambda: archive(member("a", os.urandom(70_000)), member("b", os.urandom(70_000))),
    "bomb": lambda: archive(member("a", bytes(90_000))),
    "pax bomb": pax_bomb,
    "pax size": lambda: archive(member("a", pax_headers={"size": "999999999"})),
    "cut": lambda: archive(member("a", os.urandom(5000)))[:2000],
    "not gzip": lambda: b"PK\x03\x04" + bytes(100),
    "empty": lambda: b"",
    "no members": lambda: archive(),
    "trailing data": lambda: archive(member("a")) + b"more",
    "second member": lambda: archive(member("a")) + archive(member("b")),
    "hidden after the end": lambda: gzip.compress(gzip.decompress(archive(member("a"))) + b"x" * 512),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_the_old_tree_stays(name: str, tmp_path: Path) -> None:
    target = tmp_path / "t" / "agent"
    target.mkdir(parents=True)
    (target / "old").write_text("old")
    with pytest.raises(bundles.BundleError):
        bundles.unpack(io.BytesIO(HOSTILE[name]()), target, limits=SMALL)
    assert [p.name for p in target.parent.iterdir()] == ["agent"]
    assert (target / "old").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_wrong_digest_is_refused_and_a_good_archive_replaces_the_tree(tmp_path: Path) -> None:
    target = tmp_path / "agent"
    data = archive(member("a"))
    bundles.unpack(io.BytesIO(data), target)
    with pytest.raises(bundles.BundleError, match="digest"):
        bundles.unpack(io.BytesIO(archive(member("b"))), target, digest="0" * 64)
    assert [p.name for p in target.iterdir()] == ["a"]
    bundles.unpack(io.BytesIO(archive(member("b"))), target)
    assert [p.name for p in target.iterdir()] == ["b"] and [p.name for p in tmp_path.iterdir()] == ["agent"]
