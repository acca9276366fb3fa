"""`python -m moorage_sandbox`: one shim, from a config file and a way to init. Layer: roof."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import shutil
import socket
import sys
from pathlib import Path

from moorage_sandbox.clock import Clock, SystemClock
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.main import Status, run
from moorage_sandbox.output import Console

MEET_STEP = 0.05
STDOUT = 1  # of a pod's container: what `kubectl logs` shows
LAUNCHER = Path(__file__).with_name("launcher")


def main() -> int:
    """Entry; the exit status."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox", description="The shim of one sandbox.")
    parser.add_argument("--config", type=Path, required=True, help="a ShimConfig as JSON")
    parser.add_argument("--endpoint", help="in place of the config's: a pod learns its address only when it runs")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--control-fd", type=int, help="the control channel to init (SOCK_SEQPACKET)")
    way.add_argument("--control-socket", type=Path, help="where init listens for it (launcher `pod`)")
    parser.add_argument("--launcher", type=Path, help="where init's container waits for it; this shim brings it there")
    parser.add_argument("--status-fd", type=int, help="a pipe for JSON lines: listening, ready, failed, over")
    given = parser.parse_args()
    if given.launcher:
        bring(given.launcher)
    config = ShimConfig.from_json(given.config.read_bytes())
    if given.endpoint:
        config = dataclasses.replace(config, endpoint=given.endpoint)
    return asyncio.run(_shim(config, given.control_fd, given.control_socket, Status(given.status_fd), SystemClock()))


def bring(place: Path) -> None:
    """Puts the launcher (standard library only) beside whatever image the agent has; whole or not there at all."""
    if not place.exists():
        fresh = place.with_name(f"{place.name}.new")
        shutil.copytree(LAUNCHER, fresh, dirs_exist_ok=True)
        fresh.rename(place)


async def _shim(config: ShimConfig, fd: int | None, path: Path | None, status: Status, clock: Clock) -> int:
    if path is None:
        return await run(config, socket.socket(fileno=fd), status, clock, Console(STDOUT, clock))
    control = await meet(path, config.ready_timeout, clock)
    if control is None:
        sys.stderr.write(f"moorage: init did not listen at {path} within {config.ready_timeout:g} s\n")
        return 1
    return await run(config, control, status, clock, Console(STDOUT, clock))


async def meet(path: Path, timeout: float, clock: Clock) -> socket.socket | None:
    """A connection to init; None when it does not listen within `timeout` seconds: its container may start later than ours."""
    deadline = clock.now() + timeout
    while clock.now() < deadline:
        control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            control.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            control.close()
            await asyncio.sleep(MEET_STEP)
        else:
            return control
    return None


if __name__ == "__main__":
    sys.exit(main())
