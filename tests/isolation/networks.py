"""Two network namespaces joined by a wire: a platform with a hostile agent in the near one, servers that note everything in the far one.

No packet leaves the two, so public addresses may stand for the internet, and the metadata address for itself. Two logs: `heard`, a line a
connection or datagram at the far servers; `canary`, a line for each place where a marker was seen: every frame that came over the wire,
and every socket, queue, pipe and file of the near side that is no sandbox's business.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.http_door import HttpDoor
from fakes.platform import Platform, poll, started
from fakes.prober import Prober

NEWNET = 0x40000000
HOSTS = """\
127.0.0.1 localhost
11.22.33.2 allowed.test a.wild.test denied.test front.test
11.22.33.3 evil.test
169.254.169.254 metadata.test
10.9.8.2 private.test
127.0.0.1 loopback.test
::1 six.test
"""
EGRESS = [
    *("allowed.test:8443", "*.wild.test:80", "front.test", "metadata.test:80", "private.test:80", "loopback.test:80"),
]
RESOLV = "nameserver 11.22.33.2\noptions timeout:1 attempts:1\n"
# What a marker looks like, wherever it is seen.
MARK = "mark-[0-9]+-[a-z]+-end"
# The far side: notes each connection and datagram as a line, and each frame with a marker in it.
FAR = r"""
import re, socket, struct, sys, threading
heard, canary = (open(path, "a", buffering=1) for path in sys.argv[1:3])
mark = re.compile(sys.argv[3].encode())
lock = threading.Lock()
def say(file, *words):
    with lock:
        print(*words, file=file)
def serve(client):
    client.settimeout(2)
    port, host = client.getsockname()[1], client.getsockname()[0]
    try:
        said = client.recv(4096)
        if found := re.match(rb"GET (?:http://[^/]+)?/to/(\S+) ", said):
            there = b"location: http://evil.test/" + found[1] + b"\r\ncontent-length: 0\r\n"
            client.sendall(b"HTTP/1.1 302 Found\r\nconnection: close\r\n" + there + b"\r\n")
        else:
            client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\noutside")
        say(heard, "tcp", port, host, said[:99])
        client.shutdown(socket.SHUT_WR)
        client.settimeout(1)
        while client.recv(4096):
            pass
    except OSError as fault:
        say(heard, "tcp", port, host, repr(fault))
    client.close()
def accept(server):
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
def receive(sock):
    while True:
        say(heard, "udp", sock.getsockname()[1], sock.recv(99))
def frames(sock):
    while True:
        frame, (_, kind, direction, *_) = sock.recvfrom(65535)
        found = mark.findall(frame)
        if direction == socket.PACKET_OUTGOING or not found:
            continue
        where = f"frame {kind:#x}"
        if kind == 0x0800 and frame[23] in (6, 17):
            to = 14 + 4 * (frame[14] & 15) + 2
            where = f"{'tcp' if frame[23] == 6 else 'udp'} {socket.inet_ntoa(frame[30:34])}:{struct.unpack_from('!H', frame, to)[0]}"
        for each in found:
            say(canary, where, each.decode())
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
wire.bind(("far", 3))
threads = [(frames, wire)]
for port in (22, 25, 53, 80, 443, 853, 8443):
    threads.append((accept, socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)))
for port in (53, 443):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("0.0.0.0", port))
    threads.append((receive, sock))
for target, argument in threads:
    threading.Thread(target=target, args=(argument,), daemon=True).start()
print("ready", file=heard)
threading.Event().wait()
"""
# The near side, outside of every sandbox: what of this machine an agent might reach, and a proxy that decides nothing.
NEAR = r"""
import contextlib, ctypes, os, re, socket, struct, sys, threading, unicodedata
from urllib.parse import unquote
canary, drop = open(sys.argv[1], "a", buffering=1), sys.argv[2]
mark, public = re.compile(sys.argv[3].encode()), {("11.22.33.2", 80), ("11.22.33.2", 443), ("11.22.33.2", 8443)}
lock = threading.Lock()
def say(where, data):
    for each in mark.findall(data):
        with lock:
            print(where, each.decode(), file=canary)
def accept(where, server):
    while True:
        client, _ = server.accept()
        threading.Thread(target=drain, args=(where, client), daemon=True).start()
def drain(where, client):
    with contextlib.suppress(OSError), client:
        client.settimeout(10)
        held = b""
        while data := client.recv(4096):
            held += data
        say(where, held)
def receive(where, sock):
    while True:
        say(where, sock.recv(4096))
def pipe(where, path):
    os.mkfifo(path)
    file = os.open(path, os.O_RDWR)
    while True:
        say(where, os.read(file, 4096))
def queue(where, number):
    held = ctypes.create_string_buffer(4096)
    while (size := libc.msgrcv(number, held, 4000, 0, 0)) > 0:
        say(where, held.raw[8 : 8 + size])
def places(head):
    # Every place that some reader could take the target for: by line, by Host, behind a user part, unescaped, folded, cut at a NUL.
    for token in re.split(r"\s+", head.decode("utf-8", "replace")):
        token = re.split(r"[/\\\\?#]", re.sub(r"^[a-z]+://", "", token))[0].rpartition("@")[2]
        token = unicodedata.normalize("NFKC", unquote(token))
        token = re.sub("\0.*?(?=:|$)", "", token)
        host, colon, port = token.rpartition(":") if re.search(r":[0-9]+$", token) else (token, "", "80")
        host = host.strip("[]").rstrip(".")
        if not re.search(r"\.test$|^[0-9]+\.[0-9.]+$|:", host) and not colon:
            continue
        with contextlib.suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[:1]:
                yield address[:2]
def proxy(server):
    while True:
        client, _ = server.accept()
        threading.Thread(target=proxied, args=(client,), daemon=True).start()
def proxied(client):
    with contextlib.suppress(OSError, StopIteration), client:
        client.settimeout(5)
        head = client.recv(65536)
        found = list(places(head))
        place = next((each for each in found if each not in public), None) or next(iter(found))
        with socket.create_connection(place, 3) as upstream:
            if head.startswith(b"CONNECT"):
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            upstream.sendall(head)
            other = threading.Thread(target=moved, args=(upstream, client), daemon=True)
            other.start()
            moved(client, upstream)
            other.join(3)
def moved(source, sink):
    with contextlib.suppress(OSError):
        source.settimeout(2)
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs(drop, exist_ok=True)
threads = [(pipe, "pipe", drop + "/pipe"), (queue, "message queue", libc.msgget(0x6D6F6F72, 0o1666))]
for host, port in (("127.0.0.1", 80), ("0.0.0.0", 7777)):
    threads.append((accept, f"near {host}", socket.create_server((host, port), backlog=128)))
threads.append((accept, "near ::1", socket.create_server(("::1", 7777), family=socket.AF_INET6)))
for where, kind, address in (("abstract", socket.SOCK_STREAM, "\0way-out-canary"), ("datagrams", socket.SOCK_DGRAM, "\0way-out-canary-2"),
                             ("socket", socket.SOCK_STREAM, drop + "/socket")):
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(address)
    if kind == socket.SOCK_STREAM:
        sock.listen()
    threads.append((accept if kind == socket.SOCK_STREAM else receive, where, sock))
os.chmod(drop + "/socket", 0o777)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 7777))
threads.append((receive, "near udp", udp))
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 2)
netlink.bind((7777, 0))
threads.append((receive, "netlink", netlink))
naive = socket.create_server(("127.0.0.1", 0), backlog=128)
for target, *arguments in threads:
    threading.Thread(target=target, args=arguments, daemon=True).start()
threading.Thread(target=proxy, args=(naive,), daemon=True).start()
print("naive", naive.getsockname()[1], file=canary)
threading.Event().wait()
"""


@dataclass
class Outside:
    """The platform inside its namespace, its hostile agent, and what the other side noted. `near` is the process that holds the namespace,
    `drop` a folder of the near side, `naive` the port of the proxy that decides nothing."""

    platform: Platform
    tell: Callable[..., Any]
    log: Path
    canary: Path
    near: int
    drop: Path
    naive: int

    def heard(self) -> list[str]:
        """Lines of the server since it was ready."""
        return self.log.read_text().splitlines()[1:]

    def marked(self) -> list[tuple[str, str]]:
        """(where, marker) of every marker that was seen on the wire or on the near side."""
        found = [tuple(line.rsplit(" ", 1)) for line in self.canary.read_text().splitlines() if line[:5] != "naive"]
        for path in [*self.drop.iterdir(), *Path(f"/proc/{self.near}/root", "dev/shm").iterdir()]:
            if path.is_file():
                found += [
                    (f"file {path.name}", each) for each in re.findall(MARK, f"{path.name} {path.read_text('latin-1')}")
                ]
        return [(where, marker) for where, marker in found]

    def settled(self, name: str) -> None:
        """Returns when all that was sent before is noted: a marker of our own, sent last, is seen on the wire and on the near side."""
        code = f"""
import socket
said = b"mark-0-{name}-end"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(said, ("11.22.33.2", 9999))
with socket.create_connection(("127.0.0.1", 7777), 5) as sock:
    sock.sendall(said)
"""
        subprocess.run([*within(self.near), sys.executable, "-c", code], check=True, timeout=20)
        poll("all is noted", lambda: sum(marker == f"mark-0-{name}-end" for _, marker in self.marked()) == 2)


def why_not() -> str | None:
    """Why this machine cannot make the namespaces, None when it can."""
    if os.getuid() != 0:
        return "network namespaces with a wire between them need root"
    for tool in ("ip", "unshare", "nsenter", "mount"):
        if shutil.which(tool) is None:
            return f"there is no '{tool}' on this machine"
    if not Path("/proc/net/if_inet6").exists():
        return "this machine has no IPv6"
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
    return ("nsenter", "--target", str(pid), "--net", "--mount", "--ipc", "--")


def wire(near: int, far: int, scratch: Path) -> None:
    """Joins the two networks and gives the near side its hosts file and its resolver, which answers nothing."""
    for pid, command in (
        (near, f"ip link add near type veth peer name far netns {far}"),
        (near, "ip link set lo up"),
        (near, "ip addr add 11.22.33.1/24 dev near"),
        (near, "ip addr add 10.9.8.1/24 dev near"),
        (near, "ip link set near up"),
        (near, "ip -6 addr add 2606:4700:aa::1/64 dev near nodad"),
        (near, "ip route add 169.254.169.254/32 dev near"),
        (far, "ip link set lo up"),
        (far, "ip addr add 11.22.33.2/24 dev far"),
        (far, "ip addr add 10.9.8.2/24 dev far"),
        (far, "ip addr add 11.22.33.3/24 dev far"),
        (far, "ip addr add 1.1.1.1/32 dev far"),
        (far, "ip addr add 169.254.169.254/32 dev far"),
        (far, "ip -6 addr add 2606:4700:aa::2/64 dev far nodad"),
        (far, "ip -6 addr add 2606:4700:aa::3/64 dev far nodad"),
        (far, "ip -6 addr add fe80::7/64 dev far nodad"),
        (far, "ip link set far up"),
        (near, "ip route add default via 11.22.33.2"),
        (near, "ip -6 route add default via 2606:4700:aa::2"),
    ):
        subprocess.run([*within(pid), *command.split()], check=True)
    for name, text in (("hosts", HOSTS), ("resolv.conf", RESOLV)):
        (scratch / name).write_text(text)
        place = os.path.realpath(f"/etc/{name}")
        subprocess.run([*within(near), "mount", "--bind", str(scratch / name), place], check=True)
    # Shared memory of its own, too: the machine's is another worker's as well, with markers of the same names.
    subprocess.run([*within(near), "mount", "-t", "tmpfs", "-o", "mode=1777", "near", "/dev/shm"], check=True)


def enter(pid: int) -> None:
    """Moves the calling thread into the network of that process."""
    with open(f"/proc/{pid}/ns/net") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def joined(agents: Path, scratch: Path) -> Iterator[Outside]:
    """The two networks, with a platform that serves these agents."""
    near, far = holder("--mount", "--ipc", "--propagation", "private"), holder()
    servers: list[subprocess.Popen[bytes]] = []
    try:
        wire(near.pid, far.pid, scratch)
        log, canary, drop = scratch / "heard", scratch / "canary", scratch / "drop"
        for path in (log, canary):
            path.touch()
        servers.append(subprocess.Popen([*within(far.pid), sys.executable, "-c", FAR, str(log), str(canary), MARK]))
        servers.append(subprocess.Popen([*within(near.pid), sys.executable, "-c", NEAR, str(canary), str(drop), MARK]))
        poll("the server outside is ready", lambda: "ready" in log.read_text())
        naive = poll("the near side is ready", lambda: re.search("naive ([0-9]+)\n", canary.read_text()))
        with (
            started(agents, prefix=within(near.pid)) as platform,
            ThreadPoolExecutor(1, initializer=enter, initargs=(near.pid,)) as pool,
        ):
            door = HttpDoor(platform.url, platform.api_key)
            prober = Prober(door)
            yield Outside(
                platform,
                lambda *told: pool.submit(prober.tell, *told).result(120),
                log,
                canary,
                near.pid,
                drop,
                int(naive[1]),
            )
            pool.submit(door.close).result(5)
    finally:
        for process in (*servers, near, far):
            process.kill()
            process.wait(timeout=10)
