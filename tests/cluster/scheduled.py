"""Routines of a release: what the journeys of routines ask of a laptop, answered by kubectl and the gateways. Layer: cluster tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openai import OpenAI

from cluster.installed import Installed
from fakes.commands import Commands
from fakes.platform import Platform, poll
from journey.test_routines import Laptop
from moorage_operator import marks

NOBODY: Any = None


class Reached(Platform):
    """The release's gateways, as the calls of a platform; nothing of it runs here."""

    local = False

    def __init__(self, release: Installed) -> None:
        url = str(release.client.base_url).removesuffix("/v1/").removesuffix("/v1")
        super().__init__(NOBODY, url, release.key, [], Path("/nowhere"), NOBODY)
        self._release = release
        self.log = SimpleNamespace(read_text=self._said)  # type: ignore[assignment]

    def _said(self) -> str:
        words = ("logs", "-l", "app.kubernetes.io/component in (gateway,operator)", "--tail=-1", "--prefix")
        return self._release.platform(*words)

    def client(self, agent: str, *, url: str | None = None, api_key: str | None = None, **options: Any) -> OpenAI:
        """The stock client at an agent's URL."""
        return super().client(agent, url=url, api_key=api_key, **({"timeout": 90} | options))


@dataclass
class Scheduled(Laptop):
    """Routines written by `kubectl apply`."""

    release: Installed
    home: Path

    def __post_init__(self) -> None:
        platform = Reached(self.release)
        super().__init__(platform, self.home, Commands(platform.url, platform.api_key, self.home))

    def keep(self, document: dict[str, Any]) -> None:
        self.release.kubectl("apply", "-f", "-", given=json.dumps(document))

    def write(self, name: str, **spec: Any) -> None:
        """As on a laptop; then its alerts can be told, which takes the kubelet up to two minutes."""
        super().write(name, **spec)
        for alert in spec.get("alerts", ()):
            self._until_mounted(f"_routines_{name}_{alert['name']}_url")

    def _until_mounted(self, ending: str) -> None:
        def there() -> bool:
            found = self.release.platform(
                "exec", "deploy/moorage-gateway", "--", "find", "/etc/moorage", "-name", f"*{ending}"
            )
            return ending in found

        poll(f"the gateways have {ending}", there, within=180, every=2)

    def remove(self, name: str) -> None:
        self.release.kubectl("delete", "routine", name, "--wait=false")

    def object(self, name: str) -> dict[str, Any]:
        """As the cluster holds it."""
        return dict(json.loads(self.release.kubectl("get", "routine", name, "-o", "json")))

    def pod(self, agent: str, name: str) -> str:
        """The pod of a routine's session."""

        def held(claim: dict[str, Any]) -> bool:
            whose = marks.identity(claim)
            return whose is not None and whose.session == f"routine-{name}"

        def found() -> str:
            mine = {one["metadata"]["name"] for one in self.release.claims(agent) if held(one)}
            for one in self.release.pods(agent):
                named = {each.get("persistentVolumeClaim", {}).get("claimName") for each in one["spec"]["volumes"]}
                if mine & named and "deletionTimestamp" not in one["metadata"]:
                    return str(one["metadata"]["name"])
            return ""

        return str(poll("its pod is there", found, within=60))

    def condition(self, name: str) -> dict[str, Any]:
        """Ready, {} before there is one."""
        held = (self.object(name).get("status") or {}).get("conditions", [])
        return next((dict(one) for one in held if one["type"] == "Ready"), {})

    def until_said(self, name: str, text: str, within: float = 60) -> None:
        """Waits until its condition says so."""
        poll(f"{name} says {text!r}", lambda: text in str(self.condition(name).get("message")), within=within)
