"""A declared host is reached and nothing else is, with real hosts to reach: two network namespaces joined by a wire (S2, T7, F42).

The platform runs in one of them and in a mount namespace with a hosts file of its own; a server that notes everything runs in the
other. No packet leaves the two, so public addresses may stand for the internet, and the metadata address for itself.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.http_door import HttpDoor
from fakes.isolated_agents import write_agents
from fakes.platform import poll, started
from fakes.prober import Prober

pytestmark = pytest.mark.isolation

NEWNET = 0x40000000
HOSTS = """\
127.0.0.1 localhost
11.22.33.2 allowed.test a.wild.test denied.test
169.254.169.254 metadata.test
10.9.8.2 private.test
127.0.0.1 loopback.test
::1 six.test
"""
# Notes each connection and datagram as a line: port, first bytes.
SERVER = """
import select, socket, sys
log = open(sys.argv[1], "a", buffering=1)
tcp = [socket.create_server(("0.0.0.0", port)) for port in (22, 80, 443, 8443)]
udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
for sock, port in zip(udp, (53, 443)):
    sock.bind(("0.0.0.0", port))
print("ready", file=log)
while True:
    for sock in select.select(tcp + udp, [], [])[0]:
        if sock in udp:
            print("udp", sock.getsockname()[1], sock.recv(99), file=log)
            continue
        client, _ = sock.accept()
        client.settimeout(2)
        try:
            said = client.recv(99)
            client.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 7\\r\\nconnection: close\\r\\n\\r\\noutside")
        except OSError as fault:
            said = repr(fault)
        print("tcp", sock.getsockname()[1], client.getsockname()[0], said, file=log)
        client.close()
"""
FETCH = """
import http.client, os
def fetch(host, port, tunnel):
    place = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
    link = http.client.HTTPConnection(place[0], int(place[1]), timeout=20)
    try:
        if tunnel:
            link.set_tunnel(host, port)
            link.request("GET", "/")
        else:
            link.request("GET", f"http://{host}:{port}/")
        answer = link.getresponse()
        return f"{answer.status} {answer.read().decode()}"
    except OSError as fault:
        return str(fault)
    finally:
        link.close()
"""


@dataclass
class Outside:
    """The platform inside its namespace, its hostile agent, and what the other side noted."""

    tell: Any
    log: Path

    def heard(self) -> list[str]:
        """Lines of the server since it was ready."""
        return self.log.read_text().splitlines()[1:]


def why_not() -> str | None:
    """Why this machine cannot make the namespaces, None when it can."""
    if os.getuid() != 0:
        return "network namespaces with a wire between them need root"
    for tool in ("ip", "unshare", "nsenter", "mount"):
        if shutil.which(tool) is None:
            return f"there is no '{tool}' on this machine"
    trial = subprocess.run(
        ["unshare", "--net", "ip", "link", "add", "a0", "type", "veth", "peer", "name", "a1"], check=False
    )
    return None if trial.returncode == 0 else "this machine makes no veth pair"


def holder(*flags: str) -> subprocess.Popen[bytes]:
    """A process that keeps namespaces for as long as it lives."""
    process = subprocess.Popen(["unshare", "--net", *flags, "sleep", "900"])
    own = os.readlink("/proc/self/ns/net")
    poll("it has its own network", lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own)
    return process


def within(pid: int) -> tuple[str, ...]:
    """The beginning of a command that runs in the namespaces of that process."""
    return ("nsenter", "--target", str(pid), "--net", "--mount", "--")


def wire(near: int, far: int, hosts: Path) -> None:
    """Joins the two networks and gives the near side its hosts file."""
    for pid, command in (
        (near, f"ip link add near type veth peer name far netns {far}"),
        (near, "ip link set lo up"),
        (near, "ip addr add 11.22.33.1/24 dev near"),
        (near, "ip addr add 10.9.8.1/24 dev near"),
        (near, "ip link set near up"),
        (near, "ip route add 169.254.169.254/32 dev near"),
        (far, "ip link set lo up"),
        (far, "ip addr add 11.22.33.2/24 dev far"),
        (far, "ip addr add 10.9.8.2/24 dev far"),
        (far, "ip addr add 169.254.169.254/32 dev far"),
        (far, "ip link set far up"),
    ):
        subprocess.run([*within(pid), *command.split()], check=True)
    subprocess.run([*within(near), "mount", "--bind", str(hosts), "/etc/hosts"], check=True)


def enter(pid: int) -> None:
    """Moves the calling thread into the network of that process."""
    with open(f"/proc/{pid}/ns/net") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


@pytest.fixture(scope="module")
def outside(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """After `world`, so that the agents' environment is in the cache: there is no package index in there."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    scratch = tmp_path_factory.mktemp("outside")
    (scratch / "hosts").write_text(HOSTS)
    folder = write_agents(
        tmp_path_factory.mktemp("agents"),
        egress=["allowed.test:8443", "*.wild.test:80", "metadata.test:80", "private.test:80", "loopback.test:80"],
    )
    near, far = holder("--mount", "--propagation", "private"), holder()
    server = None
    try:
        wire(near.pid, far.pid, scratch / "hosts")
        log = scratch / "heard"
        log.touch()
        server = subprocess.Popen([*within(far.pid), sys.executable, "-c", SERVER, str(log)])
        poll("the server outside is ready", lambda: "ready" in log.read_text())
        with started(folder, prefix=within(near.pid)) as platform:
            with ThreadPoolExecutor(1, initializer=enter, initargs=(near.pid,)) as pool:
                door = HttpDoor(platform.url, platform.api_key)
                prober = Prober(door)
                yield Outside(lambda *told: pool.submit(prober.tell, *told).result(90), log)
                pool.submit(door.close).result(5)
    finally:
        for process in (server, near, far):
            if process is not None:
                process.kill()
                process.wait(timeout=10)


def test_a_declared_host_is_reached_and_an_undeclared_one_is_not(outside: Outside) -> None:
    seen = outside.tell(
        "outside-session-1",
        FETCH
        + """
result = {
    "declared": fetch("allowed.test", 8443, True),
    "declared, plain": fetch("allowed.test", 8443, False),
    "by wildcard": fetch("a.wild.test", 80, False),
    "another port": fetch("allowed.test", 443, True),
    "SSH": fetch("allowed.test", 22, True),
    "the same address by another name": fetch("denied.test", 8443, True),
    "the wildcard's own name": fetch("wild.test", 80, True),
    "by address": fetch("11.22.33.2", 8443, True),
    "metadata by name": fetch("metadata.test", 80, False),
    "metadata by address": fetch("169.254.169.254", 80, False),
    "a private address": fetch("private.test", 80, False),
    "loopback by name": fetch("loopback.test", 80, True),
    "IPv6 loopback": fetch("six.test", 80, True),
}
""",
    )
    reached = {name for name, answer in seen.items() if "outside" in answer}
    assert reached == {"declared", "declared, plain", "by wildcard"}, seen
    for name, words in (
        ("another port", "spec.egress"),
        ("the same address by another name", "spec.egress"),
        ("metadata by name", "metadata"),
        ("a private address", "private"),
        ("loopback by name", "loopback"),
    ):
        assert words in seen[name], (name, seen[name])
    heard = outside.heard()
    assert len(heard) == 3 and not any("169.254" in line or "10.9.8.2" in line for line in heard), heard


def test_past_the_door_not_one_byte_gets_out(outside: Outside) -> None:
    before = outside.heard()
    seen = outside.tell(
        "outside-session-1",
        """
        import errno, socket, struct
        result = {}
        def attempt(name, family, kind, address, data=b"secret"):
            try:
                with socket.socket(family, kind) as sock:
                    sock.settimeout(1)
                    sock.connect(address)
                    sock.send(data)
                    result[name] = "sent"
            except OSError as fault:
                result[name] = errno.errorcode.get(fault.errno, str(fault))
        for address in ("11.22.33.2", "10.9.8.2", "169.254.169.254", "11.22.33.1"):
            for port in (22, 80, 443, 8443):
                attempt(f"tcp {address} {port}", socket.AF_INET, socket.SOCK_STREAM, (address, port))
            for port in (53, 443):
                attempt(f"udp {address} {port}", socket.AF_INET, socket.SOCK_DGRAM, (address, port))
        query = struct.pack(">HHHHHH", 1, 256, 1, 0, 0, 0) + b"\\x06secret\\x04test\\x00" + struct.pack(">HH", 16, 1)
        attempt("a TXT query", socket.AF_INET, socket.SOCK_DGRAM, ("11.22.33.2", 53), query)
        for name in ("allowed.test", "secret.denied.test"):
            try:
                result[f"resolving {name}"] = str(socket.getaddrinfo(name, 80))
            except OSError as fault:
                result[f"resolving {name}"] = "refused"
        """,
    )
    assert not [name for name, answer in seen.items() if answer == "sent"], seen
    assert {value for name, value in seen.items() if name.startswith("resolving")} == {"refused"}, seen
    time_to_arrive(outside, before)


def time_to_arrive(outside: Outside, before: list[str]) -> None:
    """What was sent on a wire without load is there at once; a second is plenty."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        assert outside.heard() == before
        time.sleep(0.1)
