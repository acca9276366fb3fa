"""The platform's images as they were at an older commit, built from what git keeps. Layer: composition of the cluster tests."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cluster.made import ROOT
from cluster.node import images, plan
from cluster.node.node import Node

COMMIT = "b02d21b6c4baaea5a6892aa15faf1bba81610704"
"""Halfway through the first work on Kubernetes. Its chart is the one next to `halfway/`, whose own commit is in no clone any more."""
PARTS = {"sandbox": "sandbox-image", "gateway": "gateway", "operator": "operator"}
AGENT = "agent"


def built(node: Node) -> dict[str, str]:
    """Part → image, in the node: those of the platform, and the tests' agent on the stock image of then.

    Raises LookupError with the reason where this clone has not that commit; ImageFailed.
    """
    with _tree() as tree:
        found = {
            part: _image(node, part, tree / folder / "Dockerfile", tree, images.BASE) for part, folder in PARTS.items()
        }
    context = ROOT / "tests" / "cluster" / "agent"
    return found | {AGENT: _image(node, AGENT, context / "Dockerfile", context, found["sandbox"])}


def _image(node: Node, part: str, dockerfile: Path, context: Path, base: str) -> str:
    name, archive = f"localhost/moorage-{part}:then", plan.cache() / f"{part}-then.oci.tar"
    images.build(name, dockerfile, context, base, archive)
    node.load(archive)
    return name


@contextlib.contextmanager
def _tree() -> Iterator[Path]:
    """The files of that commit. Raises LookupError."""
    done = subprocess.run(["git", "-C", str(ROOT), "archive", COMMIT], capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        raise LookupError(f"this clone has no commit {COMMIT[:7]} (a shallow one? git fetch --unshallow): {why}")
    with tempfile.TemporaryDirectory(prefix="moorage-then-") as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)
