"""The node of the cluster tier, and the images it runs. Skipped, with the reason, where a node cannot be had."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.node import build, door, images, plan
from cluster.node.node import Node

ROOT = Path(__file__).resolve().parents[2]
SANDBOX_IMAGE = "localhost/moorage-sandbox:test"
AGENT_IMAGE = "localhost/moorage-agent:test"


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A node that is Ready: the one that `scripts/cluster up` keeps, else one of this session's own."""
    kept = door.running()
    if kept is not None:
        yield Node(kept)
        return
    try:
        build.check_programs()
    except build.Missing as why:
        pytest.skip(f"no Kubernetes node on this machine: {why}")
    with Node.started(Path(tempfile.mkdtemp(prefix="moorage-node-"))) as started:
        yield started


@pytest.fixture(scope="session")
def base_image(node: Node) -> str:
    """Debian with Python, loaded."""
    node.load(images.base())
    return images.BASE


@pytest.fixture(scope="session")
def sandbox_image(node: Node) -> str:
    """The stock image, built from this work tree and loaded."""
    archive = plan.cache() / "sandbox-test.oci.tar"
    images.base()
    images.build(SANDBOX_IMAGE, ROOT / "sandbox-image" / "Dockerfile", ROOT, images.BASE, archive)
    node.load(archive)
    return SANDBOX_IMAGE


@pytest.fixture(scope="session")
def agent_image(node: Node, sandbox_image: str) -> str:
    """An agent's image: the stock one and a program."""
    context = ROOT / "tests" / "cluster" / "agent"
    archive = plan.cache() / "agent-test.oci.tar"
    images.build(AGENT_IMAGE, context / "Dockerfile", context, sandbox_image, archive)
    node.load(archive)
    return AGENT_IMAGE
