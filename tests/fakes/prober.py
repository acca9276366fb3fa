"""What the isolation tests do with the agent `prober`: tell a session some Python, and look at the machine from outside.

Looking from outside uses what only the machine's owner has: /proc, the state folder, Valkey.
"""

from __future__ import annotations

import json
import os
import re
import socket
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from fakes.http_door import HttpDoor
from fakes.platform import Platform

AGENT = "prober"


class ToldError(AssertionError):
    """The code that the prober was told raised; the message is its traceback."""


@dataclass
class Prober:
    """The agent on one platform. A session is named by its id; one that is new is made by the first call."""

    door: HttpDoor

    def tell(self, session: str, code: str, *, main: bool = False) -> Any:
        """What the code left in `result`."""
        path = f"/v1/agents/{AGENT}/invocations/{'main' if main else 'thread'}?agent_session_id={session}"
        answer = self.door.ask("POST", path, raw=textwrap.dedent(code).encode())
        assert answer.status == 200, (answer.status, answer.raw[:2000])
        if "error" in answer.body:
            raise ToldError(answer.body["error"])
        return answer.body["result"]

    def turn(self, session: str, code: str) -> dict[str, Any]:
        """The response of a turn that runs the code."""
        body = {"input": textwrap.dedent(code), "agent_session_id": session}
        answer = self.door.ask("POST", f"/v1/agents/{AGENT}/responses", body)
        assert answer.status == 200, answer.raw
        return dict(answer.body)


def outcome(response: dict[str, Any]) -> Any:
    """`result` of a turn that completed."""
    assert response["status"] == "completed", response["error"]
    text = "".join(part["text"] for item in response["output"] for part in item.get("content", ()))
    return json.loads(text.removeprefix("began "))["result"]


def hidden(text: str) -> list[int]:
    """A needle as a program may carry it without holding it: each byte the other way round."""
    return [byte ^ 0xFF for byte in text.encode()]


# Finds needles (given by `hidden`) without ever holding one: what is searched is turned round instead.
SEARCH = """
import os, stat, sys
flip = bytes(n ^ 0xFF for n in range(256))
needles = [bytes(one) for one in NEEDLES]
found = []
def look(where, data):
    data = data.translate(flip)
    found.extend([where, index] for index, needle in enumerate(needles) if needle in data)
def read(where, path, most=1 << 20):
    try:
        with open(path, "rb") as file:
            look(where, file.read(most))
    except OSError:
        pass
"""
SEARCH_FILES = """
known = ("/usr", "/sys", "/proc", sys.prefix, sys.base_prefix)
for place, folders, files in os.walk("/", followlinks=False):
    if place in known:
        folders[:] = []
        continue
    look(place, os.fsencode(place))
    for name in files:
        path = os.path.join(place, name)
        look(path, os.fsencode(name))
        if os.path.isfile(path):
            read(path, path)
"""
SEARCH_PROC = """
for pid in [n for n in os.listdir("/proc") if n.isdigit()] + ["self"]:
    for name in ("environ", "cmdline", "mountinfo", "maps", "status", "stat", "comm", "cgroup", "limits", "net/unix"):
        read(f"/proc/{pid}/{name}", f"/proc/{pid}/{name}")
    for fd in (os.listdir(f"/proc/{pid}/fd") if os.access(f"/proc/{pid}/fd", os.R_OK) else ()):
        try:
            look(f"/proc/{pid}/fd/{fd}", os.fsencode(os.readlink(f"/proc/{pid}/fd/{fd}")))
            if stat.S_ISREG(os.stat(f"/proc/{pid}/fd/{fd}").st_mode):
                read(f"/proc/{pid}/fd/{fd}, its file", f"/proc/{pid}/fd/{fd}")
        except OSError:
            pass
look("environ", repr(dict(os.environ)).encode())
"""
SEARCH_MEMORY = """
size, opened = 0, []
def memory_of(pid):
    global size
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        opened.append(pid)
        for line in maps.read().splitlines():
            first, _, last = line.split()[0].partition("-")
            if "r" not in line.split()[1] or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            at, end, rest = int(first, 16), int(last, 16), b""
            while at < end:
                memory.seek(at)
                try:
                    piece = memory.read(min(1 << 20, end - at))
                except OSError:
                    break
                if not piece:
                    break
                look(f"{pid} {line}", rest + piece)
                at, size, rest = at + len(piece), size + len(piece), piece[-200:]
for pid in ["self"] + [n for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid()]:
    try:
        memory_of(pid)
    except OSError:
        continue
"""


def search(needles: list[str], *parts: str) -> str:
    """A program that looks for these in what the parts say; its result are (place, index of the needle)."""
    return SEARCH.replace("NEEDLES", repr([hidden(one) for one in needles])) + "".join(parts) + "\nresult = found\n"


def ledger(platform: Platform) -> redis.Redis:
    """The platform's Valkey, as only its owner reaches it."""
    return redis.Redis.from_url(platform.redis_url(), decode_responses=True)


def descriptors(platform: Platform) -> list[dict[str, str]]:
    """Every sandbox as the ledger knows it."""
    with ledger(platform) as client:
        found: list[Any] = [client.hgetall(key) for key in client.scan_iter("x:*")]
        return [dict(one) for one in found]


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                parent = int((one / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(one.name))
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        left += children.get(found[-1], [])
    return found


def listening(pids: list[int]) -> list[int]:
    """TCP ports that these processes listen on in this network."""
    inodes: set[str] = set()
    for pid in pids:
        try:
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(fd)))
        except OSError:
            continue
    ports = set()
    for line in Path(f"/proc/{pids[0]}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def sandbox_port(platform: Platform) -> str:
    """Where shims announce themselves: the platform's own list of gateways."""
    with ledger(platform) as client:
        found: Any = client.zrange("gateways", 0, -1)
    return str(found[0])


@contextmanager
def canary() -> Iterator[tuple[int, list[bytes]]]:
    """A server on this machine's loopback: its port, and what anybody sent to it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.settimeout(1)
                    try:
                        heard.append(client.recv(1000) or b"connected")
                        client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                    except OSError:
                        heard.append(b"connected")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@dataclass
class Watch:
    """How a neighbour fared: seconds of each answer, and what was not one."""

    took: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def slowest(self, share: float = 0.99) -> float:
        """The time that this share of the answers took at most."""
        ordered = sorted(self.took)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@contextmanager
def watched(platform: Platform, key: str, session: str) -> Iterator[Watch]:
    """Asks the agent `neighbour` all the while; ends when the block does."""
    watch, over = Watch(), threading.Event()
    door = HttpDoor(platform.url, key)
    path = f"/v1/agents/neighbour/invocations?agent_session_id={session}"

    def ask() -> None:
        while not over.wait(0.03):
            began = time.perf_counter()
            try:
                answer = door.ask("POST", path)
                if (answer.status, answer.raw) != (200, b"here"):
                    watch.wrong.append(f"{answer.status} {answer.raw[:200]!r}")
            except OSError as error:
                watch.wrong.append(repr(error))
            watch.took.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join(30)
        door.close()
