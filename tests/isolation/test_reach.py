"""What a hostile agent of a running platform sees and reaches: nothing of other sessions, of the host, of any network (T2, T7, T12)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.platform import Platform, poll
from fakes.prober import SEARCH_FILES, SEARCH_PROC, descriptors, family, listening, search
from fakes.sinks import metrics_of

pytestmark = pytest.mark.isolation

NEIGHBOURS = "neighbours-canary-51ab"

ATTEMPT = """
import errno, socket
def attempt(family, address, kind=socket.SOCK_STREAM):
    try:
        with socket.socket(family, kind) as sock:
            sock.settimeout(2)
            sock.connect(address)
            if kind == socket.SOCK_DGRAM:
                sock.send(b"x")
    except OSError as fault:
        return errno.errorcode.get(fault.errno, str(fault))
    return "connected"
"""


@pytest.fixture(scope="module")
def neighbour(world: Any) -> None:
    """Another agent's session and another session of the same agent, both full of secrets."""
    body = {"input": NEIGHBOURS, "agent_session_id": "the-neighbour-1"}
    assert world.door.ask("POST", "/v1/agents/neighbour/responses", body).status == 200
    world.prober.tell(
        "another-prober-1",
        f"""
        import os
        for folder in ("/workspace", os.environ["HOME"], "/tmp", "/dev/shm"):
            open(folder + "/{NEIGHBOURS}", "w").write("{NEIGHBOURS}")
        """,
    )


def test_no_file_of_another_session_is_seen(told: Any, neighbour: None) -> None:
    assert told("hostile-files-1", search([NEIGHBOURS], SEARCH_FILES)) == []
    found = told("another-prober-1", search([NEIGHBOURS], SEARCH_FILES))
    assert {place.rpartition("/")[0] for place, _ in found} == {"/workspace", "/home/agent", "/tmp", "/dev/shm"}


def test_no_process_of_another_session_is_seen(told: Any, neighbour: None) -> None:
    told("another-prober-1", "import subprocess; subprocess.Popen(['sleep', '600'])")
    seen = told(
        "hostile-files-1",
        "import os; result = [[int(n), open(f'/proc/{n}/cmdline').read()] for n in os.listdir('/proc') if n.isdigit()]",
    )
    assert len(seen) == 2 and seen[0][0] == 1, seen
    assert not any("sleep" in line for _, line in seen)
    assert told("hostile-files-1", search([NEIGHBOURS, "neighbour"], SEARCH_PROC)) == []
    killed = told(
        "hostile-files-1",
        """
        import os
        def kill(pid):
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return 0
            return 1
        result = sum(kill(pid) for pid in range(3, 70_000) if pid != os.getpid() and not os.path.exists(f"/proc/{pid}"))
        """,
    )
    assert killed == 0


def test_the_hosts_ports_and_sockets_are_not_there(world: Any, told: Any) -> None:
    pids = family(world.platform.process.pid)
    ports = listening(pids)
    assert len(ports) >= 4, "public, sandbox, egress and control port"
    sockets = [one["endpoint"].removeprefix("unix:") for one in descriptors(world.platform)]
    sockets.append(world.platform.redis_url().removeprefix("unix://").partition("?")[0])
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    abstract = [name for name in names if name.startswith("@")][:20]
    seen = told(
        "hostile-network-1",
        ATTEMPT
        + f"""
import os
ports = {[*ports, world.port]}
result = {{}}
for host in ("127.0.0.1", "127.0.0.2", "0.0.0.0", "localhost"):
    for port in ports:
        result[f"{{host}}:{{port}}"] = attempt(socket.AF_INET, (host, port))
for port in ports:
    result[f"::1 {{port}}"] = attempt(socket.AF_INET6, ("::1", port))
for path in {sockets}:
    result[path] = attempt(socket.AF_UNIX, path)
for name in {abstract}:
    result[name] = attempt(socket.AF_UNIX, "\\0" + name[1:])
result["table"] = [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if len(line.split()) > 7]
""",
    )
    assert seen.pop("table") == []
    assert not [place for place, answer in seen.items() if answer == "connected"], seen
    assert world.heard == []


def test_no_other_host_is_reached_by_address(told: Any) -> None:
    seen = told(
        "hostile-network-1",
        ATTEMPT
        + """
result = {
    "interfaces": [name for _, name in socket.if_nameindex()],
    "routes": open("/proc/net/route").read().splitlines()[1:],
    "raw IP": attempt(socket.AF_INET, ("192.0.2.1", 443)),
    "public IP": attempt(socket.AF_INET, ("198.51.100.7", 80)),
    "private IP": attempt(socket.AF_INET, ("10.0.0.1", 80)),
    "metadata": attempt(socket.AF_INET, ("169.254.169.254", 80)),
    "UDP": attempt(socket.AF_INET, ("192.0.2.1", 53), socket.SOCK_DGRAM),
    "QUIC": attempt(socket.AF_INET, ("198.51.100.7", 443), socket.SOCK_DGRAM),
    "broadcast": attempt(socket.AF_INET, ("255.255.255.255", 67), socket.SOCK_DGRAM),
    "IPv6": attempt(socket.AF_INET6, ("2001:db8::1", 443)),
    "IPv6 metadata": attempt(socket.AF_INET6, ("fd00:ec2::254", 80)),
    "mapped": attempt(socket.AF_INET6, ("::ffff:192.0.2.1", 80)),
    "hypervisor": attempt(40, (2, 1)),
}
for name, kind in (("raw", socket.SOCK_RAW), ("packet", socket.SOCK_RAW)):
    try:
        socket.socket(17 if name == "packet" else socket.AF_INET, kind, 1).close()
        result[name] = "connected"
    except OSError as fault:
        result[name] = errno.errorcode[fault.errno]
try:
    result["DNS"] = socket.getaddrinfo("example.com", 80) and "connected"
except OSError as fault:
    result["DNS"] = str(fault)
""",
    )
    assert (seen.pop("interfaces"), seen.pop("routes")) == (["lo"], [])
    assert not [place for place, answer in seen.items() if answer == "connected"], seen


TARGETS = (
    *("example.com:443", "192.0.2.1:443", "10.0.0.1:443", "169.254.169.254:80", "[::1]:PORT", "[fd00:ec2::254]:80"),
    *("127.0.0.1:PORT", "127.1:PORT", "0x7f.1:PORT", "017700000001:PORT", "2130706433:PORT", "0:PORT", "0.0.0.0:PORT"),
    *("[::ffff:127.0.0.1]:PORT", "[::]:PORT", "127.0.0.1.:PORT", "127.0.0.1%00.localhost:PORT", "localhost.:PORT"),
    *("user@localhost:PORT", "localhost:22", "localhost:0", "localhost:65536", "localhost:+PORT", "LOCALHOST :PORT"),
    *("localhost:PORT", "a.localhost:PORT", "LocalHost:PORT", "xn--localhost-:PORT", "metadata.google.internal:80"),
    *("localtest.me:PORT", "example.com:PORT#@localhost:PORT", "\u2460\u2461\u2466.0.0.1:PORT"),
)


def test_through_the_door_only_declared_public_hosts_are_reached(world: Any, told: Any) -> None:
    """The manifest declares `localhost` and its names on the canary's port: the address is refused all the same."""
    targets = [one.replace("PORT", str(world.port)) for one in TARGETS]
    answers = told(
        "hostile-door-1",
        f"""
import os, socket
place = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
def say(head):
    with socket.create_connection((place[0], int(place[1])), 15) as sock:
        sock.sendall(head)
        got = b""
        while b"\\r\\n\\r\\n" not in got and (more := sock.recv(4096)):
            got += more
        return got.decode("latin-1")
result = {{}}
for target in {targets}:
    raw = target.encode()
    result["CONNECT " + target] = say(b"CONNECT " + raw + b" HTTP/1.1\\r\\nHost: " + raw + b"\\r\\n\\r\\n")
    result["GET " + target] = say(b"GET http://" + raw + b"/ HTTP/1.1\\r\\nHost: " + raw + b"\\r\\n\\r\\n")
good = b"localhost:{world.port}"
for name, head in {{
    "a NUL": b"CONNECT " + good + b"\\0.example.com:443 HTTP/1.1\\r\\n\\r\\n",
    "another Host": b"CONNECT example.com:443 HTTP/1.1\\r\\nHost: " + good + b"\\r\\n\\r\\n",
    "a token of its own": b"CONNECT " + good + b" HTTP/1.1\\r\\nProxy-Authorization: Bearer x.y\\r\\n\\r\\n",
    "two requests": b"CONNECT example.com:443 HTTP/1.1\\r\\n\\r\\nCONNECT " + good + b" HTTP/1.1\\r\\n\\r\\n",
    "another scheme": b"GET https://" + good + b"/ HTTP/1.1\\r\\n\\r\\n",
    "no proxy request": b"GET /v1/agents HTTP/1.1\\r\\nHost: " + good + b"\\r\\n\\r\\n",
    "a shim's call": b"POST /shim/bind HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}",
}}.items():
    result[name] = say(head)
""",
    )
    for target, answer in answers.items():
        assert answer.startswith(("HTTP/1.1 403", "HTTP/1.1 400", "HTTP/1.1 404", "HTTP/1.1 502")), (target, answer)
    declared = answers[f"CONNECT localhost:{world.port}"]
    assert "loopback" in declared, "the policy allows the host, its address is refused: " + declared
    assert "spec.egress" in answers["CONNECT example.com:443"], "the refusal says what to add"
    assert world.heard == []
    told = poll("the audit log tells", lambda: audited(world.platform, "host/example.com:443"))
    assert [each["outcome"] for each in told] == ["not_listed"] and told[0]["user"] == "agent/prober"
    (figures,) = (found for port in listening(family(world.platform.process.pid)) if (found := metrics_of(port)))
    assert b'moorage_egress_refused_total{why="not_listed"}' in figures
    assert b'moorage_egress_refused_total{why="address"}' in figures


def audited(platform: Platform, what: str) -> list[dict[str, Any]]:
    """Records of refusals of that host."""
    status, found = platform.call("/v1/audit?limit=1000")
    assert status == 200, found
    return [each for each in found["data"] if each["action"] == "egress.refuse" and each["object"] == what]
