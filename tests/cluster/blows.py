"""What is done to a node's pods and processes: each blow names its victim and waits for nothing but that it fell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.node.node import Node


def first_process(node: Node, pod: dict[str, Any], container: str) -> int:
    """The pid, on this machine, of a running container's first process."""
    states = {one["name"]: one for one in pod["status"]["containerStatuses"]}
    wanted = str(states[container]["containerID"]).removeprefix("containerd://")
    for line in node.ctr("tasks", "list").stdout.splitlines():
        words = line.split()
        if words[:1] == [wanted]:
            return int(words[1])
    raise AssertionError(f"{container} of {pod['metadata']['name']} runs nowhere")


def children(pid: int) -> list[int]:
    """The processes below one."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill(pid: int) -> None:
    """SIGKILL. Raises ProcessLookupError where there is none: then nothing was hit."""
    os.kill(pid, signal.SIGKILL)


def evict(node: Node, namespace: str, pod: str) -> None:
    """Asks for a pod's eviction, as a drain of its node does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    node.kubectl("create", "--raw", path, "-f", "-", given=json.dumps(body))


@contextlib.contextmanager
def seen(node: Node, pod: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Every state of a pod that the API server showed while the block ran; filled when it has ended."""
    found: list[dict[str, Any]] = []
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    command = [
        "kubectl",
        "--kubeconfig",
        str(node.kubeconfig),
        "get",
        "pod",
        name,
        "-n",
        namespace,
        "--watch",
        "-o",
        "json",
    ]
    with tempfile.TemporaryFile("w+") as shown:
        watching = subprocess.Popen(command, stdout=shown, stderr=subprocess.DEVNULL)
        try:
            yield found
        finally:
            watching.terminate()
            watching.wait(10)
            shown.seek(0)
            found += _documents(shown.read())


def _documents(text: str) -> Iterator[dict[str, Any]]:
    decoder, at = json.JSONDecoder(), 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        try:
            one, at = decoder.raw_decode(text, at)
        except ValueError:  # the last one was cut off
            return
        yield one


def ended(pod: dict[str, Any], container: str) -> str:
    """Why a container ended, in Kubernetes' word; "" while it runs."""
    for one in pod["status"].get("containerStatuses") or ():
        if one["name"] == container:
            return str((one.get("state", {}).get("terminated") or {}).get("reason", ""))
    return ""
