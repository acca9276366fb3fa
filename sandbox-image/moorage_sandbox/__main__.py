"""`python -m moorage_sandbox`: one shim, from a config file and inherited descriptors. Layer: roof."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path

from moorage_sandbox.clock import SystemClock
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.main import Status, run


def main() -> int:
    """Entry; the exit status."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox", description="The shim of one sandbox.")
    parser.add_argument("--config", type=Path, required=True, help="a ShimConfig as JSON")
    parser.add_argument("--control-fd", type=int, required=True, help="the control channel to init (SOCK_SEQPACKET)")
    parser.add_argument("--status-fd", type=int, help="a pipe for JSON lines: listening, ready, failed, over")
    given = parser.parse_args()
    config = ShimConfig.from_json(given.config.read_bytes())
    control = socket.socket(fileno=given.control_fd)
    return asyncio.run(run(config, control, Status(given.status_fd), SystemClock()))


if __name__ == "__main__":
    sys.exit(main())
