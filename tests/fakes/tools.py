"""A scripted MCP server over streamable HTTP, good and bad: counts what it ran, and behaves as its arguments say.

Limits: tools only; JSON answers, or an event stream for `stream`; one process, a thread a connection; no checks of what it is sent. `era`:
`new` (2026-07-28), `old` (handshake with a session id). Its tools are `tools`; each takes a `text`, which steers a call:

    pause NAME      ran, then waits until `release(NAME)`
    hang            ran, then no answer for as long as it is served
    big N           N bytes of text
    cut             ran, then breaks off in the middle of its answer
    status N        ran, then answers the HTTP status N
    declines N      the same, with a JSON-RPC error under the call's own id
    redirect URL    ran, then redirects there
    stream          answers as an event stream, with a progress event and a request of its own before
    garbage         no JSON
    none            JSON-RPC without a result
    deep            a result nested 300 levels deep
    pages           (a list) a further page, without end
    lies            a result that is no tool's
    asks            asks for input of a person
    leak            its own headers as text
    refuse          a JSON-RPC error

Where `posts` is set, a call with a `key` is a post of it there, and says so: `posted KEY`; of a tool `is_there` it is a look: `found KEY`,
`missing KEY`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from typing import Any

from fakes.effects import Effects
from fakes.scripted_server import WAIT_S, GatedServer, Handler

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


class Tools(GatedServer):
    """The server; `url` is what a manifest's `mcp.url` says."""

    def __init__(self, era: str = "new", host: str = "127.0.0.1") -> None:
        self.era = era
        self.tools: list[Any] = [
            {"name": name, "description": f"{name} a text", "inputSchema": SCHEMA} for name in ("add", "get_one", "put")
        ]
        self.ran: list[dict[str, Any]] = []
        self.methods: list[str] = []
        self.listing = ""
        """Steers `tools/list` as a text steers a call."""
        self.deaf = False
        """Whether it never answers a method that it does not know."""
        self.forgets = 404
        """What it says to a session that it does not know."""
        self.sessions: set[str] = set()
        self.meeting: threading.Barrier | None = None
        """Where those who begin a session wait for each other."""
        self.numbers: list[Any] = []
        """The ids of calls."""
        self.posts: Effects | None = None
        self.tokens: set[str] | None = None
        """Bearer tokens that are accepted; None: everybody is."""
        self.narrow = False
        """Whether it finds too few scopes in each."""
        self.title = ""
        """What it calls itself in its answer to a handshake."""
        super().__init__(_handler(self), host)

    @property
    def url(self) -> str:
        """Its one URL."""
        return f"http://{self.named}/mcp"

    def note(self, entry: dict[str, Any]) -> int:
        """Keeps a call that was run; its number, from 1."""
        with self._lock:
            self.ran.append(entry)
            return len(self.ran)

    def times(self, text: str) -> int:
        """How often a tool was run with exactly this text."""
        with self._lock:
            return sum(1 for each in self.ran if each["arguments"].get("text") == text)

    def close(self) -> None:
        """Ends it, and lets go of whoever waits."""
        self.release("hang")
        super().close()


def serving(era: str = "new", host: str = "127.0.0.1") -> contextlib.closing[Tools]:
    """A server for as long as the context lasts."""
    return contextlib.closing(Tools(era, host))


def _handler(tools: Tools) -> type[Handler]:
    class Running(Handler):
        def do_GET(self) -> None:
            tools.note({"tool": "GET", "arguments": {"text": self.path}, "meta": {}, "headers": {}})
            self.answer_json(405, {})

        def do_DELETE(self) -> None:
            tools.sessions.discard(str(self.headers.get("mcp-session-id")))
            self.answer_json(200, {})

        def do_POST(self) -> None:
            said = json.loads(self.body())
            method, number = said.get("method"), said.get("id")
            tools.methods.append(method)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if tools.tokens is not None and str(self.headers.get("authorization"))[7:] not in tools.tokens:
                    self.answer_json(401, {"error": "invalid_token"})
                elif tools.narrow:
                    challenge = 'Bearer realm="tools", error="insufficient_scope", scope="tickets.write"'
                    self.answer_json(403, {"error": "insufficient_scope"}, www_authenticate=challenge)
                elif number is None:
                    self.answer(202, content_type="application/json")
                elif tools.deaf and method == "server/discover":
                    self._behave(number, "hang", {})
                elif tools.era == "old" and method not in ("initialize",) and self._session() not in tools.sessions:
                    error = {"code": -32600, "message": "Bad Request: Missing session ID"}
                    known = self._session() != "None"
                    self.answer_json(tools.forgets if known else 400, {"jsonrpc": "2.0", "id": None, "error": error})
                else:
                    self._answered(number, method, said.get("params", {}))

        def _session(self) -> str:
            return str(self.headers.get("mcp-session-id"))

        def _answered(self, number: Any, method: str, params: dict[str, Any]) -> None:
            match method:
                case "initialize" if tools.era == "old":
                    if tools.meeting is not None:
                        tools.meeting.wait(WAIT_S)
                    session = uuid.uuid4().hex
                    tools.sessions.add(session)
                    found = {
                        "protocolVersion": "2025-11-25",
                        "capabilities": {"tools": {}},
                        "serverInfo": {"name": "f", "version": "1", "title": tools.title},
                    }
                    self.answer_json(200, {"jsonrpc": "2.0", "id": number, "result": found}, mcp_session_id=session)
                case "server/discover" if tools.era == "new":
                    found = {
                        "supportedVersions": ["2026-07-28"],
                        "capabilities": {"tools": {}},
                        "resultType": "complete",
                        "_meta": {
                            "io.modelcontextprotocol/serverInfo": {"name": "f", "version": "1", "title": tools.title}
                        },
                    }
                    self.answer_json(200, {"jsonrpc": "2.0", "id": number, "result": found})
                case "tools/list":
                    self._behave(number, tools.listing, {"tools": tools.tools})
                case "tools/call":
                    tools.numbers.append(number)
                    headers = self.lowered()
                    arguments = params.get("arguments") or {}
                    entry = {
                        "tool": params["name"],
                        "arguments": arguments,
                        "meta": params.get("_meta", {}),
                        "headers": headers,
                    }
                    count, text = tools.note(entry), str(arguments.get("text", ""))
                    told, key = f"{params['name']} {count}: {text}", str(arguments.get("key", ""))
                    posts = tools.posts if key else None
                    if posts is not None and params["name"] == "is_there":
                        told, posts = f"{'found' if posts.look(key) else 'missing'} {key}", None
                    if posts is not None:
                        if not posts.post(key):
                            self.close_connection = True
                            return
                        told = f"posted {key}"
                    if text == "leak":
                        told = json.dumps(headers)
                    with contextlib.suppress(OSError):
                        self._behave(number, text, {"content": [{"type": "text", "text": told}], "isError": False})
                    if posts is not None:
                        posts.see("answered", key)
                case _:
                    error = {"code": -32601, "message": "Method not found"}
                    self.answer_json(
                        404 if tools.era == "new" else 200, {"jsonrpc": "2.0", "id": number, "error": error}
                    )

        def _behave(self, number: Any, text: str, result: dict[str, Any]) -> None:
            word, _, rest = text.partition(" ")
            whole = {"jsonrpc": "2.0", "id": number, "result": {**result, "resultType": "complete"}}
            match word:
                case "pause":
                    tools.gate(rest).wait(WAIT_S)
                case "hang":
                    tools.gate("hang").wait(WAIT_S)
                    self.close_connection = True
                    return
                case "big":
                    whole["result"]["content"] = [{"type": "text", "text": "x" * int(rest)}]
                case "status":
                    self.answer_json(int(rest), {"error": "told to"})
                    return
                case "declines":
                    error = {"code": -32000, "message": "no such project"}
                    self.answer_json(int(rest), {"jsonrpc": "2.0", "id": number, "error": error})
                    return
                case "redirect":
                    self.redirect(rest)
                    return
                case "none":
                    del whole["result"]
                case "deep":
                    whole["result"]["structuredContent"] = json.loads('{"a":' * 300 + "1" + "}" * 300)
                case "pages":
                    whole["result"]["nextCursor"] = "more"
                case "lies":
                    whole["result"] = {"content": "no list", "isError": "no"}
                case "asks":
                    whole["result"] = {"resultType": "input_required", "inputRequests": {}, "requestState": "s"}
                case "refuse":
                    del whole["result"]
                    whole["error"] = {"code": -32000, "message": "not today"}
                case "stream":
                    self._stream(whole)
                    return
            data = b"<html>" if word == "garbage" else json.dumps(whole).encode()
            self.answer(200, data, cut=word == "cut", content_type="application/json")

        def _stream(self, whole: dict[str, Any]) -> None:
            self.stream()
            progress = {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": 1, "progress": 0.5},
            }
            request = {"jsonrpc": "2.0", "id": whole["id"], "method": "ping"}
            for message in (progress, request, whole):
                event = b": a comment\r\nevent: message\r\ndata: %b\r\n\r\n" % json.dumps(message).encode()
                for part in (event[:20], event[20:]):
                    self.piece(part)
            self.streamed()

    return Running
