"""The crash sweep on a cluster (turns.md §10): twenty points of an agent with five questions and five effects, struck around their edges.

The chart with values-ha.yaml on the node, as in test_faults.py; models and tools are servers of this process, which the gateways reach at
the node's address. Struck are the agent's process, the shim, the whole pod and the gateway that carries the calls. Judged as on a laptop:
`crash/sweep/judging.py`. The points are of a seed (`--crash-seed`, printed; 0: one by the day's date).
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import openai
import pytest

from chart import helm
from cluster import blows, made
from cluster.calls import calling
from cluster.installed import PORT, Installed, installed, over_s3, small
from cluster.node import plan
from cluster.node.node import Node
from crash.sweep.judging import judge
from crash.sweep.points import Blow, Point, points
from crash.sweep.rows import Row, Servers, posting
from crash.sweep.striking import Striker, Strikers
from fakes.effects import counting
from fakes.models import serving
from fakes.platform import poll
from fakes.s3 import S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.each_change, pytest.mark.timeout(1200)]

COUNT = 20
AGENT = "sweeper"
VICTIMS = ("agent", "shim", "pod", "gateway")
ROW = Row(AGENT, "in_pod.py", over_mcp=frozenset(range(1, 6)), twice=True)
KNOWN_SECONDS = 180.0
"""Until gateways know a new endpoint and a new toolbox."""
MANIFESTS = """
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: scripted}}
spec: {{protocol: compatible, baseUrl: "{models}/v1"}}
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: all}}
spec: {{upstreams: [{{name: desk, mcp: {{url: "{desk}"}}, readOnly: [is_there]}}]}}
"""


@dataclass(frozen=True)
class World:
    """The release, and who counts."""

    release: Installed
    servers: Servers
    strikers: Strikers


@pytest.fixture(scope="module")
def world(node: Node, parts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = S3Server(plan.HOST)
    try:
        with serving(host=plan.HOST) as models, counting() as effects, posting(effects, plan.HOST) as desk:
            values = small(parts) | over_s3(node, server)
            values |= {"models": {"allowedUpstreams": [models.named, desk.named]}}
            folder, high = tmp_path_factory.mktemp("sweep"), [helm.CHART / "values-ha.yaml"]
            with installed(node, made.sweep_image(node), folder, values, files=high) as release:
                poll("two gateways", lambda: len(release.parts("gateway")) == 2, within=60)
                release.kubectl("apply", "-f", "-", given=MANIFESTS.format(models=models.url, desk=desk.url))
                release.apply(
                    AGENT,
                    pool={"min": 1, "max": 1},
                    session={"idleTimeout": "30s"},
                    models=["scripted"],
                    toolboxes=["all"],
                )
                release.until_ready(AGENT, within=180)
                servers = Servers(models, effects)
                strikers = Strikers(servers)
                poll("an undisturbed run", lambda: undisturbed(release), within=KNOWN_SECONDS, every=2)
                yield World(release, servers, strikers)
    finally:
        server.stop()


def undisturbed(release: Installed) -> bool:
    """Endpoint and toolbox are known, since a run with all of it completes."""
    run = uuid.uuid4().hex[:12]
    try:
        said = release.ask(AGENT, f"{run} same", f"sweep-{run}", timeout=60).output_text
    except openai.APIError:
        return False
    return str(said).endswith(f"did {run}-5\n")


LAST = frozenset({("e5", "answered")})


def _edges(point: Point) -> set[tuple[str, str]]:
    return {(blow.event, blow.edge) for blow in point.blows}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    seed = metafunc.config.getoption("--crash-seed") or int(time.time()) // 86_400
    # Behind the last effect's answer nothing is left to do: the turn has ended before a blow gets to a node.
    met = [each for each in points(seed, 0, 2 * COUNT, (ROW,), VICTIMS) if not LAST.issubset(_edges(each))]
    found = [replace(each, background=False) for each in met[:COUNT]]
    metafunc.parametrize("point", found, ids=[f"{seed}-{n}-{each}" for n, each in enumerate(found)])


def test_no_effect_happens_twice_whatever_dies(world: World, point: Point) -> None:
    release, run = world.release, uuid.uuid4().hex[:12]
    session = f"sweep-{run}"
    release.until_whole()
    release.until_ready(AGENT)
    poll("a warm sandbox", lambda: warm(release) == 1, within=90)
    gateway = release.parts("gateway")[0]
    direct = release.at(f"{gateway['status']['podIP']}:{PORT}")
    warmed(direct, session)  # this gateway has bound the sandbox, so it carries its calls
    pod = pod_of(release, session)
    striker = Striker(point, run, Deaths(release, pod, gateway))
    world.strikers.add(striker)
    try:
        with calling(release, AGENT, f"{run} {point.mode}", session, first=direct) as call:
            unknown = judge(world.servers, point, run, call.ended())
    finally:
        world.strikers.remove(striker)
    assert striker.struck == list(point.blows), "the blow was to fall"
    print(f"{point}: {unknown} told as unknown, {call.seen.breaks} breaks")
    if point.blows[0].victim == "gateway":  # a container that was killed now and then is held back longer each time
        release.platform("delete", "pod", gateway["metadata"]["name"], "--wait=true", "--timeout=60s")


@dataclass
class Deaths:
    """SIGKILL on the node, where this machine is it."""

    release: Installed
    pod: dict[str, Any]
    gateway: dict[str, Any]

    def aim(self, blow: Blow) -> None:
        """Nothing: the pods are known, and what is struck waits for its answer."""

    def fall(self, blow: Blow) -> None:
        """Raises ProcessLookupError where there is nothing to hit."""
        node = self.release.node
        assert isinstance(node, Node)
        if blow.victim == "gateway":
            blows.kill(blows.first_process(node, self.gateway, "gateway"))
            return
        first = blows.first_process(node, self.pod, "shim" if blow.victim == "shim" else "agent")
        if blow.victim == "pod":
            victims = [first, blows.first_process(node, self.pod, "shim")]
        else:
            victims = [first] if blow.victim == "shim" else blows.children(first)
        for pid in victims:
            blows.kill(pid)


def warmed(direct: openai.OpenAI, session: str) -> None:
    """A turn of the session before, so that its pod is known: it has effects of its own, which nobody waits for."""
    named = {"agent_session_id": session}
    done = direct.responses.create(model=AGENT, input=f"{uuid.uuid4().hex[:12]} same", timeout=120, extra_body=named)
    assert done.status == "completed", done


def warm(release: Installed) -> int:
    return int((release.agent(AGENT).get("status") or {}).get("sessions", {}).get("warm", 0))


def pod_of(release: Installed, session: str) -> dict[str, Any]:
    """The pod in which a session runs."""
    name = poll("the session has a sandbox", lambda: release.sandbox(AGENT, session), within=60)
    return dict(json.loads(release.kubectl("get", "pod", name, "-o", "json")))
