"""Hostile archives through the upload API: each is refused with its reason, and nothing is left or written anywhere (F22)."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import bundling

pytestmark = pytest.mark.journey


def archive(*members: tuple[str, bytes | None, dict[str, Any]]) -> bytes:
    """A tar.gz of (name, data, attributes); data None: a member without any."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name, data, attributes in members:
            info = tarfile.TarInfo(name)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    return out.getvalue()


def one(name: str, data: bytes | None = b"x", **attributes: Any) -> bytes:
    """An archive with this member beside a good one."""
    return archive(("host.py", b"", {}), (name, data, attributes))


def link(kind: bytes, target: str) -> bytes:
    """A link, and a file that would go through it."""
    return archive(("link", None, {"type": kind, "linkname": target}), ("link/file", b"x", {}))


GOOD = archive(("host.py", b"print(1)", {}))
HOSTILE: dict[str, Callable[[], bytes]] = {
    "traversal": lambda: one("../../escape.py"),
    "traversal below": lambda: one("a/../../escape.py"),
    "absolute": lambda: one("/tmp/escape.py"),
    "a backslash": lambda: one("..\\escape.py"),
    "a drive": lambda: one("C:\\escape.py"),
    "a control character": lambda: one("a\nb"),
    "a symbolic link": lambda: link(tarfile.SYMTYPE, "/tmp"),
    "a hard link": lambda: link(tarfile.LNKTYPE, "/etc/passwd"),
    "a relative link": lambda: link(tarfile.SYMTYPE, ".."),
    "a device": lambda: one("null", None, type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a block device": lambda: one("disk", None, type=tarfile.BLKTYPE, devmajor=8),
    "a pipe": lambda: one("pipe", None, type=tarfile.FIFOTYPE),
    "setuid": lambda: one("tool", b"x", mode=0o4755),
    "setgid": lambda: one("tool", b"x", mode=0o2755),
    "a case clash": lambda: archive(("Host.py", b"a", {}), ("host.py", b"b", {})),
    "a case clash of folders": lambda: archive(("Lib/a.py", b"a", {}), ("lib/b.py", b"b", {})),
    "a Unicode clash": lambda: archive(("caf\u00e9.py", b"a", {}), ("cafe\u0301.py", b"b", {})),
    "the same twice": lambda: archive(("host.py", b"a", {}), ("host.py", b"b", {})),
    "a file as a folder": lambda: archive(("a", b"x", {}), ("a/b", b"y", {})),
    "a bomb": lambda: gzip.compress(tar_of("zeros", 96 << 20), 9),
    "a bomb in a header": lambda: one("pax", b"x", pax_headers={"comment": "x" * 200_000}),
    "a million levels": lambda: one("/".join("a" * 60)),
    "a long name": lambda: one("n" * 300),
    "too many files": lambda: archive(*((f"f{n}", b"", {}) for n in range(20_001))),
    "a size by extension": lambda: one("f", b"x", pax_headers={"size": "99999999999"}),
    "sparse": lambda: one("f", b"x", pax_headers={"GNU.sparse.size": "99999999999"}),
    "cut off": lambda: GOOD[:-30],
    "something behind it": lambda: GOOD + b"more",
    "two archives": lambda: GOOD + GOOD,
    "not gzip": lambda: b"PK\x03\x04" + b"x" * 100,
    "a plain tar": lambda: gzip.decompress(GOOD),
    "garbage in gzip": lambda: gzip.compress(os.urandom(5_000)),
    "empty": lambda: archive(),
}


def tar_of(name: str, size: int) -> bytes:
    """A tar with one file of zeros."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf() + b"\0" * (size + 1024)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_with_its_reason(world: Any, name: str) -> None:
    data = HOSTILE[name]()
    answer = bundling.upload(world.door, "hostile", data)
    assert answer.status == 422, answer.raw
    assert answer.error["message"].startswith("The bundle is refused: ")
    assert len(answer.error["message"]) < 700
    again = world.door.ask("PUT", "/v1/agents/hostile", bundling.manifest("hostile", data))
    assert (again.status, again.error["param"]) == (422, "spec.source.bundle"), "it was not kept"


def test_nothing_is_left_of_refused_bundles(world: Any) -> None:
    assert not Path("/tmp/escape.py").exists() and not Path("/escape.py").exists()
    assert not list(Path(tempfile.gettempdir()).glob("bundle-*"))
    state = world.platform.state
    assert not list(state.rglob("escape.py")) and not list((state / "objects" / "t" / "dev").glob("uploads/*/p*"))


def test_an_upload_is_bounded_and_verified(world: Any) -> None:
    digest = hashlib.sha256(GOOD).hexdigest()
    for body, param in (
        ({"digest": "x", "size": 1}, "digest"),
        ({"digest": digest, "size": 0}, "size"),
        ({"digest": digest, "size": "many"}, "size"),
        ({"digest": digest}, "size"),
        ({"digest": digest, "size": 1, "more": 1}, "more"),
    ):
        answer = world.door.ask("POST", "/v1/agents/hostile/bundles", body)
        assert (answer.status, answer.error["param"]) == (400, param), body
    assert world.door.ask("POST", "/v1/agents/hostile/bundles", {"digest": digest, "size": 1 << 40}).status == 413
    wrong = bundling.upload(world.door, "hostile", GOOD, digest=hashlib.sha256(b"other").hexdigest())
    assert wrong.status == 422 and "sha256" in wrong.error["message"]
    begun = world.door.ask("POST", "/v1/agents/hostile/bundles", {"digest": digest, "size": len(GOOD)}).body
    path = f"/v1/bundles/uploads/{begun['id']}"
    for headers, status in (
        ({"upload-offset": "5"}, 409),
        ({"upload-offset": "-1"}, 400),
        ({"upload-offset": "x"}, 400),
        ({}, 400),
    ):
        assert world.door.ask("PATCH", path, raw=b"x", headers=headers).status == status
    assert world.door.ask("PATCH", path, raw=GOOD + b"x", headers={"upload-offset": "0"}).status == 413
    assert world.door.ask("PATCH", f"{path[:-1]}z", raw=b"x", headers={"upload-offset": "0"}).status == 404
