"""A scripted HTTP API with its OpenAPI document and a token endpoint: counts what it carried out, and behaves as it is told.

Limits: one process, a thread a connection; no checks of what it is sent but for the bearer token. A request's `text` (a query parameter, or
a field of its JSON body) steers it:

    hang            carried out, then no answer for as long as it is served
    big N           N bytes of text
    cut             carried out, then breaks off in the middle of its answer
    status N        carried out, then answers the HTTP status N
    redirect URL    carried out, then redirects there
    leak            its own headers and path as text
    picture, bytes  an image; what is neither text nor an image
    gzip            says that its body is compressed
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fakes.scripted_server import WAIT_S, Handler, ScriptedServer

TEXT = {"name": "text", "in": "query", "schema": {"type": "string"}}
BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "Tickets", "version": "1"},
    "servers": [{"url": "http://elsewhere.invalid"}],
    "paths": {
        "/tickets": {
            "get": {"operationId": "list_tickets", "summary": "Lists tickets.", "parameters": [TEXT]},
            "post": {"operationId": "create_ticket", "summary": "Makes one.", "requestBody": BODY},
        },
        "/tickets/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
            "get": {"operationId": "get_ticket"},
            "put": {"operationId": "put_ticket", "requestBody": BODY},
        },
        "/upload": {
            "post": {"operationId": "upload", "requestBody": {"required": True, "content": {"multipart/form-data": {}}}}
        },
    },
}


class HttpApi(ScriptedServer):
    """The server; its API is below `url`, its document at `document_url`, its tokens at `token_url`."""

    def __init__(self) -> None:
        self.document: Any = DOCUMENT
        self.document_status = 200
        self.guarded = False
        """Whether the document is opened by a token, too."""
        self.documents: list[dict[str, str]] = []
        """Headers of each reading of the document."""
        self.ran: list[dict[str, Any]] = []
        self.token_requests: list[dict[str, Any]] = []
        self.token_answer: tuple[int, dict[str, Any]] | None = None
        """What the token endpoint says in place of a token."""
        self.tokens: set[str] | None = None
        """Those that are accepted; None: everybody is."""
        self.stale = 0
        """How many tokens it gives first that are not accepted."""
        self.gate = threading.Event()
        """What `hang` waits for."""
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        """The API's base."""
        return f"http://{self.named}/v1"

    @property
    def document_url(self) -> str:
        """Where the document is."""
        return f"http://{self.named}/openapi.json"

    @property
    def token_url(self) -> str:
        """Where tokens are asked for."""
        return f"http://{self.named}/token"

    def note(self, entry: dict[str, Any]) -> int:
        """Keeps a request that was carried out; its number, from 1."""
        with self._lock:
            self.ran.append(entry)
            return len(self.ran)

    def token(self, entry: dict[str, Any]) -> str:
        """Keeps a request for a token, and makes the token."""
        with self._lock:
            self.token_requests.append(entry)
            made = f"access-token-canary-{len(self.token_requests)}"
            if self.tokens is not None and len(self.token_requests) > self.stale:
                self.tokens.add(made)
            return made

    def close(self) -> None:
        """Ends it, and lets go of whoever waits."""
        self.gate.set()
        super().close()


def serving() -> contextlib.closing[HttpApi]:
    """A server for as long as the context lasts."""
    return contextlib.closing(HttpApi())


def _handler(api: HttpApi) -> type[Handler]:
    class Carrying(Handler):
        def do_GET(self) -> None:
            self._any()

        def do_POST(self) -> None:
            self._any()

        def do_PUT(self) -> None:
            self._any()

        def _any(self) -> None:
            body = self.body()
            headers = self.lowered()
            place = urlsplit(self.path)
            known = api.tokens is None or headers.get("authorization", "")[7:] in api.tokens
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if place.path == "/openapi.json" and (known or not api.guarded):
                    api.documents.append(headers)
                    said = api.document if isinstance(api.document, bytes) else json.dumps(api.document).encode()
                    self._whole(api.document_status, said)
                elif place.path == "/token":
                    self._token(headers, body)
                elif not known:
                    self._whole(401, b'{"error":"token"}')
                else:
                    self._carried_out(place.path, dict(parse_qsl(place.query)), headers, body)

        def _token(self, headers: dict[str, str], body: bytes) -> None:
            made = api.token({"headers": headers, "form": dict(parse_qsl(body.decode()))})
            status, said = api.token_answer or (200, {"access_token": made, "token_type": "Bearer", "expires_in": 3600})
            self._whole(status, json.dumps(said).encode())

        def _carried_out(self, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> None:
            given = json.loads(body) if body else {}
            entry = {"method": self.command, "path": path, "query": query, "headers": headers, "body": given}
            number, text = api.note(entry), str(query.get("text") or given.get("text") or "")
            word, _, rest = text.partition(" ")
            said = json.dumps({"number": number, "path": path}).encode()
            match word:
                case "hang":
                    api.gate.wait(WAIT_S)
                    self.close_connection = True
                case "redirect":
                    self._whole(307, b"", location=rest)
                case "status":
                    self._whole(int(rest), said, **({"retry-after": "7"} if rest == "429" else {}))
                case "big":
                    self._whole(200, b"x" * int(rest))
                case "leak":
                    self._whole(200, json.dumps([headers, self.path]).encode())
                case "picture":
                    self._whole(200, base64.b64decode("iVBORw0KGgo="), "image/png")
                case "bytes":
                    self._whole(200, b"\xff\xfe\x00", "application/zip")
                case "gzip":
                    self._whole(200, b"\x1f\x8b", **{"content-encoding": "gzip"})
                case _:
                    self._whole(200, said, cut=word == "cut")

        def _whole(
            self, status: int, data: bytes, kind: str = "application/json", *, cut: bool = False, **headers: str
        ) -> None:
            self.answer(status, data, cut=cut, content_type=kind, **headers)

    return Carrying
