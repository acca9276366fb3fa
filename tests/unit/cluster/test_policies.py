"""NetworkPolicies as nft rules: who is filtered at all, and what gets through."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.node.policies import Seen, ruleset

pytestmark = pytest.mark.unit


def pod(name: str, address: str, namespace: str = "agents", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return {"metadata": meta, "spec": {}, "status": {"podIP": address, "phase": "Running"}}


def policy(namespace: str = "agents", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}


def space(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


PODS = [
    pod("one", "198.18.0.20", role="agent"),
    pod("two", "198.18.0.21", role="agent"),
    pod("gate", "198.18.0.30", "platform", role="gateway"),
]
SPACES = [space("agents", kind="agents"), space("platform", kind="platform")]


def chain(text: str, name: str) -> list[str]:
    """The lines of one chain."""
    body = text.partition(f"chain {name} {{\n")[2].partition("\n  }")[0]
    return [line.strip() for line in body.splitlines()]


def test_without_a_policy_nothing_is_filtered() -> None:
    text = ruleset(Seen([], PODS, SPACES))
    assert "drop" not in text and "jump" not in text


def test_an_empty_policy_denies_both_ways_what_it_selects_and_nothing_else() -> None:
    text = ruleset(Seen([policy(policyTypes=["Ingress", "Egress"])], PODS, SPACES))
    assert chain(text, "ingress_0") == ["drop"] and chain(text, "egress_1") == ["drop"]
    assert "198.18.0.30" not in text, "another namespace's pods are not its business"


def test_the_way_to_the_node_is_egress_and_the_nodes_own_way_in_is_free() -> None:
    text = ruleset(Seen([policy(policyTypes=["Ingress", "Egress"])], PODS[:1], SPACES))
    hooks = {name: chain(text, name) for name in ("forward", "input")}
    assert "ip daddr 198.18.0.20 jump ingress_0" in hooks["forward"]
    assert [line for line in hooks["input"] if "jump" in line] == ["ip saddr 198.18.0.20 jump egress_0"]


def test_rules_of_all_policies_add_up() -> None:
    both = [
        policy(policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "198.18.0.1/32"}}], "ports": [{"port": 8081}]}]),
        policy(egress=[{"ports": [{"protocol": "UDP", "port": 53}]}], policyTypes=["Egress"]),
    ]  # fmt: skip
    assert chain(ruleset(Seen(both, PODS[:1], SPACES)), "egress_0") == [
        "ip daddr 198.18.0.1/32 tcp dport 8081 return",
        "udp dport 53 return",
        "drop",
    ]


def test_peers_are_found_by_namespace_and_label_together() -> None:
    only = {
        "namespaceSelector": {"matchLabels": {"kind": "platform"}},
        "podSelector": {"matchLabels": {"role": "gateway"}},
    }
    text = ruleset(Seen([policy(ingress=[{"from": [only]}])], PODS, SPACES))
    assert chain(text, "ingress_0") == ["ip saddr 198.18.0.30 return", "drop"]
    nobody = {
        "namespaceSelector": {"matchLabels": {"kind": "platform"}},
        "podSelector": {"matchLabels": {"role": "agent"}},
    }
    assert chain(ruleset(Seen([policy(ingress=[{"from": [nobody]}])], PODS, SPACES)), "ingress_0") == ["drop"]


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ({"key": "role", "operator": "In", "values": ["agent"]}, True),
        ({"key": "role", "operator": "NotIn", "values": ["agent"]}, False),
        ({"key": "role", "operator": "Exists"}, True),
        ({"key": "role", "operator": "DoesNotExist"}, False),
    ],
)
def test_expressions_select(expression: dict[str, Any], selected: bool) -> None:
    chosen = policy(podSelector={"matchExpressions": [expression]})
    assert ("jump ingress_0" in ruleset(Seen([chosen], PODS[:1], SPACES))) is selected


def test_a_pod_that_has_ended_is_nobody_any_more() -> None:
    ended = {**PODS[0], "status": {"podIP": "198.18.0.20", "phase": "Failed"}}
    assert "198.18.0.20" not in ruleset(Seen([policy()], [ended], SPACES))


def test_address_blocks_with_exceptions_and_port_ranges() -> None:
    rule = {
        "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.18.0.0/15"]}}],
        "ports": [{"port": 8000, "endPort": 8010}],
    }
    text = ruleset(Seen([policy(policyTypes=["Egress"], egress=[rule])], PODS[:1], SPACES))
    assert chain(text, "egress_0")[0] == "ip daddr 0.0.0.0/0 ip daddr != 198.18.0.0/15 tcp dport 8000-8010 return"
