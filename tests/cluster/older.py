"""The platform's images as they were at an older commit, built from what git keeps. Layer: composition of the cluster tests."""

from __future__ import annotations

from pathlib import Path

from cluster.made import ROOT
from cluster.node import images, plan
from cluster.node.node import Node
from fakes import then

PARTS = {"sandbox": "sandbox-image", "gateway": "gateway", "operator": "operator"}
AGENT = "agent"


def built(node: Node) -> dict[str, str]:
    """Part → image, in the node: those of the platform, and the tests' agent on the stock image of then.

    Raises then.Unknown where this clone has not that commit; ImageFailed.
    """
    with then.tree() as tree:
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
