"""NetworkPolicies enforced by nft: a test fixture in place of a network plugin, none of which can be had as a module.

`ruleset` is pure: policies, pods and namespaces in, the text of one nft table out. `Enforcer` loads it anew at each change of them.
Pods of one node, IPv4; `networking.k8s.io/v1` with pod, namespace and address selectors, ports and port ranges, both directions.
Traffic of the node itself to its pods (probes) is let through, as Kubernetes has it; traffic of pods to the node is not forwarded, so the
egress rules stand at the input hook too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.node.api import Api, Object
from cluster.node.mirror import Follower, Held, Mirror

TABLE = "moorage_policies"
PAUSE_SECONDS = 0.1
"""A pod that starts changes several times; one table is enough for all of them."""
LOAD_SECONDS = 10.0
PATHS = {
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
}


@dataclass(frozen=True)
class Seen:
    """What a cluster holds that matters here, as lists of API objects."""

    policies: Sequence[Object]
    pods: Sequence[Object]
    namespaces: Sequence[Object]


def ruleset(seen: Seen) -> str:
    """The table for `nft -f`: whatever was there before is replaced in one step. Nothing is filtered where no policy selects."""
    chains: list[str] = []
    jumps: list[str] = []
    for number, pod in enumerate(_running(seen.pods)):
        address = pod["status"]["podIP"]
        for direction, field, peers in (("Ingress", "daddr", "from"), ("Egress", "saddr", "to")):
            holding = [
                policy
                for policy in seen.policies
                if direction in _types(policy) and _in(policy, pod) and _matches(policy["spec"].get("podSelector"), pod)
            ]
            if not holding:
                continue
            rules = [rule for policy in holding for rule in _allowed(policy, direction, peers, seen)]
            name = f"{direction.lower()}_{number}"
            chains.append(
                f"  chain {name} {{\n" + "".join(f"    {rule} return\n" for rule in rules) + "    drop\n  }\n"
            )
            jumps.append(f"ip {field} {address} jump {name}")
    hooks = ""
    for hook in ("forward", "input"):
        # A pod's way to the node is its egress; the node's own way to a pod passes neither hook.
        wanted = [jump for jump in jumps if hook == "forward" or "saddr" in jump]
        body = "".join(f"    {line}\n" for line in ["ct state established,related accept", *wanted])
        hooks += f"  chain {hook} {{\n    type filter hook {hook} priority -5; policy accept;\n{body}  }}\n"
    return f"table ip {TABLE} {{}}\ndelete table ip {TABLE}\ntable ip {TABLE} {{\n{''.join(chains)}{hooks}}}\n"


def _running(pods: Sequence[Object]) -> list[Object]:
    """Pods with an address of their own."""
    return [pod for pod in pods if _has_address(pod)]


def _has_address(pod: Object) -> bool:
    status = pod.get("status", {})
    return (
        bool(status.get("podIP"))
        and status.get("phase") in ("Pending", "Running")
        and not pod["spec"].get("hostNetwork")
    )


def _types(policy: Object) -> Sequence[str]:
    spec = policy["spec"]
    return tuple(spec.get("policyTypes") or (["Ingress", "Egress"] if "egress" in spec else ["Ingress"]))


def _in(policy: Object, pod: Object) -> bool:
    return bool(policy["metadata"]["namespace"] == pod["metadata"]["namespace"])


def _matches(selector: Object | None, thing: Object) -> bool:
    """A label selector; None selects nothing, an empty one everything."""
    if selector is None:
        return False
    labels = thing["metadata"].get("labels", {})
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for wanted in selector.get("matchExpressions") or ():
        has, value = wanted["key"] in labels, labels.get(wanted["key"])
        holds = {
            "In": has and value in wanted.get("values", ()),
            "NotIn": not has or value not in wanted.get("values", ()),
            "Exists": has,
            "DoesNotExist": not has,
        }[wanted["operator"]]
        if not holds:
            return False
    return True


def _allowed(policy: Object, direction: str, peers: str, seen: Seen) -> Iterator[str]:
    """The matches that one policy lets through, for the other end's address and the port."""
    side = "saddr" if direction == "Ingress" else "daddr"
    for rule in policy["spec"].get(direction.lower()) or ():
        places: list[str] = []
        if rule.get(peers):
            for peer in rule[peers]:
                places += _places(peer, policy, side, seen)
        else:
            places = [""]
        ports = [_port(port) for port in rule["ports"]] if rule.get("ports") else [""]
        for place in places:
            for port in ports:
                yield " ".join(part for part in (place, port) if part)


def _places(peer: Object, policy: Object, side: str, seen: Seen) -> list[str]:
    block = peer.get("ipBlock")
    if block is not None:
        without = "".join(f" ip {side} != {each}" for each in block.get("except") or ())
        return [f"ip {side} {block['cidr']}{without}"]
    here = policy["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        spaces = {one["metadata"]["name"] for one in seen.namespaces if _matches(peer["namespaceSelector"], one)}
    else:
        spaces = {here}
    pods = peer.get("podSelector", {})
    return [
        f"ip {side} {pod['status']['podIP']}"
        for pod in _running(seen.pods)
        if pod["metadata"]["namespace"] in spaces and _matches(pods, pod)
    ]


def _port(port: Object) -> str:
    protocol = str(port.get("protocol", "TCP")).lower()
    number = port.get("port")
    if number is None:
        return f"meta l4proto {protocol}"
    if not isinstance(number, int):
        raise ValueError(f"named ports are not translated: {number!r}")
    return f"{protocol} dport {number}-{port['endPort']}" if "endPort" in port else f"{protocol} dport {number}"


class Enforcer:
    """Keeps the table as the cluster's objects say, from `start` to `stop`. `log`: for failures, a policy beyond us among them."""

    def __init__(self, api: Api, log: Path) -> None:
        self._loaded = ""
        self._follower = Follower(Mirror(api, PATHS), self._load, log, pause=PAUSE_SECONDS)

    def start(self) -> None:
        """From here policies hold."""
        self._follower.start()

    def stop(self) -> None:
        """Ends the following and takes the table away."""
        self._follower.stop()
        subprocess.run(["nft", "delete", "table", "ip", TABLE], capture_output=True, check=False)

    def _load(self, held: Held) -> None:
        text = ruleset(Seen(held["policies"], held["pods"], held["namespaces"]))
        if text == self._loaded:
            return
        load = ["nft", "-f", "-"]
        done = subprocess.run(load, input=text, capture_output=True, text=True, check=False, timeout=LOAD_SECONDS)
        if done.returncode:
            raise RuntimeError(f"nft refused the policies: {done.stderr.strip()}")
        self._loaded = text
