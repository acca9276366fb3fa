"""The files of this repository as they were at an older commit, from what git keeps of it. Layer: I/O rim of the tests."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tree import ROOT

COMMIT = "b02d21b6c4baaea5a6892aa15faf1bba81610704"
"""Halfway through the first work on Kubernetes. Its chart is next to `cluster/halfway/`, whose own commit is in no clone any more."""
PACKAGES = ("crds", "gateway", "sandbox-image", "sdk", "local", "operator")


class Unknown(Exception):
    """This clone has not that commit; says why."""


@contextlib.contextmanager
def tree() -> Iterator[Path]:
    """A folder with them, until the end of the block. Raises Unknown."""
    done = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        raise Unknown(f"this clone has no commit {COMMIT[:7]} (a shallow one? git fetch --unshallow): {why}")
    with tempfile.TemporaryDirectory(prefix="moorage-then-") as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


@contextlib.contextmanager
def code() -> Iterator[dict[str, str]]:
    """The environment in which a process runs the code of then, until the end of the block. Skips the test where `tree` raises Unknown.

    Limit: on today's libraries.
    """
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(tree())
        except Unknown as why:
            pytest.skip(str(why))
        yield {"PYTHONPATH": ":".join(str(found / each) for each in PACKAGES)}
