"""The shape of a scripted server: HTTP on a socket of its own, a thread a connection. What it answers is each server's own."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 60.0
"""The longest that an answer waits for what a test says."""


class ScriptedServer:
    """It serves from the moment that it is made: what it is made of is set before."""

    def __init__(self, handler: type[Handler], host: str = "127.0.0.1", port: int = 0) -> None:
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def named(self) -> str:
        """As `allowedUpstreams` names it."""
        return f"{self._server.server_address[0]!s}:{self.port}"

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://{self.named}"

    def close(self) -> None:
        """Ends it. Who waits in an answer is let go of by the server that made it wait."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=10)


class GatedServer(ScriptedServer):
    """One whose answers wait for gates, which have names."""

    def __init__(self, handler: type[Handler], host: str = "127.0.0.1", port: int = 0) -> None:
        self._gates: dict[str, threading.Event] = {}
        super().__init__(handler, host, port)

    def gate(self, name: str) -> threading.Event:
        """What a text of that name waits for."""
        with self._lock:
            return self._gates.setdefault(name, threading.Event())

    def release(self, name: str) -> None:
        """Lets it go on."""
        self.gate(name).set()

    def close(self) -> None:
        """Ends it, and lets go of whoever waits."""
        for gate in list(self._gates.values()):
            gate.set()
        super().close()


class Handler(BaseHTTPRequestHandler):
    """Reads a request's body and headers, and writes answers; it prints nothing."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def body(self) -> bytes:
        """The whole of it."""
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def lowered(self) -> dict[str, str]:
        """The headers, by their names in lower case."""
        return {name.lower(): value for name, value in self.headers.items()}

    def answer(self, status: int, data: bytes = b"", *, cut: bool = False, **headers: str) -> None:
        """A whole answer, `content_type` among its headers; or, `cut`, half of it, and the connection's end."""
        self.send_response(status)
        for name, each in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), each)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def answer_json(self, status: int, value: Any, **headers: str) -> None:
        """A value as JSON."""
        self.answer(status, json.dumps(value).encode(), content_type="application/json", **headers)

    def redirect(self, url: str) -> None:
        """Sends the same request elsewhere."""
        self.answer(307, location=url)

    def stream(self) -> None:
        """The head of an event stream; `piece` by `piece` it goes on until `streamed`."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def piece(self, data: bytes) -> None:
        """A chunk, at once."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def streamed(self) -> None:
        """The stream's end."""
        self.wfile.write(b"0\r\n\r\n")
