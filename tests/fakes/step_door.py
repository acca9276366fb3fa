"""The sandbox's door as a step sees it: answers what a test put there, and keeps what was said.

Limits: one process, a thread a connection; nothing is decided here.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StepDoor:
    """`answers`: (status, body) by path, one after the other; without one the connection breaks."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.answers: dict[str, list[tuple[int, Any]]] = {"/steps/begin": [], "/steps/end": []}
        self.held: dict[str, threading.Event] = {}
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                door.said.append((self.path, body))
                if self.path in door.held:
                    door.held[self.path].wait(10)
                if not door.answers[self.path]:
                    self.close_connection = True
                    return
                status, value = door.answers[self.path].pop(0)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/steps"

    def runs(self, times: int = 1) -> None:
        """So many steps are begun, run and recorded."""
        for n in range(times):
            self.answers["/steps/begin"].append((200, {"state": "run", "step": f"mark-{n}"}))
            self.answers["/steps/end"].append((200, {"state": "recorded"}))

    def begins(self, value: Any, status: int = 200) -> None:
        """What the next `begin` is answered."""
        self.answers["/steps/begin"].append((status, value))

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


@contextlib.contextmanager
def opened() -> Iterator[StepDoor]:
    """A door for as long as the context lasts."""
    door = StepDoor()
    try:
        yield door
    finally:
        door.close()
