"""Manifests that nobody vouches for: each rule refuses, and what is altered is refused or means the same."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_sandbox.checkpoint.manifest import (
    FORMAT,
    MAX_PACK_RAW,
    MAX_PIECE,
    BadCheckpoint,
    Limits,
    Manifest,
    Pack,
    decode,
    encode,
)
from moorage_sandbox.checkpoint.table import FILE, FOLDER, HARD, PIECE, ROW, SYMLINK, TOP, Entry, Table

pytestmark = pytest.mark.unit

LONG = os.environ.get("MOORAGE_LONG") == "1"
EXAMPLES = 30_000 if LONG else 300  # of each fuzz group

Rows = list[tuple[Entry, tuple[int, ...]]]
PACKS = (Pack("a" * 64, 500, 1000), Pack("b" * 64, 60, 50))
PIECES = ((b"1" * 32, 0, 0, 600), (b"2" * 32, 0, 700, 300), (b"3" * 32, 1, 0, 50))


def folder(name: bytes, parent: int = TOP, **other: int) -> tuple[Entry, tuple[int, ...]]:
    """A row of a folder."""
    return Entry(FOLDER, 0o755, parent, 5, 0, 0, 0, 0, name, b"")._replace(**other), ()


def file(name: bytes, parent: int, parts: tuple[int, ...], size: int, **other: int) -> tuple[Entry, tuple[int, ...]]:
    """A row of a file."""
    return Entry(FILE, 0o644, parent, 5, 6, 7, size, 0, name, b"")._replace(**other), parts


def rows() -> Rows:
    """A right tree of every kind."""
    return [
        folder(b"home"),
        folder(b"workspace"),
        file(b"a", 1, (0, -70_000, 1), 70_900),
        folder(b"b", 1),
        file(b"c", 3, (2,), 50),
        (Entry(SYMLINK, 0o777, 1, 5, 0, 0, 0, 0, b"d", b"../../../etc/passwd"), ()),
        (Entry(HARD, 0o644, 1, 5, 0, 0, 0, 2, b"e", b""), ()),
    ]


def made(
    given: Rows | None = None,
    *,
    packs: tuple[Pack, ...] = PACKS,
    pieces: tuple[tuple[bytes, int, int, int], ...] = PIECES,
) -> bytes:
    """The bytes of a manifest, right or not."""
    table = Table()
    for entry, parts in rows() if given is None else given:
        table.add(entry, parts)
    return encode(Manifest(packs, b"".join(PIECE.pack(*piece) for piece in pieces), table, 0, 0))


def test_a_right_manifest_is_read_and_gives_the_same_bytes() -> None:
    manifest = decode(made())
    assert (manifest.packs, manifest.files, manifest.octets) == (PACKS, 2, 950)
    assert encode(manifest) == made()
    assert [manifest.table.entry(number) for number in range(7)] == [entry for entry, _ in rows()]
    assert b"/".join(manifest.table.path(4)) == b"workspace/b/c"


def _row(number: int, **change: object) -> Callable[[], bytes]:
    def make() -> bytes:
        given = rows()
        entry, parts = given[number]
        parts = change.pop("parts", parts)  # type: ignore[assignment]
        given[number] = (entry._replace(**change), parts)  # type: ignore[arg-type]
        return made(given)

    return make


def _with(*more: tuple[Entry, tuple[int, ...]]) -> Callable[[], bytes]:
    return lambda: made([*rows(), *more])


def _piece(number: int, piece: tuple[bytes, int, int, int]) -> Callable[[], bytes]:
    return lambda: made(pieces=tuple(piece if at == number else each for at, each in enumerate(PIECES)))


def _pack(number: int, **change: object) -> Callable[[], bytes]:
    return lambda: made(
        packs=tuple(replace(each, **change) if at == number else each for at, each in enumerate(PACKS))  # type: ignore[arg-type]
    )


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name of two dots": (_row(2, name=b".."), "is not a name"),
    "a name of one dot": (_row(2, name=b"."), "is not a name"),
    "no name": (_row(2, name=b""), "is not a name"),
    "an absolute path": (_row(2, name=b"/etc/passwd"), "is not a name"),
    "a path that climbs": (_row(2, name=b"../a"), "is not a name"),
    "a name with a NUL": (_row(2, name=b"a\0"), "is not a name"),
    "a name that is too long": (_row(2, name=b"a" * 256), "too long"),
    "a name that is there twice": (_row(3, name=b"a"), "there twice"),
    "names out of order": (_row(2, name=b"bb"), "not in order"),
    "a file at the top": (_with(file(b"x", TOP, (), 0)), "lies at the top"),
    "another folder at the top": (_with(folder(b"etc")), "lies at the top"),
    "a top folder that is a link": (_row(0, kind=SYMLINK, target=b"/etc"), "lies at the top"),
    "a parent that comes later": (_row(2, parent=3), "no folder before it"),
    "a parent that is itself": (_row(3, parent=3), "no folder before it"),
    "a parent that is not there": (_row(2, parent=77), "no folder before it"),
    "something below a file": (_with(folder(b"x", 2)), "no folder before it"),
    "something below a symlink": (_with(folder(b"x", 5)), "no folder before it"),
    "a device": (_row(2, kind=4), "neither a folder, a file nor a link"),
    "an unknown kind": (_row(2, kind=255), "neither a folder, a file nor a link"),
    "a setuid bit": (_row(2, mode=0o4755), "setuid"),
    "a mode beyond all bits": (_row(2, mode=0xFFFF), "setuid"),
    "a file with a target": (_row(2, target=b"x"), "target"),
    "a symlink without a target": (_row(5, target=b""), "target"),
    "a target with a NUL": (_row(5, target=b"a\0b"), "target"),
    "a target that is too long": (_row(5, target=b"a" * 4096), "target"),
    "a folder with a size": (_row(0, size=1), "content that its kind"),
    "a symlink with an inode": (_row(5, inode=1), "content that its kind"),
    "a folder with parts": (_row(3, parts=(0,)), "content that its kind"),
    "a hard link to a folder": (_row(6, link=3), "no file before it"),
    "a hard link to a symlink": (_row(6, link=5), "no file before it"),
    "a hard link to itself": (_row(6, link=6), "no file before it"),
    "a hard link to nothing": (_row(6, link=4_000_000), "no file before it"),
    "a part that is not there": (_row(4, parts=(3,)), "part that is not there"),
    "two holes after each other": (_row(2, parts=(0, -10, -69_990, 1)), "part that is not there"),
    "parts of another size": (_row(2, size=70_901), "do not add up"),
    "a hole of all there is": (_row(2, parts=(0, -(2**62), 1), size=2**62 + 900), "do not add up"),
    "a piece that nobody uses": (_row(4, parts=(0,), size=600), "not used by any file"),
    "a piece beyond its pack": (_piece(1, (b"2" * 32, 0, 701, 300)), "inside the pack"),
    "a piece upon another": (_piece(1, (b"2" * 32, 0, 599, 300)), "inside the pack"),
    "a piece of no bytes": (_piece(1, (b"2" * 32, 0, 700, 0)), "inside the pack"),
    "a piece in a pack that is not there": (_piece(2, (b"3" * 32, 2, 0, 50)), "one by one"),
    "a piece that is there twice": (_piece(1, (b"1" * 32, 0, 700, 300)), "there twice"),
    "a pack that nobody uses": (lambda: made(packs=(*PACKS, Pack("c" * 64, 9, 9))), "not used by any piece"),
    "a pack that is named twice": (_pack(1, name="a" * 64), "named twice"),
    "a pack of no bytes": (_pack(1, size=0), "impossible sizes"),
    "a pack that is too large": (_pack(0, raw=MAX_PACK_RAW + 1), "impossible sizes"),
    "a pack larger than its content": (_pack(1, size=5000), "impossible sizes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_manifest_that_breaks_a_rule_is_refused(case: str) -> None:
    make, said = REFUSED[case]
    with pytest.raises(BadCheckpoint, match=said):
        decode(make())


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(files=6), "7 files and folders"),
        (Limits(parts=3), "of 4 parts"),
        (Limits(octets=949), "more than 949 bytes"),
        (Limits(size=70_899), "add up"),
        (Limits(depth=1), "too deep"),
        (Limits(name=8), "too long"),
        (Limits(path=12), "too long"),
        (Limits(manifest=50), "50 are the most"),
    ],
)
def test_a_manifest_beyond_the_limits_is_refused(limits: Limits, said: str) -> None:
    with pytest.raises(BadCheckpoint, match=said):
        decode(made(), limits)


def test_a_piece_larger_than_pieces_are_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match="inside the pack"):
        decode(
            made(
                [folder(b"home"), file(b"a", 0, (0,), MAX_PIECE + 1)],
                packs=(Pack("a" * 64, 9, MAX_PACK_RAW),),
                pieces=((b"1" * 32, 0, 0, MAX_PIECE + 1),),
            )
        )


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200 * 2**20))
    assert len(bomb) < 50_000
    with pytest.raises(BadCheckpoint, match="inflates to"):
        decode(bomb)
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(200 * 2**20))
    with pytest.raises(BadCheckpoint, match="does not say"):
        decode(silent)
    liar = bytearray(zstandard.ZstdCompressor().compress(bytes(2**20)))
    liar[5:9] = struct.pack("<I", 100)
    with pytest.raises(BadCheckpoint):
        decode(bytes(liar))


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\x28\xb5\x2f\xfd", bytes(range(100))], ids=["empty", "json", "magic", "junk"]
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(BadCheckpoint):
        decode(data)


def test_another_form_counts_that_lie_and_what_follows_are_refused() -> None:
    raw = zstandard.ZstdDecompressor().decompress(made())
    pack = zstandard.ZstdCompressor().compress
    assert decode(pack(raw)) == decode(made())
    for altered in (
        raw.replace(FORMAT.encode(), b"moorage-checkpoint/2"),
        raw + b"x",
        raw[:-1],
        raw[:25],
        raw[:21] + struct.pack("<I", 2**32 - 1) + raw[25:],
    ):
        with pytest.raises(BadCheckpoint):
            decode(pack(altered))
    for data in (made() + b"x", made() + made(), made()[:-1]):
        with pytest.raises(BadCheckpoint):
            decode(data)


def test_every_flipped_bit_is_refused_or_means_the_same() -> None:
    data, manifest = made(), decode(made())
    refused = 0
    for at in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[at] ^= 1 << bit
            try:
                assert decode(bytes(altered)) == manifest
            except BadCheckpoint:
                refused += 1
    assert refused > 7 * len(data)


numbers = st.one_of(st.integers(0, 12), st.sampled_from([2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))


@pytest.mark.timeout(3600 if LONG else 120)
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data())
def test_whatever_is_altered_stays_below_the_top_folders(data: st.DataObject) -> None:
    """Fuzz of the fields: what is still believed has all that restoring relies on."""
    given_rows = []
    for entry, parts in rows():
        if data.draw(st.booleans()):
            field = data.draw(st.sampled_from(["kind", "mode", "parent", "size", "link", "name", "target", "parts"]))
            if field == "parts":
                parts = tuple(data.draw(st.lists(st.integers(-3, 4), max_size=4)))
            elif field in ("name", "target"):
                word = data.draw(st.sampled_from([b"", b".", b"..", b"/", b"a/b", b"a", b"home", b"workspace", b"\0"]))
                entry = entry._replace(**{field: word})
            else:
                top = {"kind": 255, "mode": 65535, "parent": TOP, "link": TOP, "size": 2**64 - 1}[field]
                entry = entry._replace(**{field: min(data.draw(numbers), top)})
        given_rows.append((entry, parts))
    try:
        manifest = decode(made(given_rows))
    except BadCheckpoint:
        return
    _sound(manifest)


@pytest.mark.timeout(3600 if LONG else 120)
@settings(max_examples=EXAMPLES, deadline=None)
@given(cuts=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=6)), min_size=1, max_size=4))
def test_whatever_bytes_are_altered_stays_below_the_top_folders(cuts: list[tuple[int, bytes]]) -> None:
    """Fuzz of the inflated bytes, the frame being right."""
    raw = bytearray(zstandard.ZstdDecompressor().decompress(made()))
    for at, word in cuts:
        raw[at % len(raw) : at % len(raw) + len(word)] = word
    try:
        manifest = decode(zstandard.ZstdCompressor().compress(bytes(raw)))
    except BadCheckpoint:
        return
    _sound(manifest)


def _sound(manifest: Manifest) -> None:
    table = manifest.table
    seen = set()
    for number in range(len(table)):
        entry = table.entry(number)
        path = table.path(number)
        assert path[0] in (b"home", b"workspace") and not {b"", b".", b".."} & set(path)
        assert not any(b"/" in name or b"\0" in name for name in path)
        assert entry.parent == TOP or (entry.parent < number and table.kind(entry.parent) == FOLDER)
        assert tuple(path) not in seen and entry.mode <= 0o777
        seen.add(tuple(path))
        sizes = [-part if part < 0 else manifest.piece(part)[3] for part in table.parts_of(number)]
        assert sum(sizes) == entry.size


def test_a_manifest_of_many_files_is_read() -> None:
    table = Table()
    table.add(*folder(b"workspace"))
    for number in range(30_000):
        table.add(*file(b"%08d" % number, 0, (), 0))
    manifest = decode(encode(Manifest((), b"", table, 0, 0)))
    assert manifest.files == 30_000 and len(manifest.table.rows) == 30_001 * ROW.size
    assert manifest.table.parts == array("q")
