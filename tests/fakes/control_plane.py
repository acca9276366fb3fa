"""A platform as the CLI and the SDK's client see it, scripted by a test.

Limits: one tenant; any key passes unless `key` is set; only digests and upload offsets are checked; an agent is ready at the poll that
`ready_after` says; an answer is `script` whoever asks; no sandboxes, no turns. A connection can be cut on purpose (`cut_stream_after`,
`cut_upload_after`).
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

SESSION = "session-0001"
RESPONSE = "caresp_0123456789abcdef00" + "A" * 32


def answer_events(*deltas: str, status: str = "completed") -> list[dict[str, Any]]:
    """A short, well-formed answer."""
    response = {"id": RESPONSE, "status": "in_progress", "agent_session_id": SESSION, "output": []}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    events += [{"type": "response.output_text.delta", "delta": delta} for delta in deltas]
    events.append({"type": "response.output_item.done", "item": {"type": "message"}})
    if status == "completed":
        final = {**response, "status": status, "output": [{"type": "message", "content": [{"text": "".join(deltas)}]}]}
    else:
        final = {**response, "status": status, "error": {"message": "it broke"}}
    events.append({"type": f"response.{status}", "response": final})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


@dataclass
class Seen:
    """One request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class ControlPlane:
    """The script and what happened. All fields may be changed by the test while it runs."""

    script: list[dict[str, Any]] = field(default_factory=lambda: answer_events("Hel", "lo"))
    key: str | None = None
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    ready_after: int = 2
    cut_stream_after: int | None = None  # events of the first stream; then the connection is cut
    hold_stream_after: int | None = None  # events; then the stream stays open until `cancel`
    cut_upload_after: int | None = None  # bytes of the first piece that are kept; then the connection is cut
    chains_ok: bool = True
    parts: dict[str, str] = field(default_factory=lambda: {"redis": "ok", "store": "ok"})  # what it says of itself
    seen: list[Seen] = field(default_factory=list)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    wanted: dict[str, tuple[str, int]] = field(default_factory=dict)
    polls: int = 0
    cancelled: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def start(self) -> None:
        """Listens on a free port of loopback."""
        plane = self

        class Handler(_Handler):
            control = plane

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends every open answer and the server."""
        self.closing.set()
        self.cancelled.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def calls(self, method: str, path: str) -> list[Seen]:
        """Requests that arrived for one route."""
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    def agent(self, name: str) -> dict[str, Any]:
        """An agent as the control API shows it."""
        ready = name in self.agents and self.polls >= self.ready_after
        base = f"{self.url}/v1/agents/{name}"
        return {
            "id": name,
            "name": name,
            "ready": ready,
            "revision": "rev1",
            "revisions": [{"revision": "rev1", "weight": 100, "ready": ready}],
            "protocols": ["responses"],
            "conditions": self.conditions,
            "message": next((c["message"] for c in self.conditions if c["status"] != "True"), None),
            "url": base,
        }


class _Handler(BaseHTTPRequestHandler):
    control: ControlPlane
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        return None

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        seen = Seen(self.command, parts.path, query, headers, None)
        self.control.seen.append(seen)
        if self.command == "PATCH":
            self._append(parts.path.rsplit("/", 1)[1], headers)
            return
        raw = self.rfile.read(int(headers.get("content-length", 0)))
        seen.body = json.loads(raw) if raw else None
        if parts.path == "/readyz":
            ready = all(word == "ok" for word in self.control.parts.values())
            self._json({"status": "ready" if ready else "unready", **self.control.parts}, status=200 if ready else 503)
            return
        if self.control.key is not None and headers.get("authorization") != f"Bearer {self.control.key}":
            self._refuse(401, "invalid_api_key", "The API key is not valid.")
            return
        self._route(seen, [part for part in parts.path.split("/") if part][1:])

    def _route(self, seen: Seen, path: list[str]) -> None:
        plane = self.control
        match (seen.method, path):
            case ("GET", ["agents"]):
                self._list([plane.agent(name) for name in plane.agents])
            case ("PUT", ["agents", name]):
                plane.agents[name] = seen.body
                self._json({"name": name, "revision": "rev1", "url": f"{plane.url}/v1/agents/{name}", "warnings": []})
            case ("GET" | "DELETE", ["agents", name]) if name not in plane.agents:
                self._refuse(404, "not_found", f"There is no agent {name}.")
            case ("GET", ["agents", name]):
                plane.polls += 1
                self._json(plane.agent(name))
            case ("DELETE", ["agents", name]):
                del plane.agents[name]
                self._json({"id": name, "object": "agent.deleted", "deleted": True})
            case ("POST", ["agents", _, "bundles"]):
                self._begin(seen.body["digest"].removeprefix("sha256:"), seen.body["size"])
            case ("POST", ["agents", _, "responses"]):
                self._stream(-1)
            case ("GET", ["agents", _, "responses", response]):
                self._response(seen, response)
            case ("POST", ["agents", _, "responses", _, "cancel"]):
                plane.cancelled.set()
                self._json({"id": RESPONSE, "status": "cancelled"})
            case ("POST", ["agents", _, "responses", _, "feedback"]):
                self._json({"id": "fb1", **seen.body})
            case ("GET", ["agents", _, "responses", _, "record"]):
                self._json({"session": SESSION, "attempts": [{"number": 1, "reason": "sandbox_lost"}, {"number": 2}]})
            case _:
                self._rest(seen, path)

    def _rest(self, seen: Seen, path: list[str]) -> None:
        session = {"id": SESSION, "agent": "hello", "status": "idle", "last_accessed_at": 1, "sandbox": None}
        record = {
            "time": 1_700_000_000_000,
            "user": "u",
            "action": "agent.deploy",
            "object": "agent/hello",
            "outcome": "done",
        }
        match (seen.method, path):
            case ("GET", ["agents", _, "logs"]) | ("GET", ["sessions", _, "logs"]):
                self._events([{"time": 1, "stream": "stdout", "session": SESSION, "text": "up \x1b[31mnow"}])
            case ("GET", ["sessions"]):
                self._list([session])
            case ("GET", ["sessions", name]) | ("POST", ["sessions", name, "stop"]) if name == SESSION:
                self._json(session)
            case ("DELETE", ["sessions", name]) if name == SESSION:
                self._json({"id": name, "object": "session.deleted", "deleted": True})
            case ("POST", ["keys"]):
                self._json({"id": "k1", "key": "mk_k1_secret", **(seen.body or {})})
            case ("GET", ["keys"]):
                self._list(
                    [{"id": "k1", "name": "mine", "user": "u", "scopes": ["invoke"], "agents": None, "created_at": 1}]
                )
            case ("DELETE", ["keys", name]):
                self._json({"id": name, "revoked_at": 2})
            case ("GET", ["audit"]):
                self._list([record])
            case ("GET", ["audit", "verify"]):
                ok = self.control.chains_ok
                chain = {
                    "writer": "w",
                    "ok": ok,
                    "records": 1,
                    "problem": None if ok else "the record was altered",
                    "sequence": 1,
                }
                self._json({"ok": ok, "data": [chain]})
            case _:
                self._refuse(404, "not_found", "There is nothing at this address.")

    def _begin(self, digest: str, size: int) -> None:
        held = self.control.uploads.setdefault(digest, bytearray())
        self.control.wanted[digest] = (digest, size)
        self._json({"id": digest, "offset": len(held), "complete": len(held) == size})

    def _append(self, digest: str, headers: dict[str, str]) -> None:
        held, (_, size) = self.control.uploads[digest], self.control.wanted[digest]
        cut, self.control.cut_upload_after = self.control.cut_upload_after, None
        piece = self.rfile.read(int(headers["content-length"]) if cut is None else cut)
        if int(headers["upload-offset"]) != len(held):
            self._refuse(409, "conflict", f"The upload is at offset {len(held)}.")
            return
        held += piece
        if cut is not None:
            self.close_connection = True
            return
        if len(held) == size and hashlib.sha256(held).hexdigest() != digest:
            self._refuse(422, "unprocessable", "The bundle has another digest.")
            return
        self._json({"offset": len(held), "complete": len(held) == size}, {"upload-offset": str(len(held))})

    def _response(self, seen: Seen, response: str) -> None:
        if response != RESPONSE:
            self._refuse(404, "not_found", f"Response with id '{response}' not found.")
        elif seen.query.get("stream") == "true":
            self._stream(int(seen.query.get("starting_after", -1)))
        else:
            self._json(self.control.script[-1]["response"])

    def _stream(self, after: int) -> None:
        cut, self.control.cut_stream_after = self.control.cut_stream_after, None
        self._begin_stream()
        for count, event in enumerate(self.control.script[after + 1 :]):
            if count == cut:
                self.close_connection = True
                return
            if count == self.control.hold_stream_after:
                self.control.cancelled.wait(60)
                return
            self._chunk(b"event: x\ndata: " + json.dumps(event).encode() + b"\n\n")
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _events(self, events: list[dict[str, Any]]) -> None:
        self._begin_stream()
        for event in events:
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        self._chunk(b"")

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _list(self, data: list[dict[str, Any]]) -> None:
        self._json({"object": "list", "data": data, "has_more": False})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._json({"error": {"message": message, "type": "x", "param": None, "code": code}}, status=status)

    def _json(self, value: object, headers: dict[str, str] | None = None, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)
