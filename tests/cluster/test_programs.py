"""Programs of toolboxes (`stdio`) in a release: a pod of their own, used by agents; killed in a call, with a secret, without a network."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import blows
from cluster.installed import Installed, installed, small
from cluster.node import images, plan
from cluster.node.node import Node
from fakes import stdio_program
from fakes.commands import Commands
from fakes.platform import poll
from tree import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

IMAGE = "localhost/moorage-program:test"
CANARY = "tok-canary-5e0d84fb1c27a936"
CHANGED = "tok-canary-b7290c6ae14f58d3"
SECRET_SECONDS = 150
"""Until a pod is made anew of a changed Secret: half a minute for the look of the operator, a start, and what a busy node adds."""
TOOLBOX = """
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {name: all}
spec:
  upstreams:
    - name: scripted
      stdio:
        command: python3
        args: [program.py]
        image: %s
        env:
          - {name: NOTES, value: /home/agent/notes}
          - {name: API_TOKEN, secret: {secret: notes, key: token}}
"""


@pytest.fixture(scope="module")
def image(node: Node, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with the program's files in /app; nothing of the platform's is in it."""
    context = tmp_path_factory.mktemp("program")
    shutil.copy(stdio_program.__file__, context / "program.py")
    archive = plan.cache() / "program-test.oci.tar"
    images.build(IMAGE, ROOT / "tests/cluster/programs/Dockerfile", context, images.BASE, archive)
    node.load(archive)
    return IMAGE


@pytest.fixture(scope="module")
def release(
    node: Node, parts: dict[str, str], agent_image: str, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """With the toolbox, and an agent that may use it. Whose program serves."""
    values = small(parts) | {"toolboxes": {"secrets": ["notes"]}}
    with installed(node, agent_image, tmp_path_factory.mktemp("programs"), values) as made:
        give(made, CANARY)
        made.kubectl("apply", "-f", "-", given=TOOLBOX % image)
        made.apply("caller", toolboxes=["all"])
        made.until_ready("caller", within=120)
        poll("its program serves", lambda: ready(made), within=120)
        said: list[str] = []
        try:
            poll("the gateways know it", lambda: said.append(told(made, "hello")) or said[-1] == "hello", within=120)
        except AssertionError as fault:
            shown = made.kubectl("get", "toolbox", "all", "-o", "jsonpath={.status}")
            raise AssertionError(f"{fault}: {said[-1:]}\n{shown}\n{made.logs()}") from fault
        yield made


def give(release: Installed, token: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "notes"}, "stringData": {"token": token}}
    release.kubectl("apply", "--server-side", "-f", "-", given=json.dumps(body))


def ready(release: Installed) -> bool:
    held = json.loads(release.kubectl("get", "toolbox", "all", "-o", "json")).get("status") or {}
    return any(one["type"] == "Ready" and one["status"] == "True" for one in held.get("conditions", ()))


def told(release: Installed, text: str, session: str = "") -> str:
    """What the tool says to the agent that was asked to call it."""
    found = release.ask("caller", f"tool {text}", session or f"session-{uuid.uuid4().hex[:8]}", timeout=120)
    return str(found.output_text or found.error)


def program(release: Installed) -> dict[str, Any]:
    """Its pod."""
    found = json.loads(release.kubectl("get", "pods", "-o", "json"))["items"]
    (pod,) = [
        one for one in found
        if any(each["image"] == IMAGE for each in one["spec"]["containers"]) and "deletionTimestamp" not in one["metadata"]
    ]  # fmt: skip
    return dict(pod)


def test_it_runs_in_a_pod_of_its_own_without_a_network_or_an_account_of_the_cluster(release: Installed) -> None:
    assert told(release, "network").startswith("no: ")
    assert told(release, "where") == "/app ['program.py']"
    env = json.loads(told(release, "environment"))
    assert env["HOME"] == "/home/agent" and not {each for each in env if each.startswith("KUBERNETES")}
    pod = program(release)["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert {one["image"] for one in pod["containers"]} == {IMAGE}


def test_its_secret_is_said_to_nobody(release: Installed, tmp_path: Path) -> None:
    env = told(release, "environment")
    assert "[credential]" in env and CANARY not in env
    shown = release.kubectl("get", "pods,toolboxes,hostedagents,events", "-o", "json")
    shown += release.logs() + release.kubectl("logs", program(release)["metadata"]["name"], "--all-containers")
    listed = Commands(f"http://{release.address}", release.key, tmp_path).run("toolboxes", "list").out
    assert "stdio" in listed and CANARY not in shown + listed


def test_killed_in_a_call_it_leaves_an_unknown_outcome_and_is_begun_again(release: Installed, node: Node) -> None:
    asked = release.client.responses.create(model="caller", input="tool slow never", background=True)
    poll("it is in the call", lambda: "slow never" in notes(release), within=90)
    (child,) = blows.children(blows.first_process(node, program(release), "program"))
    blows.kill(child)

    def ended() -> Any:
        found = release.client.responses.retrieve(asked.id)
        return None if found.status in ("queued", "in_progress") else found

    done = poll("the turn ends", ended, within=90)
    assert done.status == "completed" and "outcome_unknown" in done.output_text, done
    poll("it is begun again", lambda: told(release, "after") == "after", within=60)
    assert notes(release).count("slow never") == 1, "never sent twice"


def test_its_deleted_pod_comes_back(release: Installed) -> None:
    before = program(release)
    release.kubectl("delete", "pod", before["metadata"]["name"], "--wait=false")

    def other() -> bool:
        try:
            return bool(program(release)["metadata"]["uid"] != before["metadata"]["uid"] and ready(release))
        except ValueError:
            return False

    poll("another pod serves", other, within=120)
    poll("it is used", lambda: told(release, "again") == "again", within=90)


def test_a_changed_secret_makes_it_anew(release: Installed) -> None:
    assert held(release) == CANARY
    give(release, CHANGED)
    poll("it has the new one", lambda: held(release) == CHANGED, within=SECRET_SECONDS)
    poll("it serves", lambda: ready(release), within=90)
    env = poll("it is used", lambda: text if (text := told(release, "environment")).startswith("{") else "", within=90)
    assert "[credential]" in env and CHANGED not in env and CANARY not in env


def held(release: Installed) -> str:
    """The secret in the environment of the pod that runs; "" while there is none."""
    try:
        return release.kubectl(
            "exec", program(release)["metadata"]["name"], "-c", "program", "--", "printenv", "API_TOKEN"
        ).strip()
    except (RuntimeError, ValueError):
        return ""


def test_it_ends_with_its_toolbox(release: Installed) -> None:
    release.kubectl("delete", "toolbox", "all", "--wait=false")
    poll("nothing of it is left", lambda: IMAGE not in release.kubectl("get", "pods", "-o", "json"), within=90)


def notes(release: Installed) -> list[str]:
    """What it ran, in order; of the program that runs now."""
    name = program(release)["metadata"]["name"]
    found = release.kubectl("exec", name, "-c", "program", "--", "cat", "/home/agent/notes")
    return found.splitlines()
