"""A process that does jobs for a bench: a job is a line of JSON on its stdin, and it answers with lines on its stdout. Layer: I/O rim."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import processes


class Worker:
    """One such process, on a core; `script` is run by this Python. Raises RuntimeError when it ended or is silent."""

    def __init__(self, script: Path, *words: str, core: int) -> None:
        self._name = script.stem
        self._child = processes.start(
            [sys.executable, script, *words], core=core, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._held = b""

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def send(self, job: dict[str, Any]) -> None:
        """Gives it a job."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(job).encode() + b"\n")
        self._child.stdin.flush()

    def line(self, seconds: float) -> dict[str, Any]:
        """Its next line. Read past the pipe's own buffer, which would hide a second line from the wait."""
        assert self._child.stdout is not None
        pipe, until = self._child.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._held:
            left = until - time.monotonic()
            data = os.read(pipe, 1 << 20) if left > 0 and select.select([pipe], [], [], left)[0] else b""
            if not data:
                why = "is silent" if self._child.poll() is None else f"ended with {self._child.returncode}"
                raise RuntimeError(f"{self._name} {why}; a job may take {seconds:g} s")
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """Ends it."""
        processes.end(self._child)
