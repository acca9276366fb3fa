"""A scripted server of models, as OpenAI, Azure and Anthropic speak: counts what it was asked, and answers by what the prompt says.

Limits: chat completions, Responses and messages only; one process, a thread a connection; tools only as `model_tools` says, no checks of a
body's shape. Every answer carries a counter, so that a question asked twice shows, and counts 11 tokens in, of which 3 are cached, and one
a word out; a streamed chat completion only where it is asked to, and of what it says twice the last counts. The last text of a request
steers it, unless `script` reads another out of the whole request, and the calls of tools that are made (a NAME is of letters, digits and
`-`, so that one ends where a text says it within JSON):

    pause NAME        waits, before its head, until `release(NAME)`
    hold NAME         sends the first half, then waits until `release(NAME)`
    cut               sends the first half and breaks off
    fail STATUS N     answers STATUS, the first N times it is asked this
    slow MS           so many ms between two pieces of a stream
    leak              says every header that it was sent in its words, and in two of its own headers; a stream's pieces are of 7 bytes

`watch`, where it is set, is called with ("asked", text) before a request is handled and ("answered", text) after its answer was written.
`asked` is read through `GET /asked`, so that another process may run it (`python -m fakes.models PORT`).
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from fakes import model_tools
from fakes.scripted_server import WAIT_S, GatedServer, Handler

INPUT = 11
CACHED = 3


class Models(GatedServer):
    """The server; `url` is what a manifest's `baseUrl` begins with."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.asked: list[dict[str, Any]] = []
        self.watch: Callable[[str, str], Any] | None = None
        self.script: Callable[[dict[str, Any]], tuple[str, str] | None] | None = None
        super().__init__(_handler(self), host, port)

    def note(self, entry: dict[str, Any]) -> int:
        """Keeps what was asked; its number, from 1."""
        with self._lock:
            self.asked.append(entry)
            return len(self.asked)

    def see(self, edge: str, text: str) -> None:
        """Tells whoever watches."""
        if self.watch is not None:
            self.watch(edge, text)

    def numbers(self, text: str) -> list[int]:
        """The numbers of the requests with exactly this last text."""
        with self._lock:
            return [n for n, each in enumerate(self.asked, 1) if each["text"] == text]

    def times(self, text: str) -> int:
        """How often a request with exactly this last text came."""
        with self._lock:
            return sum(1 for each in self.asked if each["text"] == text)


def serving(port: int = 0, host: str = "127.0.0.1") -> contextlib.closing[Models]:
    """A server for as long as the context lasts."""
    return contextlib.closing(Models(port, host))


def _text(body: dict[str, Any]) -> str:
    """The last text of whichever protocol's request."""
    said = body.get("input", body.get("messages", ""))
    while isinstance(said, list):
        said = said[-1] if said else ""
    while isinstance(said, dict):
        said = said.get("content", said.get("text", said.get("output", "")))
        if isinstance(said, list):
            said = said[-1] if said else ""
    return str(said)


def _handler(models: Models) -> type[Handler]:
    class Speaking(Handler):
        def do_GET(self) -> None:
            if self.path == "/asked":
                self.answer_json(200, {"asked": models.asked})
            elif self.path.startswith("/release/"):
                models.release(self.path.removeprefix("/release/"))
                self.answer_json(200, {})
            elif self.path == "/redirected":
                self.answer_json(200, {"object": "list", "data": ["never"]})
            else:
                models.note({"path": self.path, "text": "", "headers": dict(self.headers.items()), "body": None})
                self.answer_json(200, {"object": "list", "data": [{"id": "m-1", "object": "model"}]})

        def do_POST(self) -> None:
            body = json.loads(self.body())
            text, order = (models.script(body) if models.script else None) or (_text(body),) * 2
            before = models.times(text)
            headers = self.lowered()
            number = models.note({"path": self.path, "text": text, "headers": headers, "body": body})
            models.see("asked", text)
            if text.startswith("leak"):
                self._leak(text, body, number, " ".join(headers.values()))
                return
            if found := re.search(r"fail (\d+) (\d+)", text):
                if before < int(found[2]):
                    self.answer_json(int(found[1]), {"error": {"message": "told to fail", "type": "x"}}, **_after(text))
                    return
            if "redirect" in text:
                self.redirect(f"{models.url}/redirected")
                return
            calls = model_tools.asked(order, body, number)
            if not calls and (found := re.search(r"pause ([\w-]+)", text)):
                models.gate(found[1]).wait(WAIT_S)
            words = f"answer {number} to {text}".split(" ")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if calls and body.get("stream"):
                    self._stream(model_tools.events(self.path, body, number, calls), text)
                elif calls:
                    self.answer_json(200, model_tools.answer(self.path, body, number, calls))
                elif body.get("stream"):
                    self._stream(_events(self.path, body, number, words), text)
                elif "cut" in text:
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", "500")
                    self.end_headers()
                    self.wfile.write(b'{"id": "half')
                    self.close_connection = True
                else:
                    self.answer_json(200, _answer(self.path, body, number, " ".join(words)))
            models.see("answered", text)

        def _leak(self, text: str, body: dict[str, Any], number: int, said: str) -> None:
            found = re.search(r"fail (\d+)", text)
            if found:
                also = {"x_request_id": said, "openai_organization": said}
                self.answer_json(int(found[1]), {"error": {"message": f"wrong: {said}", "type": "x"}}, **also)
            elif body.get("stream"):
                whole = b"".join(_events(self.path, body, number, [said]))
                self._stream([whole[at : at + 7] for at in range(0, len(whole), 7)], "")
            else:
                self.answer_json(200, _answer(self.path, body, number, said), x_request_id=said)

        def _stream(self, events: list[bytes], text: str) -> None:
            self.stream()
            pace = int(found[1]) / 1000 if (found := re.search(r"slow (\d+)", text)) else 0.0
            for n, event in enumerate(events):
                if n == len(events) // 2:
                    if found := re.search(r"hold ([\w-]+)", text):
                        models.gate(found[1]).wait(WAIT_S)
                    if "cut" in text:
                        self.close_connection = True
                        return
                self.piece(event)
                if pace:
                    time.sleep(pace)
            self.streamed()

    return Speaking


def _after(text: str) -> dict[str, str]:
    found = re.search(r"after (\d+)", text)
    return {"retry_after": found[1]} if found else {}


def _answer(path: str, body: dict[str, Any], number: int, text: str) -> dict[str, Any]:
    model = body.get("model", "deployed")
    if "messages" in path and "anthropic" not in path and path.endswith("/v1/messages"):
        usage = {"input_tokens": 6, "output_tokens": _words(text)}
        usage |= {"cache_read_input_tokens": CACHED, "cache_creation_input_tokens": 2}
        return {
            "id": f"msg_{number}", "type": "message", "role": "assistant", "model": model, "stop_reason": "end_turn",
            "stop_sequence": None, "content": [{"type": "text", "text": text}], "usage": usage,
        }  # fmt: skip
    if "/responses" in path:
        message = {
            "type": "message", "id": f"msg_{number}", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }  # fmt: skip
        return {
            "id": f"resp_{number}", "object": "response", "created_at": 1, "model": model, "status": "completed", "output": [message],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": {
                "input_tokens": INPUT, "output_tokens": _words(text), "total_tokens": INPUT + _words(text),
                "input_tokens_details": {"cached_tokens": CACHED}, "output_tokens_details": {"reasoning_tokens": 0},
            },
        }  # fmt: skip
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": model, "choices": [choice], "usage": _counts(text),
    }  # fmt: skip


def _words(text: str) -> int:
    return len(text.split())


def _counts(text: str) -> dict[str, Any]:
    """Of a chat completion."""
    output = _words(text)
    details = {"cached_tokens": CACHED}
    return {
        "prompt_tokens": INPUT,
        "completion_tokens": output,
        "total_tokens": INPUT + output,
        "prompt_tokens_details": details,
    }


def _events(path: str, body: dict[str, Any], number: int, words: list[str]) -> list[bytes]:
    def named(kind: str, **value: Any) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **value}).encode())

    if path.endswith("/v1/messages"):
        message = _answer(path, body, number, "") | {"content": [], "stop_reason": None}
        texts = [
            named("content_block_delta", index=0, delta={"type": "text_delta", "text": f"{word} "}) for word in words
        ]
        return [
            named("message_start", message=message),
            named("content_block_start", index=0, content_block={"type": "text", "text": ""}),
            *texts,
            named("content_block_stop", index=0),
            named(
                "message_delta",
                delta={"stop_reason": "end_turn", "stop_sequence": None},
                usage={"output_tokens": len(words)},
            ),
            named("message_stop"),
        ]
    if "/responses" in path:
        whole = _answer(path, body, number, " ".join(words) + " ")
        item = whole["output"][0]
        base = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        events: list[tuple[str, dict[str, Any]]] = [
            ("response.created", {"response": whole | {"status": "in_progress", "output": []}}),
            (
                "response.output_item.added",
                {"output_index": 0, "item": item | {"content": [], "status": "in_progress"}},
            ),
            ("response.content_part.added", {**base, "part": {"type": "output_text", "text": "", "annotations": []}}),
            *[("response.output_text.delta", {**base, "delta": f"{word} ", "logprobs": []}) for word in words],
            ("response.output_text.done", {**base, "text": item["content"][0]["text"], "logprobs": []}),
            ("response.content_part.done", {**base, "part": item["content"][0]}),
            ("response.output_item.done", {"output_index": 0, "item": item}),
            ("response.completed", {"response": whole}),
        ]
        return [named(kind, sequence_number=n, **value) for n, (kind, value) in enumerate(events)]

    counts = (body.get("stream_options") or {}).get("include_usage") is True

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        value = {
            "id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": body.get("model", "deployed"),
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **({"usage": None} if counts else {}),
        }  # fmt: skip
        return b"data: %b\n\n" % json.dumps(value).encode()

    texts = [chunk({"content": f"{word} "}) for word in words]
    told = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion.chunk",
        "model": body.get("model", "deployed"),
        "choices": [],
    }
    told |= {"created": 1, "usage": _counts(" ".join(words))}
    last = [b"data: %b\n\n" % json.dumps(told).encode()] if counts else []
    return [chunk({"role": "assistant", "content": ""}), *texts, chunk({}, "stop"), *last, b"data: [DONE]\n\n"]


if __name__ == "__main__":
    with serving(int(sys.argv[1])) as served:
        print(served.port, flush=True)
        threading.Event().wait()
