"""Running git: a deadline, a cap on what it writes, and nobody left behind. The only place that starts a process."""

import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import errors
from .budget import MIB, Budget

LOOK_SECONDS = 0.2
STDERR_BYTES = 8192


@dataclass(frozen=True)
class Outcome:
    """`stderr` is its first few KiB."""

    code: int
    stderr: str


@dataclass(frozen=True)
class Job:
    """A command with files for its streams. Everything it may write lies under `watched`, which is measured while it runs."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    watched: Path
    stdout: Path
    stdin: Path | None = None


def run(job: Job, budget: Budget, limit: int) -> Outcome:
    """Run to the end. Raises `TooLarge`, `OutOfTime`, `Cancelled`; its whole process group is then dead."""
    errors_file = job.watched / "stderr"
    source = job.stdin or Path(os.devnull)
    with job.stdout.open("wb") as out, errors_file.open("wb") as err, source.open("rb") as given:
        process = subprocess.Popen(
            job.command, stdin=given, stdout=out, stderr=err, env=dict(job.environment), cwd=job.watched,
            start_new_session=True,
        )  # fmt: skip
        try:
            while not _ended(process, budget):
                if _size(job.watched) > limit:
                    raise errors.TooLarge(f"git wrote more than {limit // MIB} MiB; the repository is too large.")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    with errors_file.open("rb") as written:
        return Outcome(process.returncode, written.read(STDERR_BYTES).decode("utf-8", "replace"))


def _ended(process: subprocess.Popen[bytes], budget: Budget) -> bool:
    try:
        process.wait(budget.seconds(LOOK_SECONDS))
    except subprocess.TimeoutExpired:
        return False
    return True


def _size(folder: Path) -> int:
    """Files may vanish while git renames them."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total
