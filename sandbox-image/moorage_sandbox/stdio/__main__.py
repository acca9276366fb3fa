"""`python -m moorage_sandbox.stdio [--config FILE]`, told on stdin, or by the file, as one JSON document what to run; says on stdout where
it listens, on stderr what the program prints. Ends with whoever began it, and leaves no process behind. Layer: composition.

In a pod secrets come by its own environment, and from there into the program's.

    {"argv": […], "env": {…}, "cwd": "/…", "secrets": ["API_TOKEN"], "memory": null, "host": "127.0.0.1", "port": 0, "token_sha256": "…",
     "parent": 123, "outer": {"env": {…}, "descriptor": "…"}}

`outer`: `argv` puts something around the program, which has this environment, and reads the program's from the descriptor whose number is
put where this word stands in `argv` (`environment.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from typing import Any, Final

from moorage_sandbox import lifeline
from moorage_sandbox.stdio.environment import Outer
from moorage_sandbox.stdio.program import SILENT_S, Program, Spec, reap
from moorage_sandbox.stdio.serving import Serving
from moorage_sandbox.stdio.telling import Telling

_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER: what a program detached comes here, and is ended too


def main() -> int:
    """The program of the module."""
    said = _told(sys.argv[1:])
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0)
    if said.get("parent"):
        lifeline.die_with(int(said["parent"]), signal.SIGTERM)
    asyncio.run(_serve(said))
    return 0


def _told(arguments: list[str]) -> dict[str, Any]:
    if arguments[:1] != ["--config"]:
        said: dict[str, Any] = json.loads(sys.stdin.buffer.read())
        return said
    with open(arguments[1], "rb") as file:
        said = json.load(file)
    given = {name: os.environ[name] for name in said["secrets"] if name in os.environ}
    return {**said, "env": {**said["env"], **given}}


async def _serve(said: dict[str, Any]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    program = Program(_spec(said), Telling(_print, time.monotonic))
    loop.add_signal_handler(signal.SIGCHLD, reap, program.reaped)
    serving = Serving(program, str(said["token_sha256"]))
    port = await serving.start(str(said["host"]), int(said["port"]))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    life = asyncio.create_task(program.run(), name="program")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({life, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await serving.close()
        stopped.cancel()
        life.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await life  # raises what ended it by itself


def _spec(said: dict[str, Any]) -> Spec:
    env: dict[str, str] = said["env"]
    return Spec(
        tuple(said["argv"]),
        env,
        cwd=said.get("cwd"),
        secrets=tuple(env[name] for name in said["secrets"] if env.get(name)),
        memory=said.get("memory"),
        silent=float(said.get("silent") or SILENT_S),
        outer=Outer(said["outer"]["env"], said["outer"]["descriptor"]) if said.get("outer") else None,
    )


def _print(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, line.encode("utf-8", "replace") + b"\n")


if __name__ == "__main__":
    sys.exit(main())
