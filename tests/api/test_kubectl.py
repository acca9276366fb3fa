"""What kubectl shows of HostedAgents that an operator looks after: one that serves, one whose image is not there, one that is refused.

MOORAGE_GOLDEN=write writes the golden files anew; read the difference before you commit it.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from api import shown
from api.world import IMAGE, Means, World, until, world_of
from cluster.node.control import ControlPlane
from fakes.stand_in import BROKEN

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

GOLDEN = Path(__file__).with_name("golden")
NAMESPACE = "shown"  # it stands in the golden files
POOL = {"min": 2, "max": 3}
SPECS: dict[str, dict[str, Any]] = {
    "serves": {"image": IMAGE, "pool": POOL},
    "no-image": {"image": BROKEN, "pool": POOL},
    "refused": {"image": IMAGE, "egress": ["https://api.example/v1"]},
}
COMES_TO = {"serves": ("True", POOL["min"]), "no-image": ("False", 0), "refused": ("False", 0)}
"""Agent → its condition Ready, and its sandboxes that wait."""


async def until_told(world: World, agent: str) -> None:
    """Waits until its status says what it comes to."""

    async def told() -> bool:
        status = ((await world.agent(agent)) or {}).get("status") or {}
        found = {one["type"]: one["status"] for one in status.get("conditions", ())}
        return (found.get("Ready"), (status.get("sessions") or {}).get("warm")) == COMES_TO[agent]

    await until(f"{agent} comes to {COMES_TO[agent]}", told)


async def test_kubectl_shows_an_agents_state_and_what_is_wrong_with_it_as_it_is_written_down(
    plane: ControlPlane, means: Means
) -> None:
    async with world_of(means, NAMESPACE, 7) as world:
        world.start()

        async def kubectl(*words: str, given: str | None = None) -> str:
            return await asyncio.to_thread(plane.kubectl, *words, "--namespace", NAMESPACE, given=given)

        for name, spec in SPECS.items():
            document = {
                "apiVersion": "moorage.dev/v1alpha1",
                "kind": "HostedAgent",
                "metadata": {"name": name},
                "spec": spec,
            }
            await kubectl("apply", "-f", "-", given=json.dumps(document))
        for name in SPECS:
            await until_told(world, name)
        made = {
            "get.txt": shown.table(await kubectl("get", "hostedagents")),
            "get-wide.txt": shown.table(await kubectl("get", "hostedagents", "--output", "wide")),
        }
        for name in SPECS:
            made[f"describe-{name}.txt"] = shown.described(await kubectl("describe", "hostedagent", name))
    if os.environ.get("MOORAGE_GOLDEN") == "write":
        for file, text in made.items():
            (GOLDEN / file).write_text(text, encoding="utf-8")
    assert {*made} == {file.name for file in GOLDEN.iterdir()}
    for file, text in made.items():
        assert text == (GOLDEN / file).read_text(encoding="utf-8"), file


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
