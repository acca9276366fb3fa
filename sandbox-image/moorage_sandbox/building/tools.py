"""Runs the tools of a build: bounded in time and output. Layer: I/O rim.

ToolFailed   one ended with an error or not in time; the message has its last lines
Interrupted  one could not reach what it asked: trying again may help
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage_api.uv_commands import last_lines

LINES = 20
_KEPT = 64 * 1024


# How the HTTP client in uv says that a server could not be asked or did not finish. It says no more of a host that the proxy refuses, and
# a build backend may print that as well: then it is tried again, which helps nothing and costs little.
_UNASKED = ("error sending request for url", "request or response body error", "error decoding response body")


class ToolFailed(Exception):
    """The message is for people."""


class Interrupted(OSError):
    """The message is for people."""


@dataclass(frozen=True)
class Tools:
    """`variables`: their whole environment. `until`: seconds on the monotonic clock, when the build is over."""

    variables: Mapping[str, str]
    until: float

    def run(self, command: Sequence[str], *, cwd: Path, what: str, lost: Sequence[int] = ()) -> str:
        """What it printed, of which the end is kept; shown as well. Raises ToolFailed, Interrupted. `lost`: exit statuses that say that."""
        left = self.until - time.monotonic()
        with tempfile.TemporaryFile() as output:
            try:
                code = subprocess.run(
                    command, cwd=cwd, env=dict(self.variables), stdin=subprocess.DEVNULL, stdout=output,
                    stderr=subprocess.STDOUT, timeout=max(left, 0.1), check=False,
                ).returncode  # fmt: skip
            except subprocess.TimeoutExpired:
                code = None
            output.seek(max(0, output.seek(0, 2) - _KEPT))
            said = output.read()
        lines = last_lines(said, LINES)
        sys.stdout.write(f"{what}: {'ended' if code is not None else 'ran out of time'}\n{lines}\n")
        if code is None:
            raise ToolFailed(f"{what}: not finished in time; its last lines:\n{lines}")
        if code in lost or (code != 0 and any(words in lines for words in _UNASKED)):
            why = "a server does not answer, or a build may not reach it"
            raise Interrupted(f"{what}: {why}; its last lines:\n{lines}")
        if code != 0:
            raise ToolFailed(f"{what}: failed; its last lines:\n{lines}")
        return said.decode("utf-8", "replace")
