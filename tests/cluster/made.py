"""What cluster tests put on a node: images built from this work tree, and the kind. Layer: composition of the cluster tests."""

from __future__ import annotations

from pathlib import Path

from cluster.node import images, plan
from cluster.node.node import Node
from moorage_api.resources import HOSTED_AGENT

ROOT = Path(__file__).resolve().parents[2]
SANDBOX_IMAGE = "localhost/moorage-sandbox:test"
AGENT_IMAGE = "localhost/moorage-agent:test"
CHECKPOINT_BENCH_IMAGE = "localhost/moorage-checkpoint-bench:test"
SWEEP_IMAGE = "localhost/moorage-sweep:test"
REVIEW_IMAGE = "localhost/moorage-review:test"


def base_image(node: Node) -> str:
    """Debian with Python."""
    node.load(images.base())
    return images.BASE


def sandbox_image(node: Node) -> str:
    """The stock image."""
    archive = plan.cache() / "sandbox-test.oci.tar"
    images.base()
    images.build(SANDBOX_IMAGE, ROOT / "sandbox-image" / "Dockerfile", ROOT, images.BASE, archive)
    node.load(archive)
    return SANDBOX_IMAGE


def agent_image(node: Node) -> str:
    """An agent's image: the stock one, which is there already, and a program."""
    context = ROOT / "tests" / "cluster" / "agent"
    archive = plan.cache() / "agent-test.oci.tar"
    images.build(AGENT_IMAGE, context / "Dockerfile", context, SANDBOX_IMAGE, archive)
    node.load(archive)
    return AGENT_IMAGE


def review_image(node: Node) -> str:
    """The example that reviews, as an image."""
    archive = plan.cache() / "review-test.oci.tar"
    dockerfile = ROOT / "tests" / "cluster" / "review" / "Dockerfile"
    images.build(REVIEW_IMAGE, dockerfile, ROOT / "examples" / "review-agent", SANDBOX_IMAGE, archive)
    node.load(archive)
    return REVIEW_IMAGE


def sweep_image(node: Node) -> str:
    """The agent of the crash sweep, as an image."""
    archive = plan.cache() / "sweep-test.oci.tar"
    dockerfile = ROOT / "tests" / "cluster" / "sweep" / "Dockerfile"
    images.build(SWEEP_IMAGE, dockerfile, ROOT / "tests" / "crash" / "sweep" / "agents", SANDBOX_IMAGE, archive)
    node.load(archive)
    return SWEEP_IMAGE


def checkpoint_bench_image(node: Node) -> str:
    """The bench of checkpoints beside what the stock image saves and restores with; its scratch is a claim's volume at /data."""
    archive = plan.cache() / "checkpoint-bench-test.oci.tar"
    dockerfile = ROOT / "tests" / "cluster" / "checkpoints" / "Dockerfile"
    images.build(CHECKPOINT_BENCH_IMAGE, dockerfile, ROOT / "tests", SANDBOX_IMAGE, archive)
    node.load(archive)
    return CHECKPOINT_BENCH_IMAGE


def hosted_agents(node: Node) -> None:
    """The kind HostedAgent, served."""
    node.kubectl("apply", "--server-side", "-f", str(ROOT / HOSTED_AGENT.file))
    node.kubectl("wait", "--for=condition=Established", f"crd/{HOSTED_AGENT.plural}.moorage.dev", "--timeout=30s")
