"""Work that would stop the shim's loop, in a child of its own: forked, nice, killed at its deadline or with the shim. Layer: I/O rim.

The child shares nothing but one pipe: every other descriptor of the shim is closed in it, so that no connection outlives the shim by it.

    ChildFailed   the work raised, was killed, or passed its deadline
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from typing import Any, NoReturn

import orjson

from moorage_sandbox.errors import ShimFault
from moorage_sandbox.lifeline import die_with

MAX_RESULT = 4 * 2**20
NICE = 5
KILL_SECONDS = 5.0


class ChildFailed(ShimFault):
    """`kind`: the name of what was raised, or `killed`, `late`."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


async def run(work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What `work` returned, computed in a child; it ends when this is cancelled. Raises ChildFailed, OSError (no process, no pipe)."""
    read, write = os.pipe2(os.O_CLOEXEC)  # told readable before it is read, so it never blocks
    try:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _child(work, write, parent)
    except BaseException:
        os.close(read)
        os.close(write)
        raise
    os.close(write)
    try:
        async with asyncio.timeout(seconds):
            data = await _everything(read)
    except TimeoutError:
        raise ChildFailed("late", f"not done within {seconds:g} s") from None
    finally:
        os.close(read)
        await _ended(pid)
    if not data:
        raise ChildFailed("killed", "the child ended without a word")
    found: dict[str, Any] = orjson.loads(data)
    if "error" in found:
        raise ChildFailed(found["error"], found["detail"])
    return found


async def _ended(pid: int) -> None:
    """Kills the child and reaps it; one that hangs in the kernel is left to end later."""
    os.kill(pid, signal.SIGKILL)  # ours, not reaped yet: the number is nobody else's
    loop, over, fd = asyncio.get_running_loop(), asyncio.Event(), os.pidfd_open(pid)
    loop.add_reader(fd, over.set)
    try:
        async with asyncio.timeout(KILL_SECONDS):
            await over.wait()
    except TimeoutError:
        return
    finally:
        loop.remove_reader(fd)
        os.close(fd)
        _reap(pid)


def _reap(pid: int) -> None:
    os.waitpid(pid, os.WNOHANG)


async def _everything(fd: int) -> bytes:
    """What comes until the pipe ends, at most MAX_RESULT; a longer answer counts as none."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    parts, size = list[bytes](), 0
    loop.add_reader(fd, came.set)
    try:
        while size <= MAX_RESULT:
            await came.wait()
            came.clear()
            part = os.read(fd, 1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
        return b""
    finally:
        loop.remove_reader(fd)


def _child(work: Callable[[], dict[str, Any]], write: int, parent: int) -> NoReturn:
    code = 1
    try:
        die_with(parent, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        gc.disable()  # a short life: the pages shared with the shim stay shared
        os.closerange(3, write)
        os.closerange(write + 1, os.sysconf("SC_OPEN_MAX"))
        os.nice(NICE)
        try:
            found = work()
        except Exception as error:  # the outermost frame of the process: its parent says what it means
            found = {"error": type(error).__name__, "detail": str(error)[:2000]}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(orjson.dumps(found))
        code = 0
    finally:
        os._exit(code)
