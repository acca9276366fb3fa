"""The node of the cluster tier, and the images it runs. Skipped, with the reason, where a node cannot be had."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart import helm
from cluster import given, made
from cluster.installed import build_parts
from cluster.node import build, door
from cluster.node.door import FAULTS
from cluster.node.node import Node
from tree import ROOT

__all__ = ["ROOT"]


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A node that is Ready: the one that `scripts/cluster up` keeps, else one of this session's own."""
    if given.given(os.environ) is not None:
        pytest.skip("KUBECONFIG names a cluster: this needs a node of its own, which it may break")
    kept = door.running()
    if kept is not None:
        yield Node(kept)
        return
    try:
        build.check_programs()
    except build.Missing as why:
        pytest.skip(f"no Kubernetes node on this machine: {why}")
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="moorage-node-"))
        try:
            started = stack.enter_context(Node.started(folder))
        except FAULTS as why:
            with contextlib.suppress(OSError):  # not there any more, or with what tells why
                folder.rmdir()
            if (
                os.environ.get("MOORAGE_NODE_OPTIONAL") != "1"
            ):  # nobody has asked for it: CI's machines are not ours to choose
                raise
            pytest.skip(f"no Kubernetes node comes up on this machine: {why}")
        yield started


@pytest.fixture(scope="session")
def base_image(node: Node) -> str:
    """Debian with Python, loaded."""
    return made.base_image(node)


@pytest.fixture(scope="session")
def sandbox_image(node: Node) -> str:
    """The stock image, built from this work tree and loaded."""
    return made.sandbox_image(node)


@pytest.fixture(scope="session")
def agent_image(node: Node, sandbox_image: str) -> str:
    """An agent's image: the stock one and a program."""
    return made.agent_image(node)


@pytest.fixture(scope="session")
def parts(node: Node, sandbox_image: str) -> dict[str, str]:
    """The platform's images, loaded; part → image. Skips where there is no helm to install them with."""
    try:
        helm.binary()
    except helm.NoHelm as why:
        pytest.skip(str(why))
    return build_parts(node, sandbox_image)
