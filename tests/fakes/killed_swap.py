"""A program: swaps a volume's trees again and again, killed before and after each step that touches the disk. One JSON line a kill.

python -m fakes.killed_swap FOLDER      → {"step", "call", "when", "again", "told", "kept"}: which step was killed, at which step `finish`
was killed after it (0: not), what `finish` told in the end, and which tree lies there: "old", "new" or "mixed".
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fakes.volumes import picture, volume
from moorage_sandbox.checkpoint import swapping

STEPS = ("mkdir", "rename", "unlink", "rmdir", "fsync", "fchmod", "chmod", "utime", "open")


def plant(where: Path, word: str) -> None:
    """A tree whose names are partly those of the other one; with locked folders and links."""
    for top in ("home", "workspace"):
        at = where / top
        at.mkdir(parents=True, exist_ok=True)
        (at / "same").write_text(word)
        (at / word).symlink_to("/etc/passwd")
        (at / "folder" / word).mkdir(parents=True)
        (at / "folder" / word / "leaf").write_text(word)
        (at / "folder").chmod(0o555)
        (at / ("file of old" if word == "new" else "other")).mkdir()
        (at / ("file of old" if word == "old" else "another")).write_text(word)
    (where / "workspace" / "locked" / "deep").mkdir(parents=True)
    (where / "workspace" / "locked").chmod(0)
    os.utime(where / "workspace", ns=(1, 1_000_000_007))


def killed_at(step: int, when: str) -> None:
    """From now on this process is killed before or after its step-th call."""
    count = 0

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            nonlocal count
            if name == "open" and not given[1] & os.O_CREAT:
                return call(*given, **named)
            count += 1
            if count == step and when == "before":
                die(name)
            mine = count
            try:
                return call(*given, **named)
            finally:
                if mine == step and when == "after":
                    die(name)

        return counted

    def die(name: str) -> None:
        os.write(REPORT, name.encode())
        os.kill(os.getpid(), signal.SIGKILL)

    for name in STEPS:
        setattr(os, name, wrapped(name, getattr(os, name)))


REPORT = 100


def child(work: Callable[[], object]) -> tuple[bool, str]:
    """Whether it was killed, and at what."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(write, REPORT)
            work()
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    _, code = os.waitpid(pid, 0)
    with os.fdopen(read) as report:
        name = report.read()
    if os.WIFEXITED(code) and os.WEXITSTATUS(code):
        raise RuntimeError("the swap failed")
    return os.WIFSIGNALED(code), name


def main(folder: Path) -> None:
    """Every step, until one is never reached."""
    step = 1
    while True:
        for when in ("before", "after"):
            for again in (0, 1 + step % 7):
                if not _one(folder, step, when, again):
                    return
        step += 1


def _one(folder: Path, step: int, when: str, again: int) -> bool:
    at = volume(folder / f"{step}-{when}-{again}")
    fresh = at / swapping.PLACE / "fresh"
    plant(at, "old")
    plant(fresh, "new")
    old, new = picture(at), picture(fresh)
    inodes = [(at / top).stat().st_ino for top in ("home", "workspace")]

    def swap() -> None:
        killed_at(step, when)
        swapping.swap(at, fresh)

    def finish() -> None:
        killed_at(again, "after")
        swapping.finish(at)

    killed, call = child(swap)
    if killed and again:
        child(finish)
    told = swapping.finish(at)
    now = picture(at)
    kept = "old" if now == old else "new" if now == new else "mixed"
    assert inodes == [(at / top).stat().st_ino for top in ("home", "workspace")]
    assert not (at / swapping.PLACE).exists() and swapping.finish(at) is False
    if killed:
        print(json.dumps({"step": step, "call": call, "when": when, "again": again, "told": told, "kept": kept}))
    else:
        assert kept == "new"
    shutil.rmtree(at)
    return killed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
