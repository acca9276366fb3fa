"""The process that runs a program of a toolbox (`python -m moorage_sandbox.stdio`), begun and ended. Layer: local, below `programs`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from moorage_local import sandboxes

BEGIN_S = 30.0
END_S = 15.0
SYSTEM_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_LINE = 64 * 1024


class Unready(Exception):
    """A program cannot be begun now; the sentence says why."""


@contextlib.asynccontextmanager
async def running(told: dict[str, Any], mark: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """What runs a program, for as long as the context lasts. It is told by its stdin: secrets stand in no command line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-m", "moorage_sandbox.stdio"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE,
        env=environment(mark),
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(told).encode())
        process.stdin.close()
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def environment(mark: str) -> dict[str, str]:
    """Of all that stands around a program."""
    return {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", sandboxes.MARK: mark}


async def port(process: asyncio.subprocess.Process) -> int:
    """Where it listens. Raises Unready."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BEGIN_S):
            return int(await process.stdout.readline())
    except (TimeoutError, ValueError):
        raise Unready("what runs it did not begin") from None
