"""The node's network: a bridge with the node's address, and the CNI configuration that puts pods on it. Layer: I/O rim."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.node import plan

NETNS = Path("/run/netns")
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class Taken(Exception):
    """Another node runs on this machine, or its network was left behind."""


@dataclass(frozen=True)
class Before:
    """What this machine had before the node: what came since is the node's, and goes with it."""

    namespaces: tuple[str, ...]
    tables: tuple[str, ...]
    forwards: str

    @classmethod
    def seen(cls) -> Before:
        """As it is now."""
        return cls(_namespaces(), _tables(), FORWARD.read_text().strip())

    @classmethod
    def load(cls, path: Path) -> Before | None:
        """As a node wrote it down when it began; None when it had not come so far."""
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        return cls(tuple(found["namespaces"]), tuple(found["tables"]), found["forwards"])

    def save(self, path: Path) -> None:
        """For whoever sweeps after a node that was killed."""
        path.write_text(json.dumps(asdict(self)))


def check_free() -> None:
    """Raises Taken."""
    if (Path("/sys/class/net") / plan.BRIDGE).exists():
        raise Taken(f"the bridge {plan.BRIDGE} exists: a node runs already; end it with scripts/cluster down")


def up(config: Path) -> None:
    """Makes the bridge and writes the CNI configuration below `config`."""
    _run("ip", "link", "add", plan.BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{plan.HOST}/17", "dev", plan.BRIDGE)
    _run("ip", "link", "set", plan.BRIDGE, "up")
    FORWARD.write_text("1")
    folder = config / "cni"
    folder.mkdir(exist_ok=True)
    network = {
        "cniVersion": "0.4.0",
        "name": "moorage",
        "plugins": [
            {
                "type": "bridge",
                "bridge": plan.BRIDGE,
                "isGateway": True,
                "hairpinMode": True,
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": plan.PODS, "rangeStart": "198.18.0.16", "gateway": plan.HOST}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": str(config.parent / "cni-addresses"),
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    (folder / "10-moorage.conflist").write_text(json.dumps(network, indent=1))


def down(before: Before) -> None:
    """Takes away the bridge, and the firewall tables and network namespaces that came since `before`."""
    with suppress(subprocess.CalledProcessError):
        _run("ip", "link", "delete", plan.BRIDGE)
    for table in set(_tables()) - set(before.tables):
        with suppress(subprocess.CalledProcessError):
            _run("nft", "delete", "table", *table.split())
    for name in set(_namespaces()) - set(before.namespaces):
        if name.startswith("cni-"):
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "delete", name)
    FORWARD.write_text(before.forwards)


def _namespaces() -> tuple[str, ...]:
    return tuple(path.name for path in NETNS.iterdir()) if NETNS.is_dir() else ()


def _tables() -> tuple[str, ...]:
    said = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return tuple(line.removeprefix("table ") for line in said.splitlines())


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
