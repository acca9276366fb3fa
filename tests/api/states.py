"""Three HostedAgents, and what kubectl shows of them, against golden files: one that serves, one whose image is not there, one that is
refused. On an API server without a node (`test_kubectl.py`) and on a cluster with the chart (`cluster/test_installed.py`).

The golden files say what the first one says; a cluster's own words are put into its words before they are compared (`Place.told`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import shown

GOLDEN = Path(__file__).with_name("golden")
POOL = {"min": 2, "max": 3}
COMES_TO = {"serves": ("True", POOL["min"]), "no-image": ("False", 0), "refused": ("False", 0)}
"""Agent → its condition Ready, and its sandboxes that wait."""
NAMESPACE, IMAGE, MISSING = "shown", "registry.example/agent:1", "registry.example/broken:1"
"""As they stand in the golden files."""

Kubectl = Callable[..., str]
"""kubectl in the agents' namespace: words, and `given` for its stdin; what it printed."""


@dataclass(frozen=True)
class Place:
    """Where the agents are: their namespace, an image that runs there, and the name of one that nobody has."""

    namespace: str = NAMESPACE
    image: str = IMAGE
    missing: str = MISSING

    @property
    def told(self) -> shown.Words:
        """What is said here → what the golden files say. What a kubelet cannot pull it names at each try in other words, and
        its first container's."""
        failing = rf"container \w+: (ErrImagePull|ImagePullBackOff): .*{re.escape(self.missing)}.*"
        said = f"container agent: ErrImagePull: failed to pull image {MISSING}: not found"
        places = {self.namespace: NAMESPACE, self.image: IMAGE, self.missing: MISSING}
        return {failing: said, **{re.escape(here): there for here, there in places.items()}}

    def manifests(self) -> Iterator[str]:
        """One a state, as JSON."""
        specs: dict[str, dict[str, Any]] = {
            "serves": {"image": self.image, "pool": POOL},
            "no-image": {"image": self.missing, "pool": POOL},
            "refused": {"image": self.image, "egress": ["https://api.example/v1"]},
        }
        for name, spec in specs.items():
            head = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": name}}
            yield json.dumps({**head, "spec": spec})


def state(body: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """How far an agent's object says it is, as in `COMES_TO`."""
    status = body.get("status") or {}
    found = {one["type"]: one["status"] for one in status.get("conditions", ())}
    return found.get("Ready"), (status.get("sessions") or {}).get("warm")


def seen(kubectl: Kubectl, place: Place) -> dict[str, str]:
    """Golden file → what kubectl shows in its place."""
    names = sorted(COMES_TO)
    made = {
        "get.txt": shown.table(kubectl("get", "hostedagents", *names), place.told),
        "get-wide.txt": shown.table(kubectl("get", "hostedagents", *names, "--output", "wide"), place.told),
    }
    for name in names:
        made[f"describe-{name}.txt"] = shown.described(kubectl("describe", "hostedagent", name), place.told)
    return made


def compare(made: Mapping[str, str]) -> None:
    """Raises AssertionError with the file that differs."""
    assert {*made} == {file.name for file in GOLDEN.iterdir()}
    for file, text in made.items():
        assert text == (GOLDEN / file).read_text(encoding="utf-8"), file
