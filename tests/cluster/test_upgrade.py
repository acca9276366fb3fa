"""`helm upgrade` from the chart as it was halfway (`halfway/`) to today's, under live sessions and callers that never stop.

Between the two lie: the readiness of gateways, the resource's `spec.tolerations` (taken out of the older CRD: in truth the resource never
changed), and every image but Valkey's: once today's under another tag, and once those of an older commit, whose agent's image stays
(`older.py`; skipped, with the reason, where this clone has not that commit).
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from chart import helm
from cluster import older
from cluster.calls import calling, numbers
from cluster.installed import Installed, installed, over_s3, small
from cluster.node import plan
from cluster.node.node import Node
from fakes import then
from fakes.platform import poll
from fakes.s3 import S3Server
from moorage_api.resources import HOSTED_AGENT
from tree import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]  # four images more are built the first time

HALFWAY = Path(__file__).with_name("halfway")
RETAGGED = ("gateway", "operator", "sandbox")
AGENT = "counter"
PACE_SECONDS = 0.2
TOLERATION = {"key": "spot", "operator": "Exists", "effect": "NoSchedule"}


@dataclass
class Callers:
    """Who calls all along, a call in one piece and a streamed one in turn. `failed`: what they got instead of an answer."""

    world: Installed
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self, mine: str, *, keeps: bool) -> None:
        """Until `end`: most calls in one session, now and then one in a new one.

        `keeps`: over kept connections, with the stock client's own retries; else each call over a new one, and without a retry.
        """
        with self.world.client.with_options(max_retries=2) as kept:
            turn = 0
            while not self._over.wait(PACE_SECONDS):
                turn += 1
                session = mine if turn % 8 else f"{mine}-{turn}"
                try:
                    if keeps:
                        self._call(kept, session, streamed=bool(turn % 2))
                    else:
                        with self.world.client as fresh:
                            self._call(fresh, session, streamed=bool(turn % 2))
                    self.answered += 1
                except Exception as fault:  # whatever a caller got counts
                    self.failed.append(f"{session}: {type(fault).__name__}: {fault}")
                if session != mine:
                    self.world.client.delete(f"/agents/{AGENT}/sessions/{session}", cast_to=object)

    def end(self) -> None:
        """After the calls that run."""
        self._over.set()

    def _call(self, client: OpenAI, session: str, *, streamed: bool) -> None:
        asked: dict[str, Any] = {
            "model": AGENT, "input": "slow 5", "timeout": 60, "extra_body": {"agent_session_id": session},
        }  # fmt: skip
        if not streamed:
            assert client.responses.create(**asked).output_text == numbers(5)
            return
        events = list(client.responses.create(stream=True, **asked))
        assert events[-1].type == "response.completed", events[-1].type
        assert "".join(one.delta for one in events if one.type == "response.output_text.delta") == numbers(5)


@pytest.fixture(scope="module", params=["retagged", "of then"])
def before(request: pytest.FixtureRequest, node: Node, parts: dict[str, str], agent_image: str) -> dict[str, str]:
    """The images of the older release; part → image, with the agent's."""
    if request.param == "of then":
        try:
            return parts | older.built(node)
        except then.Unknown as why:
            pytest.skip(str(why))
    found = parts | {older.AGENT: agent_image}
    for part in RETAGGED:
        found[part] = parts[part].replace(":test", ":halfway")
        done = node.ctr("images", "tag", "--force", parts[part], found[part])
        assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(scope="module")
def world(node: Node, before: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The older release, its CRD too."""
    server, name = S3Server(plan.HOST), f"{HOSTED_AGENT.plural}.moorage.dev"
    node.kubectl("delete", "crd", name, "--ignore-not-found", "--wait=true", "--timeout=60s")
    try:
        values, high = small(before) | over_s3(node, server), [helm.CHART / "values-ha.yaml"]
        folder = tmp_path_factory.mktemp("upgrade")
        with installed(node, before[older.AGENT], folder, values, files=high, chart=HALFWAY) as made:
            poll("two gateways", lambda: len(made.parts("gateway")) == 2, within=60)
            made.until_whole()
            made.apply(AGENT, pool={"min": 1, "max": 12}, session={"idleTimeout": "60s"})
            made.until_ready(AGENT)
            yield made
    finally:
        server.stop()
        node.kubectl("delete", "crd", name, "--ignore-not-found", "--wait=true", "--timeout=60s")


@contextlib.contextmanager
def callers(world: Installed, count: int) -> Iterator[Callers]:
    found = Callers(world)
    with ThreadPoolExecutor(count) as pool:
        names = [f"caller-{number}-{uuid.uuid4().hex}" for number in range(count)]
        running = [pool.submit(found.run, name, keeps=bool(number % 2)) for number, name in enumerate(names)]
        try:
            yield found
        finally:
            found.end()
    for one in running:
        one.result()


def test_an_upgrade_fails_no_request_and_loses_no_session(
    world: Installed, before: dict[str, str], parts: dict[str, str]
) -> None:
    assert {one["spec"]["containers"][0]["image"] for one in world.parts("gateway")} == {before["gateway"]}
    kept = [f"kept-{uuid.uuid4().hex}" for _ in range(3)]
    for session in kept:
        assert world.ask(AGENT, "before", session).output_text == "before "
    with pytest.raises(RuntimeError, match="tolerations"):
        tolerant(world)
    with callers(world, 2) as found, calling(world, AGENT, "slow 1200", f"live-{uuid.uuid4().hex}") as live:
        live.until(10)
        poll("callers are answered", lambda: found.answered > 5, within=60)
        upgrade(world, parts)
        assert live.runs, "it was to live through the upgrade"
        for session in kept:
            assert world.ask(AGENT, "after", session).output_text == "before after "
        # The resource's new field, and with it another template of pods, under the same callers.
        tolerant(world)
        world.until_ready(AGENT)
        answered = found.answered
        poll("callers are answered", lambda: found.answered > answered + 5, within=60)
        assert len(live.whole(numbers(1200))) == 1, "no attempt was lost"
    assert not found.failed, found.failed
    fresh = f"fresh-{uuid.uuid4().hex}"
    assert world.ask(AGENT, "new", fresh).output_text == "new "
    pod = json.loads(world.kubectl("get", "pod", world.sandbox(AGENT, fresh), "-o", "json"))
    assert TOLERATION.items() <= pod["spec"]["tolerations"][0].items()
    assert parts["sandbox"] in {one["image"] for one in pod["spec"]["containers"]}
    for session in kept:
        assert world.ask(AGENT, "last", session).output_text == "before after last "


def tolerant(world: Installed) -> None:
    """The agent with a field that the older resource does not know; strictly, so that it is not dropped in silence."""
    pool, session = {"min": 1, "max": 12}, {"idleTimeout": "60s"}
    world.apply(AGENT, pool=pool, session=session, tolerations=[TOLERATION])


def upgrade(world: Installed, parts: dict[str, str]) -> None:
    """As docs/install.md says it: CRDs first, then the release."""
    world.node.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "charts" / "moorage" / "crds"))
    own = world.values[-1]
    values = json.loads(own.read_text())
    for part in RETAGGED:
        values[part]["image"] = parts[part]
    own.write_text(json.dumps(values))
    world.put("upgrade", helm.CHART)
    world.until_whole()
    shown = {one["spec"]["containers"][0]["image"] for part in ("gateway", "operator") for one in world.parts(part)}
    assert shown == {parts["gateway"], parts["operator"]}
