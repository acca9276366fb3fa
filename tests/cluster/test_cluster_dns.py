"""Names of the cluster as a pod resolves them, and where the name server listens (docs/cluster-tests.md)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.node import plan
from cluster.node.node import Node
from cluster.plain_pod import PlainPods

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
STAY = "import time; time.sleep(600)"

# Asks until a name is known (an endpoint is announced a moment after its pod runs), and prints every address of each.
RESOLVE = """
import json, socket, time
deadline = time.monotonic() + 30
def addresses(name):
    while True:
        try:
            return sorted({{found[4][0] for found in socket.getaddrinfo(name, None, socket.AF_INET)}})
        except socket.gaierror:
            if time.monotonic() > deadline:
                return []
            time.sleep(0.1)
def unknown(name):
    try:
        socket.getaddrinfo(name, None)
    except socket.gaierror as fault:
        return fault.errno == socket.EAI_NONAME
    return False
print(json.dumps([{{name: addresses(name) for name in {known}}}, {{name: unknown(name) for name in {none}}}]))
"""


@pytest.fixture
def pods(node: Node, base_image: str) -> Iterator[PlainPods]:
    with PlainPods.opened(node, base_image, f"dns-{secrets.token_hex(4)}") as opened:
        yield opened


def service(pods: PlainPods, name: str, selects: str, **spec: Any) -> None:
    ports = [{"port": 80, "targetPort": 8080}]
    whole = {"selector": {"app": selects}, "ports": ports, **spec}
    pods.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole})


def test_a_pod_resolves_services_headless_pods_and_nothing_outside(pods: PlainPods) -> None:
    service(pods, "front", "one")
    service(pods, "each", "one", clusterIP="None")
    pods.start("one", STAY, hostname="one", subdomain="each")
    address = pods.address("one")
    front = json.loads(pods.kubectl("get", "service", "front", "-o", "json"))["spec"]["clusterIP"]

    whole = f"{pods.namespace}.svc.{plan.DNS_DOMAIN}"
    known = ["front", f"front.{pods.namespace}", f"front.{whole}", f"each.{whole}", f"one.each.{whole}"]
    none = [f"nobody.{whole}", "moorage.invalid", "example.com"]
    found, unknown = json.loads(pods.run("asker", RESOLVE.format(known=known, none=none)))
    assert found == dict(zip(known, [[front], [front], [front], [address], [address]], strict=True))
    assert unknown == dict.fromkeys(none, True)


def test_a_pod_finds_the_api_server_by_its_usual_name(pods: PlainPods) -> None:
    name = f"kubernetes.default.svc.{plan.DNS_DOMAIN}"
    found, _ = json.loads(pods.run("asker", RESOLVE.format(known=[name], none=[])))
    assert found == {name: [plan.API_SERVICE]}


def test_the_name_server_listens_on_the_bridge_and_nowhere_else(node: Node) -> None:
    (server,) = _processes_with(str(node.place.config / "Corefile"))
    places = _listens(server)
    assert (plan.HOST, plan.DNS_PORT) in places
    assert {host for host, _ in places} == {plan.HOST}


def _processes_with(argument: str) -> list[Path]:
    def has(process: Path) -> bool:
        try:
            return argument.encode() in (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False  # it ended in between

    return [process for process in Path("/proc").iterdir() if process.name.isdigit() and has(process)]


def _listens(process: Path) -> set[tuple[str, int]]:
    """(address, port) of its listening TCP and its UDP sockets; IPv6 ones with the address as the kernel writes it."""
    ours = {link.readlink().name.removeprefix("socket:") for link in (process / "fd").iterdir() if link.is_symlink()}
    found = set()
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            _, local, _, now, *rest = line.split()
            if now == state and f"[{rest[5]}]" in ours:
                host, _, port = local.partition(":")
                found.add((_dotted(host) if len(host) == 8 else host, int(port, 16)))
    return found


def _dotted(word: str) -> str:
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(word)))
