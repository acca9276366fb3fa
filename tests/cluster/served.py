"""What tests ask of any platform on the node: agents applied, called, looked at. How it was put there is its own matter."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any

from openai import OpenAI

from cluster.node.control import Given
from cluster.node.node import Node
from fakes.platform import poll
from moorage_operator import marks, pods


class Served(ABC):
    """`namespace`: of the agents; `image`: what they run unless they say otherwise."""

    node: Node | Given
    namespace: str
    image: str

    @property
    @abstractmethod
    def client(self) -> OpenAI:
        """The stock client with a key that may do everything."""

    @abstractmethod
    def logs(self) -> str:
        """What the operators said last."""

    def ask(self, agent: str, text: str, session: str, timeout: float = 90, *, previous: str | None = None) -> Any:
        """One call in one piece. `previous`: the response that it goes on from."""
        goes_on = {} if previous is None else {"previous_response_id": previous}
        return self.client.responses.create(
            model=agent, input=text, extra_headers={"x-agent-session-id": session}, timeout=timeout, **goes_on
        )

    def kubectl(self, *words: str, given: str | None = None) -> str:
        """kubectl in the agents' namespace."""
        return self.node.kubectl("-n", self.namespace, *words, **({} if given is None else {"given": given}))

    def apply(self, agent: str, **spec: Any) -> None:
        """A HostedAgent, of the test image unless it has a source."""
        program = {} if "source" in spec else {"image": self.image}
        body = {
            "apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": agent},
            "spec": {"pool": {"min": 1, "max": 2}, "workspace": {"size": "32Mi"}, **program, **spec},
        }  # fmt: skip
        self.kubectl("apply", "-f", "-", given=json.dumps(body))

    def agent(self, agent: str) -> dict[str, Any]:
        """Its object."""
        return dict(json.loads(self.kubectl("get", "hostedagent", agent, "-o", "json")))

    def condition(self, agent: str, kind: str = "Ready") -> dict[str, Any]:
        """One condition, {} before there is one."""
        held = (self.agent(agent).get("status") or {}).get("conditions", [])
        return next((dict(one) for one in held if one["type"] == kind), {})

    def until_ready(self, agent: str, within: float = 90) -> None:
        """Waits for the condition Ready of the newest spec."""

        def ready() -> bool:
            body = self.agent(agent)
            fresh = (body.get("status") or {}).get("observedGeneration") == body["metadata"]["generation"]
            return fresh and self.condition(agent).get("status") == "True"

        try:
            poll(f"{agent} is Ready", ready, within=within)
        except AssertionError as fault:
            raise AssertionError(f"{fault}\n{self.agent(agent).get('status')}\n{self.logs()}") from fault

    def pods(self, agent: str) -> list[dict[str, Any]]:
        """Its pods, those that leave too."""
        return list(json.loads(self.kubectl("get", "pods", "-l", f"{marks.AGENT}={agent}", "-o", "json"))["items"])

    def claims(self, agent: str) -> list[dict[str, Any]]:
        """Its workspaces."""
        return list(json.loads(self.kubectl("get", "pvc", "-l", f"{marks.AGENT}={agent}", "-o", "json"))["items"])

    def ready_pods(self, agent: str) -> list[str]:
        """Names of those that are ready."""
        return sorted(one["metadata"]["name"] for one in self.pods(agent) if pods.seen(one).state == "ready")

    def until_ready_pods(self, agent: str, count: int) -> list[str]:
        """They, once they are as many. An agent is Ready before: a gateway hears from a shim sooner than the kubelet."""

        def all_there() -> list[str]:
            found = self.ready_pods(agent)
            return found if len(found) == count else []

        found: list[str] = poll(f"{count} pods of {agent} are ready", all_there, within=60)
        return found

    def sandbox(self, agent: str, session: str) -> str:
        """The sandbox of a session, as an operator's key shows it; "" without one."""
        found = self.client.get(f"/sessions?agent={agent}", cast_to=dict[str, Any])["data"]
        return next(((one.get("sandbox") or {}).get("id") or "" for one in found if one["id"] == session), "")
