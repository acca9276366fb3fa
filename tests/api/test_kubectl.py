"""What kubectl shows of HostedAgents that an operator looks after: one that serves, one whose image is not there, one that is refused.

MOORAGE_GOLDEN=write writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from api import shown, states
from api.world import IMAGE, Means, World, until, world_of
from cluster.node.control import ControlPlane
from fakes.stand_in import BROKEN

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

HERE = states.Place()


async def until_told(world: World, agent: str) -> None:
    """Waits until its status says what it comes to."""

    async def told() -> bool:
        return states.state(await world.agent(agent) or {}) == states.COMES_TO[agent]

    await until(f"{agent} comes to {states.COMES_TO[agent]}", told)


async def test_kubectl_shows_an_agents_state_and_what_is_wrong_with_it_as_it_is_written_down(
    plane: ControlPlane, means: Means
) -> None:
    assert (HERE.image, HERE.missing) == (IMAGE, BROKEN), "what the stand-in knows"
    async with world_of(means, HERE.namespace, 7) as world:
        world.start()

        def kubectl(*words: str, given: str | None = None) -> str:
            return plane.kubectl(*words, "--namespace", HERE.namespace, given=given)

        for manifest in HERE.manifests():
            await asyncio.to_thread(kubectl, "apply", "-f", "-", given=manifest)
        for name in states.COMES_TO:
            await until_told(world, name)
        made = await asyncio.to_thread(states.seen, kubectl, HERE)
    if os.environ.get("MOORAGE_GOLDEN") == "write":
        for file, text in made.items():
            (states.GOLDEN / file).write_text(text, encoding="utf-8")
    states.compare(made)


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff"])
def test_what_a_cluster_says_in_its_own_words_is_compared_in_those_of_the_golden_files(reason: str) -> None:
    place = states.Place("team", "localhost/agent:test", "localhost/nowhere:1")
    pulled = 'Back-off pulling image "localhost/nowhere:1": dial tcp 127.0.0.1:443: connect: connection refused'
    printed = f"Namespace: team\nSpec:\n  Image:  localhost/agent:test\nMessage:  container agent: {reason}: {pulled}\n"
    golden = f"container agent: ErrImagePull: failed to pull image {states.MISSING}: not found"
    assert shown.described(printed, place.told).splitlines() == [
        f"Namespace: {states.NAMESPACE}", "Spec:", f"  Image: {states.IMAGE}", f"Message: {golden}",
    ]  # fmt: skip
    wide = f"NAME   AGE   REASON\na      5s    container agent: {reason}: {pulled}\n"
    assert shown.table(wide, place.told).splitlines()[1] == f"a      <age>   {golden}"
    elsewhere = "Message:  container agent: ErrImagePull: of another image\n"
    assert shown.described(elsewhere, place.told) == shown.described(elsewhere)


@pytest.mark.parametrize(
    "named", ["Self Link:         /apis/a", "Managed Fields:\n    API Version:  v1\n    f:spec:\n      .:"]
)
def test_what_an_older_kubectl_shows_besides_is_left_out(named: str) -> None:
    tail = (
        "  Resource Version:  7\n  UID:               640e2a51-20d6-4efc-b53d-4dd709008245\nSpec:\n  Egress:\n    a:1\n"
    )
    newer, older = f"Metadata:\n{tail}", f"Metadata:\n  {named}\n{tail}"
    assert shown.described(older) == shown.described(newer)
    assert shown.described(newer).splitlines() == [
        "Metadata:", "  Resource Version: <version>", "  UID: <uid>", "Spec:", "  Egress:", "    a:1",
    ]  # fmt: skip


def test_a_value_of_another_shape_is_shown_as_it_is() -> None:
    assert shown.table("NAME   REVISION   AGE\na      r-1        <unknown>\n").split() == [
        "NAME", "REVISION", "AGE", "a", "r-1", "<unknown>",
    ]  # fmt: skip
    assert shown.described("Resource Version:  none\n") == "Resource Version: none\n"
