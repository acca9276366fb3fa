"""A declared host is reached and nothing else is, with real hosts to reach: two network namespaces joined by a wire (S2, T7, F42)."""

from __future__ import annotations

import time

import pytest

from isolation.networks import Outside

pytestmark = pytest.mark.isolation

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


def test_a_declared_host_is_reached_and_an_undeclared_one_is_not(outside: Outside) -> None:
    before = len(outside.heard())
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
    heard = outside.heard()[before:]
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
