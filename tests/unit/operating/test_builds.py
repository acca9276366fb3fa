"""Builds as Jobs: what is made, what is believed of their ends, what is swept. The cluster is played; it keeps what it is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from moorage_api import built, tokens
from moorage_api.built import Built, Failed
from moorage_api.kinds import parse
from moorage_api.kinds.quantities import octets
from moorage_operator import build_objects, kube, marks
from moorage_operator.build_objects import Ask
from moorage_operator.builds import Builds, Standing, Waiting
from moorage_operator.kube import KubeError
from moorage_operator.observed import Observed
from moorage_operator.settings import Settings, load
from unit.operating.test_objects import GIVEN, OWNER

pytestmark = pytest.mark.unit

COMMIT = "c" * 40
BUILT = Built("d" * 64, "host.py", "moorage", COMMIT)


def ask(ref: str = "main", placed: dict[str, str] | None = None, **source: Any) -> Ask:
    given = source or {"git": {"url": "https://git.example/a.git", "ref": ref}}
    document = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "a"},
        "spec": {"source": given, "nodeSelector": placed or {}},
    }  # fmt: skip
    return Ask("agents", "t", "a", parse(document).spec, OWNER)


def kept(body: Any) -> Any:
    """As an API server keeps it: without empty lists and mappings."""
    if isinstance(body, dict):
        return {name: kept(part) for name, part in body.items() if part not in ([], {})}
    return [kept(part) for part in body] if isinstance(body, list) else body


class Cluster:
    """`refuses`: the next creation. `pods`: those of builds."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.applied: list[str] = []
        self.writes = 0
        self.refuses: KubeError | None = None

    async def apply(self, kind: Any, body: dict[str, Any], *, manager: str) -> dict[str, Any]:
        self.applied.append(body["metadata"]["name"])
        found: dict[str, Any] = kept(body)
        return found

    async def create(self, kind: Any, body: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        if self.refuses is not None:
            raise self.refuses
        body = kept(body)
        body["metadata"] |= {"uid": f"uid-{self.writes}", "resourceVersion": str(self.writes)}
        self.jobs[body["metadata"]["name"]] = body
        return body

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        return self.jobs.get(name)

    async def merge(self, kind: Any, namespace: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        self.writes += 1
        held = self.jobs[name]
        held["metadata"]["annotations"] |= body["metadata"]["annotations"]
        return held

    async def delete(self, kind: Any, namespace: str, name: str, *, uid: str) -> None:
        self.writes += 1
        assert self.jobs.pop(name)["metadata"]["uid"] == uid

    async def each(self, kind: Any, namespace: str, *, labels: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        assert kind is kube.PODS
        for pod in self.pods:
            yield pod


class World:
    def __init__(self, **more: str) -> None:
        self.settings: Settings = load(GIVEN | more)
        self.cluster, self.observed, self.now = Cluster(), Observed(), 100.0
        self.builds = self.another()

    def another(self) -> Builds:
        """An operator that starts."""
        return Builds(self.cluster, self.observed, self.settings, now=lambda: self.now)  # type: ignore[arg-type]

    async def standing(self, asked: Ask | None = None) -> Standing:
        return await self.builds.standing(asked or ask())

    def end(self, kind: str, said: str = "", **more: Any) -> None:
        """The newest job ends, its pod with these last words."""
        job = list(self.cluster.jobs.values())[-1]
        job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "because"}]}
        self.observed.jobs.put(job)
        state = {"terminated": {"exitCode": 3, "message": said}}
        status = {"phase": "Failed", "containerStatuses": [{"name": "build", "state": state}]}
        self.cluster.pods = [{"metadata": {"name": "p", "creationTimestamp": "1"}, "status": status, **more}]


async def test_account_and_policy_stand_before_one_job_that_is_made_once() -> None:
    world = World()
    assert isinstance(await world.standing(), Waiting)
    assert world.cluster.applied == ["moorage-a", "moorage-a.build"] and len(world.cluster.jobs) == 1
    writes = world.cluster.writes
    assert isinstance(await world.standing(), Waiting)
    assert (world.cluster.writes, len(world.cluster.applied)) == (writes, 2), "what is as it must be is not written"


async def test_an_outcome_is_noted_and_outlives_its_pod_and_the_operator() -> None:
    world = World()
    await world.standing()
    world.end("Complete", built.told(BUILT))
    assert await world.standing() == BUILT
    world.cluster.pods, writes = [], world.cluster.writes
    world.builds = world.another()
    assert await world.standing() == BUILT and world.cluster.writes == writes


async def test_a_complete_build_whose_pod_is_gone_is_made_again_but_not_for_ever() -> None:
    world = World()
    await world.standing()
    for _ in range(2):
        world.end("Complete")
        world.cluster.pods = []
        assert isinstance(await world.standing(), Waiting) and not world.cluster.jobs
        assert isinstance(await world.standing(), Waiting) and len(world.cluster.jobs) == 1
        world.builds = world.another()
    world.end("Complete")
    world.cluster.pods = []
    found = await world.standing()
    assert isinstance(found, Failed) and "gone each time" in found.message and "kubectl delete job" in found.message
    assert await world.standing() == found and len(world.cluster.jobs) == 1


@pytest.mark.parametrize(
    "said", ["", "{}", '{"digest": "../x", "entry": "host.py", "contract": "moorage", "commit": ""}', "[" * 5000]
)
async def test_a_complete_build_that_babbles_has_failed(said: str) -> None:
    world = World()
    await world.standing()
    world.end("Complete", said)
    found = await world.standing()
    assert isinstance(found, Failed) and "nothing that a build says" in found.message
    writes = world.cluster.writes
    assert await world.standing() == found and world.cluster.writes == writes


async def test_a_failure_says_why_and_how_to_try_again_and_is_not_tried_by_itself() -> None:
    world = World()
    await world.standing()
    world.end("Failed", built.told(Failed("SourceRefused", "no branch main\nlast line")))
    for _ in range(3):
        found = await world.standing()
        assert isinstance(found, Failed) and found.reason == "SourceRefused"
        assert "no branch main\nlast line" in found.message and "kubectl delete job moorage-build-" in found.message
    assert len(world.cluster.jobs) == 1


async def test_a_build_that_ended_without_a_word_says_what_the_cluster_says() -> None:
    world = World()
    await world.standing()
    world.end("Failed", "no json")
    found = await world.standing()
    assert isinstance(found, Failed) and found.reason == "EnvironmentFailed" and "because" in found.message


async def test_what_its_pod_waits_for_is_told_and_kept_for_the_end() -> None:
    world = World()
    await world.standing()
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    pod = {"metadata": {"name": "p", "creationTimestamp": "1"}}
    world.cluster.pods = [{**pod, "status": {"containerStatuses": [{"name": "build", "state": waiting}]}}]
    world.now += 10
    found = await world.standing()
    assert isinstance(found, Waiting) and "no such image" in found.message
    world.end("Failed")
    world.cluster.pods = []
    ended = await world.standing()
    assert isinstance(ended, Failed) and "no such image" in ended.message


async def test_another_source_sweeps_the_former_build_and_the_same_ref_stays_where_it_was() -> None:
    world = World()
    await world.standing()
    world.end("Complete", built.told(BUILT))
    await world.standing()
    world.settings = load(GIVEN | {"MOORAGE_SANDBOX_IMAGE": "reg.example/sandbox:2"})
    world.builds = world.another()
    await world.standing()
    await world.standing()
    _, job = world.cluster.jobs.values()
    assert told(job)["commit"] == COMMIT, "a new image does not move a branch"
    world.end("Complete", built.told(BUILT))
    await world.standing()
    (job,) = world.cluster.jobs.values()
    assert told(job)["commit"] == COMMIT, "once it is built, the former one is of no more use"
    await world.standing(ask("other"))
    world.end("Complete", built.told(BUILT))
    await world.standing(ask("other"))
    (job,) = world.cluster.jobs.values()
    assert told(job)["commit"] == "" and told(job)["source"]["git"]["ref"] == "other"


async def test_the_commit_is_remembered_over_images_whose_builds_never_end() -> None:
    world = World()
    await world.standing()
    world.end("Complete", built.told(BUILT))
    await world.standing()
    for number in (2, 3, 4):
        world.settings = load(GIVEN | {"MOORAGE_SANDBOX_IMAGE": f"reg.example/sandbox:{number}"})
        world.builds = world.another()
        await world.standing()
        await world.standing()
        first, last = world.cluster.jobs.values()
        assert told(first)["commit"] == "" and told(last)["commit"] == COMMIT, "the built one, and the newest"


async def test_a_build_that_waits_for_a_wrong_place_is_made_again_when_the_manifest_is_mended() -> None:
    world = World()
    await world.standing(ask(placed={"disk": "none"}))
    (wrong,) = world.cluster.jobs.values()
    await world.standing()
    await world.standing()
    (right,) = world.cluster.jobs.values()
    assert (
        wrong["metadata"]["name"] == right["metadata"]["name"] and wrong["metadata"]["uid"] != right["metadata"]["uid"]
    )
    assert (
        "nodeSelector" in wrong["spec"]["template"]["spec"] and "nodeSelector" not in right["spec"]["template"]["spec"]
    )
    world.end("Complete", built.told(BUILT))
    await world.standing()
    assert await world.standing(ask(placed={"disk": "ssd"})) == BUILT, "one that ended is not built for another place"


async def test_what_the_cluster_refuses_is_waited_for() -> None:
    world = World()
    world.cluster.refuses = KubeError(403, "Forbidden", "exceeded quota")
    found = await world.standing()
    assert isinstance(found, Waiting) and "exceeded quota" in found.message
    world.cluster.refuses = None
    await world.standing()
    assert len(world.cluster.jobs) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"path": "."}, "moorage up"),
        ({"git": {"url": "ssh://git@git.example/a.git"}}, "https://"),
        ({"git": {"url": "file:///etc"}}, "https://"),
        ({"git": {"url": "https://10.0.0.7/a.git"}}, "name the host"),
        ({"git": {"url": "https://0x0a000007:8443/a.git"}}, "name the host"),
    ],
)
async def test_a_source_that_no_build_can_have_is_refused_in_a_sentence(source: dict[str, Any], said: str) -> None:
    world = World()
    found = await world.standing(ask(**source))
    assert isinstance(found, Failed) and said in found.message and not world.cluster.jobs


async def test_without_a_proxy_nothing_is_built() -> None:
    world = World(MOORAGE_EGRESS_URL="")
    found = await world.standing()
    assert isinstance(found, Failed) and "MOORAGE_EGRESS_URL" in found.message


def told(job: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(job["spec"]["template"]["metadata"]["annotations"][marks.CONFIG]))


def test_a_builds_pod_is_closed_bounded_and_no_sandbox() -> None:
    settings = load(GIVEN)
    job = build_objects.job(ask(), "", settings)
    pod = job["spec"]["template"]
    assert pod["metadata"]["labels"] == {marks.BUILD: "a"}, "nothing that looks for sandboxes finds it"
    (one,) = pod["spec"]["containers"]
    held = one["securityContext"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"] and not pod["spec"]["automountServiceAccountToken"]
    assert not held["allowPrivilegeEscalation"] and held["readOnlyRootFilesystem"] and one["resources"]["limits"]
    within, start, tries = told(job)["within"], build_objects.START_SECONDS, job["spec"]["backoffLimit"] + 1
    assert within == settings.build_seconds == 900, "a build has all of its time, however late its pod starts"
    assert pod["spec"]["activeDeadlineSeconds"] > within + start
    assert job["spec"]["activeDeadlineSeconds"] >= tries * pod["spec"]["activeDeadlineSeconds"]
    assert job["metadata"]["ownerReferences"] == [OWNER] and len(job["metadata"]["name"]) <= 57
    sources = next(v for v in pod["spec"]["volumes"] if v["name"] == "told")["projected"]["sources"]
    assert sources[1]["serviceAccountToken"]["audience"] == "moorage"
    assert settings.token_key.get_secret_value() not in json.dumps(job)


def test_a_builds_pod_asks_for_the_disk_that_it_may_fill_unless_no_pod_may() -> None:
    def resources(**more: str) -> dict[str, Any]:
        job = build_objects.job(ask(), "", load(GIVEN | more))
        found: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]["resources"]
        return found

    asked = resources()
    assert asked["requests"]["ephemeral-storage"]
    assert octets(asked["limits"]["ephemeral-storage"]) > octets(build_objects.WORK)
    assert "ephemeral-storage" not in json.dumps(resources(MOORAGE_EPHEMERAL_STORAGE="false"))


def test_a_builds_token_says_all_that_it_may_and_is_no_sandboxs() -> None:
    key = GIVEN["MOORAGE_TOKEN_KEY"]
    token = told(build_objects.job(ask(), "", load(GIVEN)))["token"]
    who = tokens.verify_build(token, key)
    assert who is not None and tokens.verify(token, key) is None
    assert (who.tenant, who.agent, who.account, who.source) == ("t", "a", "moorage-a", "")
    assert who.reach == ("git.example:443", "package-index")
    bundle = told(build_objects.job(ask(bundle="e" * 64), "", load(GIVEN)))["token"]
    found = tokens.verify_build(bundle, key)
    assert found is not None and (found.source, found.reach) == ("e" * 64, ("package-index",))
    assert tokens.verify_build(tokens.sign(tokens.Identity("sb-1", "t", "a", "r", "v"), key), key) is None


def test_the_policy_of_builds_lets_only_the_gateways_ports_through() -> None:
    made = build_objects.policy(ask(), load(GIVEN))
    assert made["metadata"]["name"] == "moorage-a.build", "no agent's own: names of agents have no dot"
    spec = made["spec"]
    assert spec["ingress"] == [] and spec["podSelector"]["matchLabels"] == {marks.BUILD: "a"}
    assert [port["port"] for port in spec["egress"][0]["ports"]] == [8081, 8082] and len(spec["egress"]) == 1
