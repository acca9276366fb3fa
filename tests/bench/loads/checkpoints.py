"""Checkpoints: a tree of 7,700 source files, 164 MB, saved whole, after 1 % of it changed and after nothing did, and restored.

Each save and restore is a process of its own, the packs go into a folder, the page cache is warm. `tar` and zstd -1 of the same tree in
the same run are what sizes and CPU are compared with.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from bench import figures, processes
from bench.effort import Effort
from bench.report import Line
from moorage_sandbox.checkpoint.manifest import decode
from moorage_sandbox.checkpoint.restoring import unpack
from moorage_sandbox.checkpoint.saving import save

FILES = 7_700
OCTETS = 164_000_000
CHANGED = FILES // 100
MEGA = 2**20


def measure(effort: Effort) -> list[Line]:
    """Both benches, on one tree."""
    with tempfile.TemporaryDirectory(prefix="mb-") as name:
        folder = Path(name)
        octets = plant(folder / "volume")
        rounds = [_round(folder, number) for number in range(max(1, effort.repetitions // 2))]
    return _lines(rounds, octets)


def plant(volume: Path) -> int:
    """The tree: Python sources of this environment one after the other, cut anew into files of many sizes. Its bytes."""
    rng = random.Random(19)
    weights = [rng.lognormvariate(0, 1.2) for _ in range(FILES)]
    scale = OCTETS / sum(weights)
    text = _sources()
    held = bytearray()
    written = 0
    for number, weight in enumerate(weights):
        size = max(1, int(weight * scale))
        while len(held) < size:
            held += next(text)
        path = volume / "workspace" / f"p{number // 400}" / f"m{number // 20 % 20}" / f"f{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(held[:size])
        del held[:size]
        written += size
    (volume / "home").mkdir()
    return written


def _sources() -> Iterator[bytes]:
    """Sources, again from the beginning when they are used up."""
    paths = sorted(
        path
        for name in ("purelib", "stdlib")
        for path in Path(sysconfig.get_path(name)).rglob("*.py")
        if path.is_file()
    )
    while True:
        for path in paths:
            yield path.read_bytes()


def _round(folder: Path, number: int) -> dict[str, Any]:
    """One of each; the names of its figures are those of `main`."""
    store, volume = folder / f"store {number}", folder / "volume"
    store.mkdir()
    found = {"tar": _run("tar", folder), "full": _run("save", volume, store, "-", folder / "full")}
    found["none"] = _run("save", volume, store, folder / "full", folder / "none")
    names = sorted((volume / "workspace").rglob("*.py"))
    for path in random.Random(number).sample(names, CHANGED):
        with path.open("ab") as file:
            file.write(b"# changed in round %d\n" % number)
    found["some"] = _run("save", volume, store, folder / "none", folder / "some")
    found["restore"] = _run("restore", store, folder / "some", folder / "again")
    found["untar"] = _run("untar", folder)
    same = subprocess.run(
        ["diff", "-r", "--no-dereference", volume, folder / "again"], capture_output=True, timeout=300, check=False
    )
    if same.returncode:
        raise RuntimeError(f"what was restored differs: {same.stdout[:200]!r}")
    for name in (store, folder / "again", folder / "untarred"):
        shutil.rmtree(name)
    return found


def _run(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.loads.checkpoints", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))


def _lines(rounds: list[dict[str, Any]], octets: int) -> list[Line]:
    def middle(what: str, figure: str) -> figures.Spread:
        return figures.spread([one[what][figure] for one in rounds])

    def spent(what: str) -> str:
        return f"{figures.short(middle(what, 'wall').middle)} s, CPU {figures.short(middle(what, 'cpu').middle)} s"

    expected = {"full": FILES, "none": 0, "some": CHANGED}
    wrong = max(abs(one[what]["hashed"] - count) for one in rounds for what, count in expected.items())
    more = max(abs(one[what]["puts"] - one[what]["packs"]) for one in rounds for what in expected)
    size = max((one["full"]["octets"] + one["full"]["manifest"]) / one["tar"]["octets"] for one in rounds)
    twice = max(one["restore"]["gets"] - one["restore"]["packs"] for one in rounds)
    whole = rounds[0]["full"]
    what = f"{FILES} files, {octets / 1e6:.0f} MB; {whole['puts']} packs, manifest {whole['manifest'] / 1000:.0f} kB"
    peak = max(one[name]["memory"] for one in rounds for name in (*expected, "restore"))
    lines = [
        Line(
            "checkpoint-hashed-not-changed", wrong, "files", goal=0, gate=0, note=f"whole, 0 % and 1 % changed; {what}"
        ),
        Line(
            "checkpoint-puts-not-packs",
            more,
            "puts",
            goal=0,
            gate=0,
            note="the library's part: manifest and pointer are put after",
        ),
        Line("checkpoint-size", size, "of tar | zstd -1", goal=1.05, gate=1.05, note="packs and manifest"),
        Line("checkpoint-memory", peak / MEGA, "MB", gate=100, note="highest of saves and the restore"),
    ]
    for name, save_of, goal in (("full", "full", 1.0), ("1-percent", "some", 0.3), ("0-percent", "none", 0.15)):
        wall, cpu = middle(save_of, "wall"), middle(save_of, "cpu")
        note = f"{wall}; CPU {figures.short(cpu.middle)} s"
        if save_of == "full":
            note += f"; tarfile | zstandard -1: {spent('tar')}"
        lines.append(Line(f"checkpoint-{name}", wall.middle, "s", goal=goal, note=note))
    wall, cpu = middle("restore", "wall"), middle("restore", "cpu")
    theirs = middle("untar", "cpu")
    note = f"{wall}; CPU {figures.short(cpu.middle)} s; tarfile out of zstandard: {spent('untar')}"
    return [
        *lines,
        Line("checkpoint-restore", wall.middle, "s", goal=2.2, note=note),
        Line("checkpoint-restore-got-twice", twice, "packs", goal=0, gate=0),
        Line(
            "checkpoint-restore-cpu",
            cpu.middle / theirs.middle,
            "of tarfile's",
            gate=2,
            note="gate: performance.md's 2x",
        ),
    ]


# -- what is measured, each in a process of its own


def _save(volume: Path, store: Path, before: str, after: Path) -> dict[str, int]:
    puts = 0

    def put(name: str, data: bytes) -> None:
        nonlocal puts
        puts += 1
        (store / name).write_bytes(data)

    previous = None if before == "-" else decode(Path(before).read_bytes())
    saved = save(volume, previous, put)
    after.write_bytes(saved.data)
    return {
        "hashed": saved.hashed,
        "puts": puts,
        "packs": saved.packs,
        "octets": saved.octets,
        "manifest": len(saved.data),
    }


def _restore(store: Path, manifest: Path, target: Path) -> dict[str, int]:
    gets = 0

    def get(name: str) -> bytes:
        nonlocal gets
        gets += 1
        return (store / name).read_bytes()

    target.mkdir()
    found = decode(manifest.read_bytes())
    unpack(found, get, target, owner=None)
    return {"gets": gets, "packs": len(found.packs)}


def _tar(folder: Path) -> dict[str, int]:
    with (folder / "tar").open("wb") as file:
        with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as stream:
            with tarfile.open(fileobj=stream, mode="w|") as archive:
                archive.add(folder / "volume", arcname=".")
        return {"octets": file.tell()}


def _untar(folder: Path) -> dict[str, int]:
    with (folder / "tar").open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            # Debian 12's 3.11.2 has no filters yet; the archive is our own.
            filtered: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
            archive.extractall(folder / "untarred", **filtered)
    return {}


def main(what: str, *words: str) -> None:
    """Does one thing and prints its figures: wall and CPU seconds, peak bytes, and its own counts."""
    began = time.perf_counter()
    if what == "save":
        counts = _save(Path(words[0]), Path(words[1]), words[2], Path(words[3]))
    elif what == "restore":
        counts = _restore(Path(words[0]), Path(words[1]), Path(words[2]))
    else:
        counts = {"tar": _tar, "untar": _untar}[what](Path(words[0]))
    wall = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = processes.kilobytes_of(Path("/proc/self/status").read_text(), "VmHWM") * 1024
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "memory": peak, **counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
