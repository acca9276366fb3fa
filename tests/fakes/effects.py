"""A server whose every `POST /post` is an effect: it counts them by key, and says of a key whether it is there.

`watch`, where it is set, is called with ("asked", key) before a post is counted and ("answered", key) after its answer was written; a post
of which it says "lost" is not counted, and not answered. `looked` counts who asked whether a key is there. Limits: one process, a
thread a connection.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Effects:
    """The server. `counts`: how often each key was posted."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.counts: Counter[str] = Counter()
        self.looked: Counter[str] = Counter()
        self.watch: Callable[[str, str], Any] | None = None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Without a path."""
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def post(self, key: str) -> bool:
        """Counts one, unless it is lost."""
        if self.see("asked", key) == "lost":
            return False
        with self._lock:
            self.counts[key] += 1
        return True

    def look(self, key: str) -> bool:
        """Whether it was posted."""
        with self._lock:
            self.looked[key] += 1
            return self.counts[key] > 0

    def see(self, edge: str, key: str) -> Any:
        """Tells whoever watches."""
        return self.watch(edge, key) if self.watch is not None else None

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


def _handler(effects: Effects) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            return

        def do_GET(self) -> None:
            self._say({"found": effects.look(self.path.rpartition("/")[2])})

        def do_POST(self) -> None:
            key = str(json.loads(self.rfile.read(int(self.headers["content-length"])))["key"])
            if not effects.post(key):
                self.close_connection = True
                return
            with contextlib.suppress(OSError):
                self._say({"posted": key})
            effects.see("answered", key)

        def _say(self, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextlib.contextmanager
def counting() -> Iterator[Effects]:
    """A server for as long as the context lasts."""
    made = Effects()
    try:
        yield made
    finally:
        made.close()
