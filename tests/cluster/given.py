"""A cluster of somebody else's, which KUBECONFIG names: what tests may put there, and the way to what they put. Layer: I/O rim.

Tests get two namespaces and what the chart makes. Images are pulled from where `MOORAGE_TEST_IMAGES` says, since nothing is loaded there.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread

from cluster.node import door, plan
from cluster.node.control import Given

IMAGES = "MOORAGE_TEST_IMAGES"
PARTS = ("sandbox", "gateway", "operator", "valkey", "test-agent")
FORWARD_SECONDS = 20.0
_FORWARDED = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


def given(environment: Mapping[str, str]) -> Given | None:
    """The cluster that the environment names; None also where that is the node of `scripts/cluster up`."""
    theirs, kept = environment.get("KUBECONFIG"), door.running()
    if not theirs or (kept is not None and Path(theirs).resolve() == plan.Place(kept).kubeconfig.resolve()):
        return None
    return Given(Path(theirs).resolve())


def images(environment: Mapping[str, str]) -> dict[str, str]:
    """Part → image there. Raises LookupError with what to do where nobody says it."""
    named = environment.get(IMAGES, "")
    if "{part}" not in named:
        raise LookupError(
            f"set {IMAGES} to where that cluster finds the images, like registry.example/team/moorage-{{part}}:0.1.0, and push them:"
            " scripts/images build --push REGISTRY, then scripts/images build test-agent --push REGISTRY"
        )
    return {part: named.replace("{part}", part) for part in PARTS}


@contextlib.contextmanager
def forwarded(kubeconfig: Path, namespace: str, service: str, port: int) -> Iterator[str]:
    """An address of this machine that leads to a Service's port, until the end of the block. Raises RuntimeError."""
    command = [
        "kubectl",
        "--kubeconfig",
        str(kubeconfig),
        "-n",
        namespace,
        "port-forward",
        f"service/{service}",
        f":{port}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        said: list[str] = []
        reader = Thread(target=lambda: said.append(process.stdout.readline() if process.stdout else ""), daemon=True)
        reader.start()
        reader.join(FORWARD_SECONDS)
        found = _FORWARDED.match(said[0]) if said else None
        if found is None:
            raise RuntimeError(f"kubectl port-forward to {service}: {said[0].strip() if said else 'no word'}")
        yield f"127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
