"""Questions to a cluster by the `kubectl` on PATH, each with a deadline and a bound. Layer: CLI, I/O."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from typing import IO

from moorage.cli.doctor.asked import Answer, of_run

SECONDS = 15.0
SERVER_SECONDS = 10  # of them, for the API server; the rest is for a login that kubectl may call
LIMIT = 4 * 1024 * 1024
PIECE = 64 * 1024


class Kubectl:
    """See `asked.Ask`. Which cluster is asked, kubectl finds by itself: KUBECONFIG and its current context."""

    def __init__(self, *, seconds: float = SECONDS, limit: int = LIMIT) -> None:
        self._seconds = seconds
        self._limit = limit

    def __call__(self, *arguments: str, given: str = "", within: float | None = None) -> Answer:
        """The answer to `kubectl ARGUMENTS`."""
        program = shutil.which("kubectl")
        if program is None:
            return Answer("no kubectl", why="There is no kubectl on PATH.")
        seconds = within or self._seconds
        server = f"--request-timeout={SERVER_SECONDS if within is None else int(within)}s"
        try:
            return _run([program, server, *arguments], given, seconds, self._limit)
        except OSError as fault:
            return Answer("no kubectl", why=f"{program} cannot be started: {fault.strerror}.")


def _run(command: list[str], given: str, seconds: float, limit: int) -> Answer:
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE if given else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that what it started ends with it
    ) as process:
        out, err = _Reader(process, process.stdout, limit), _Reader(process, process.stderr, limit)
        try:
            _give(process, given)
            code = process.wait(seconds)
            out.join(seconds)
            err.join(seconds)
        except subprocess.TimeoutExpired:
            return Answer("refused", why=f"kubectl did not end within {seconds:g} s.")
        finally:
            _end(process)
    if out.over or err.over:
        return Answer("refused", why=f"kubectl answered more than {limit} bytes.")
    return of_run(code, out.text, err.text)


def _give(process: subprocess.Popen[bytes], given: str) -> None:
    if process.stdin is None:
        return
    try:
        process.stdin.write(given.encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended already; its status says why


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends it, and with it, where there are process groups, what it started."""
    if hasattr(os, "killpg"):
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    if process.poll() is None:
        process.kill()
        process.wait()


class _Reader(threading.Thread):
    """Reads one pipe up to a bound; past it, the process is ended."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: IO[bytes] | None, limit: int) -> None:
        super().__init__(daemon=True)
        self._process, self._pipe, self._limit = process, pipe, limit
        self._held = bytearray()
        self.over = False
        self.start()

    @property
    def text(self) -> str:
        """What was read."""
        return self._held.decode(errors="replace")

    def run(self) -> None:
        """Until the pipe ends, or the bound is passed."""
        assert self._pipe is not None
        try:
            while piece := os.read(self._pipe.fileno(), PIECE):
                if len(self._held) + len(piece) > self._limit:
                    self.over = True
                    self._process.kill()
                    return
                self._held += piece
        except (OSError, ValueError):
            pass  # closed: something that outlived kubectl holds the other end, and nobody waits for it any more
