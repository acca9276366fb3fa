"""HostedAgents and what runs of them under an older definition, and under today's again.

The older one is the chart's of halfway (`cluster/halfway`): it does not know `spec.tolerations`. Limit: the operator is today's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.picture import look, orphans
from api.world import Means, World, until, world_of
from cluster.node.control import ControlPlane
from moorage_api.resources import HOSTED_AGENT
from moorage_operator.kube import Kind

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
NEWER = ROOT / HOSTED_AGENT.file
OLDER = ROOT / "tests" / "cluster" / "halfway" / "crds" / NEWER.name
DEFINITIONS = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions")
TOLERATIONS = [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]


@pytest.fixture
def definitions(plane: ControlPlane) -> Iterator[ControlPlane]:
    """Today's is back at the end, whatever was applied meanwhile."""
    yield plane
    define(plane, NEWER)


def define(plane: ControlPlane, definition: Path) -> None:
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definition))


async def known(world: World) -> bool:
    """Whether the API server's definition has the newer field."""
    body: Any = await world.kube.get(DEFINITIONS, None, f"{HOSTED_AGENT.plural}.moorage.dev")
    return "tolerations" in str(body["spec"]["versions"][0]["schema"])


async def spec(world: World, agent: str) -> dict[str, Any]:
    body: Any = await world.agent(agent)
    return dict(body["spec"])


async def through(world: World, plane: ControlPlane) -> None:
    """A downgrade and an upgrade under a session that works."""
    await world.apply("hello")
    await world.apply("tolerant", tolerations=TOLERATIONS)
    for agent in ("hello", "tolerant"):
        await world.until_ready(agent, warm=2)
    key = await world.open("first", "hello")
    await world.claim(key, "hello")
    await world.until_ready("hello", warm=2, idle=1)
    wrote = await spec(world, "hello")
    pods = {one["metadata"]["uid"] for one in (await look(world)).pods}
    for definition in (OLDER, NEWER):
        define(plane, definition)
        assert await known(world) is (definition is NEWER)
        # A spec is written, taken in and answered for, under either.
        name = f"made-under-{'newer' if definition is NEWER else 'older'}"
        await world.apply(name, pool={"min": 1, "max": 1})
        await world.until_ready(name, warm=1)
        assert await spec(world, "hello") == wrote
    assert (await spec(world, "tolerant"))["tolerations"] == TOLERATIONS, "what nobody wrote meanwhile is still there"
    assert pods <= {one["metadata"]["uid"] for one in (await look(world)).pods}, "nothing was made anew"
    await world.hibernate(key)
    await world.until_ready("hello", warm=2, hibernated=1)
    await world.claim(key, "hello")

    async def tidy() -> bool:
        return orphans(await look(world)) == []

    await until("nothing is nobody's", tidy)


async def test_agents_and_their_sessions_go_through_a_downgrade_and_an_upgrade_of_the_definition(
    definitions: ControlPlane, means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"definition-{next(numbers)}", 8) as world:
        world.start()
        try:
            await through(world, definitions)
        except BaseException:
            print(world.logs())
            raise
