"""A way to the platform that breaks as it is told: the first connections are cut once the request arrived, later ones pass."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

WAIT_S = 30.0


@dataclass
class Cutter:
    """`requests` holds the heads that were forwarded, in order. `accepted` is asked before a cut: True lets it happen."""

    url: str
    cuts: int
    accepted: Callable[[], bool]
    requests: list[bytes] = field(default_factory=list)


@contextlib.contextmanager
def cutting(url: str, *, cuts: int, accepted: Callable[[], bool]) -> Iterator[Cutter]:
    """A cutter before `url`: each of the first `cuts` connections ends, unanswered, when `accepted` says that its turn is there."""
    where = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    cutter = Cutter(f"http://127.0.0.1:{listener.getsockname()[1]}", cuts, accepted)
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((where.hostname, where.port), timeout=WAIT_S)
            cut = cutter.cuts > 0
            cutter.cuts -= 1
            for work in (
                lambda n=near, f=far: _forward(cutter, n, f),
                lambda n=near, f=far, c=cut: _back(cutter, n, f, c),
            ):
                threads.append(threading.Thread(target=work))
                threads[-1].start()

    server = threading.Thread(target=serve)
    server.start()
    try:
        yield cutter
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        server.join()
        for thread in threads:
            thread.join()


def _forward(cutter: Cutter, near: socket.socket, far: socket.socket) -> None:
    first = True
    with contextlib.suppress(OSError):
        while data := near.recv(65536):
            if first:
                cutter.requests.append(data)
                first = False
            far.sendall(data)
    with contextlib.suppress(OSError):
        far.shutdown(socket.SHUT_WR)


def _back(cutter: Cutter, near: socket.socket, far: socket.socket, cut: bool) -> None:
    with contextlib.suppress(OSError), near, far:
        if cut:
            waited = threading.Event()
            for _ in range(int(WAIT_S / 0.02)):
                if cutter.accepted() or waited.wait(0.02):
                    break
            for one in (near, far):
                one.shutdown(socket.SHUT_RDWR)
            return
        while data := far.recv(65536):
            near.sendall(data)
        near.shutdown(socket.SHUT_WR)
