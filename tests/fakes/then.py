"""The files of this repository as they were at an older commit, from what git keeps of it. Layer: I/O rim of the tests."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tree import ROOT

COMMIT = "b02d21b6c4baaea5a6892aa15faf1bba81610704"
"""Halfway through the first work on Kubernetes. Its chart is next to `cluster/halfway/`, whose own commit is in no clone any more."""
PACKAGES = ("crds", "gateway", "sandbox-image", "sdk", "local", "operator")


@contextlib.contextmanager
def tree() -> Iterator[Path]:
    """A folder with them, until the end of the block. Raises LookupError with the reason where this clone has not that commit."""
    done = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        raise LookupError(f"this clone has no commit {COMMIT[:7]} (a shallow one? git fetch --unshallow): {why}")
    with tempfile.TemporaryDirectory(prefix="moorage-then-") as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def environment(tree: Path) -> dict[str, str]:
    """What makes a process of this environment run the code of then. Limit: on today's libraries."""
    return {"PYTHONPATH": ":".join(str(tree / each) for each in PACKAGES)}
