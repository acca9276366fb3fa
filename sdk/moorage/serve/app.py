"""The agent server's one ASGI application: health, `/responses`, `/invocations`, nothing else. Layer: agent server."""

from __future__ import annotations

from collections.abc import Callable

from moorage.serve import asgi
from moorage.serve.flags import Difference
from moorage.serve.invocations import Invocations
from moorage.serve.responses import Responses
from moorage_api.errors import ApiError, Kind


class App:
    """Routes one request. `difference` makes the server not ready and names the manifest field in its answer.

    `draining` is asked on every request: a server that is ending takes nothing new.
    """

    def __init__(
        self,
        responses: Responses | None,
        invocations: Invocations | None,
        *,
        difference: Difference | None,
        draining: Callable[[], bool],
    ) -> None:
        self._responses = responses
        self._invocations = invocations
        self._difference = difference
        self._draining = draining

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Serves one HTTP request; anything refused gets the answer of the one error table."""
        if scope["type"] != "http":
            return
        begun = False

        async def watched(message: asgi.Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._route(scope, receive, watched)
        except asgi.ClientGone:
            return  # nobody to answer; an answer that was begun ends without its proper end, as it should look when cut
        except ApiError as error:
            if begun:
                raise
            await asgi.answer_error(send, error)

    async def _route(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        path: str = scope["path"]
        if path == "/readiness":
            await self._readiness(send)
            return
        head, _, rest = path.lstrip("/").partition("/")
        handler = {"responses": self._responses, "invocations": self._invocations}.get(head)
        if handler is None:
            raise ApiError(Kind.NOT_FOUND, f"Nothing is served at {path}; this agent serves {self._served()}.")
        if self._draining():
            raise ApiError(Kind.DRAINING, "This server is ending; send the request again.")
        if self._difference is not None:
            raise ApiError(Kind.UNAVAILABLE, self._difference.message, param=self._difference.field)
        await handler(scope, receive, send, rest)

    def _served(self) -> str:
        served = {"/responses": self._responses, "/invocations": self._invocations}
        return " and ".join(path for path, handler in served.items() if handler is not None) or "nothing"

    async def _readiness(self, send: asgi.Send) -> None:
        if self._difference is not None:
            fault = {"field": self._difference.field, "message": self._difference.message}
            await asgi.answer_json(send, {"status": "unhealthy", "error": fault}, status=503)
        elif self._draining():
            await asgi.answer_json(send, {"status": "draining"}, status=503)
        else:
            await asgi.answer_json(send, {"status": "healthy"})
