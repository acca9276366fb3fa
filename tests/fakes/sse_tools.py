"""A scripted MCP server over the older transport, HTTP with SSE (2024-11-05): a stream to hear on, a place to post to.

Limits: one process, a thread a connection; one tool, `add`, whose `text` steers a call:

    hang        ran, then no answer for as long as it is served
    end         ran, then ends its stream
    big N       N bytes of text
    status N    ran, and answers the POST with the HTTP status N
    leak        its own headers as text
    refuse      a JSON-RPC error
"""

from __future__ import annotations

import contextlib
import json
import queue
import uuid
from typing import Any

from fakes.scripted_server import WAIT_S, Handler, ScriptedServer

TOOL = {"name": "add", "description": "adds", "inputSchema": {"type": "object"}}


class SseTools(ScriptedServer):
    """The server; `url` is the one of its stream."""

    def __init__(self) -> None:
        self.posted_to = "/messages?session="
        """What it says of the place to post to, before the stream's id."""
        self.stream_status = 200
        self.stream_type = "text/event-stream"
        self.ran: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.streams: dict[str, queue.SimpleQueue[bytes | None]] = {}
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        """The stream's URL."""
        return f"http://{self.named}/sse"

    def close(self) -> None:
        """Ends it, and every stream."""
        for stream in list(self.streams.values()):
            stream.put(None)
        super().close()


def serving() -> contextlib.closing[SseTools]:
    """A server for as long as the context lasts."""
    return contextlib.closing(SseTools())


def _handler(tools: SseTools) -> type[Handler]:
    class Streaming(Handler):
        def do_GET(self) -> None:
            self.close_connection = True
            self.send_response(tools.stream_status)
            self.send_header("content-type", tools.stream_type)
            self.send_header("connection", "close")
            self.end_headers()
            if tools.stream_status != 200:
                return
            name, stream = uuid.uuid4().hex, queue.SimpleQueue[bytes | None]()
            tools.streams[name] = stream
            stream.put(b": hello\r\n\r\nevent: endpoint\r\ndata: %b\r\n\r\n" % (tools.posted_to + name).encode())
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, queue.Empty):
                while (event := stream.get(timeout=WAIT_S)) is not None:
                    for part in (event[:9], event[9:]):
                        self.wfile.write(part)
                        self.wfile.flush()

        def do_POST(self) -> None:
            said = json.loads(self.body())
            stream = tools.streams[self.path.partition("=")[2]]
            tools.headers.append(self.lowered())
            status = self._said(stream, said)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.answer(status)

        def _said(self, stream: queue.SimpleQueue[bytes | None], said: dict[str, Any]) -> int:
            """What it does with a message: the HTTP status."""
            answer: dict[str, Any] = {"jsonrpc": "2.0", "id": said.get("id")}
            match said["method"]:
                case "initialize":
                    answer["result"] = {
                        "protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {"name": "f", "version": "1"},
                    }  # fmt: skip
                case "tools/list":
                    answer["result"] = {"tools": [TOOL]}
                case "tools/call":
                    text = str(said["params"]["arguments"]["text"])
                    tools.ran.append(text)
                    told = json.dumps(tools.headers[-1]) if text == "leak" else f"add {len(tools.ran)}: {text}"
                    answer["result"] = {"content": [{"type": "text", "text": told}], "isError": False}
                    word, _, rest = text.partition(" ")
                    if word in ("hang", "end", "status"):
                        if word == "end":
                            stream.put(None)
                        return int(rest) if word == "status" else 202
                    if word == "big":
                        answer["result"]["content"][0]["text"] = "x" * int(rest)
                    elif word == "refuse":
                        del answer["result"]
                        answer["error"] = {"code": -32000, "message": "not today"}
                case _:
                    return 202
            other = {
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": 1, "progress": 1},
            }
            for message in (other, {**answer, "method": "ping"} if "error" not in answer else other, answer):
                stream.put(b"event: message\ndata: %b\n\n" % json.dumps(message).encode())
            return 202

    return Streaming
