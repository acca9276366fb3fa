"""The gateway's side of the shim's interface: typed calls over the sandbox hop, one error tree.

Layer: I/O rim. The engine and the activation know only the Protocol `Shims`; the simulation implements it in memory.

    ShimError
      ├─ ShimRefused   the shim answered no (`word`: stale_epoch, fenced, draining, …); nothing was done
      └─ ShimLost      no answer, or the connection broke; what it does now is unknown
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from moorage_api.wire import frames, headers
from moorage_api.wire.checkpoints import Restore, Save, Saved
from moorage_api.wire.hop import HopError, HopPool, HopResponse
from moorage_api.wire.shim import Attach, Bind, Drain, Frame, Start, Stop

CONNECT_S = 2.0
ANSWER_S = 10.0
START_S = 30.0  # killing an earlier attempt, a fresh process and its readiness come before the acknowledgement
FILES_S = 300.0  # the same where the session's files are kept or brought back first (`turn.retryWorkspace: restore`)
SILENCE_S = 15.0  # keep-alive frames come every 5 s
MAX_ANSWER = 256 * 1024


@dataclass(frozen=True)
class Route:
    """Where a session's sandbox is, and the epoch that proves it. `kept`: its volume was the session's workspace before."""

    session_key: str
    sandbox: str
    endpoint: str
    secret: str
    epoch: int
    volume: str = ""
    kept: bool = False


class ShimError(Exception):
    """A call to a shim that did not do what was asked."""


class ShimRefused(ShimError):
    """The shim said no; `word` is its reason."""

    def __init__(self, word: str, detail: str = "", log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(f"{word}: {detail}" if detail else word)
        self.word = word
        self.detail = detail
        self.log_tail = log_tail


class ShimLost(ShimError):
    """The shim gave no (whole) answer. `refused`: nothing listens there any more."""

    def __init__(self, detail: str, *, refused: bool = False) -> None:
        super().__init__(detail)
        self.refused = refused


class Frames(Protocol):
    """The frames of one attempt, handed over as they arrive, several a call and in order, with no task in between."""

    async def pour(self, put: Callable[[list[Frame]], bool]) -> None:
        """Up to the end; may be called once. A `put` that returns False has enough until `resume`. Raises ShimError."""

    def resume(self) -> None:
        """Goes on."""


class Shims(Protocol):
    """What the engine asks of a sandbox (contract: moorage_api/wire/shim.py)."""

    async def bind(self, route: Route, call: Bind) -> None: ...

    def start(self, route: Route, call: Start) -> Frames: ...

    def attach(self, route: Route, call: Attach) -> Frames: ...

    async def stop(self, route: Route, call: Stop) -> None: ...

    async def drain(self, route: Route, call: Drain) -> bool: ...

    async def save(self, route: Route, call: Save) -> Saved: ...

    async def restore(self, route: Route, call: Restore) -> str: ...


class HttpShims:
    """Shims over HTTP/1.1, on unix sockets or TCP."""

    def __init__(self, pool: HopPool) -> None:
        self._pool = pool

    async def bind(self, route: Route, call: Bind) -> None:
        """Binds the sandbox to its session; harmless when repeated. Raises ShimRefused, ShimLost."""
        await self._call(route, "/shim/bind", call.model_dump(), ANSWER_S)

    def start(self, route: Route, call: Start) -> HttpFrames:
        """The frames of a new attempt; the first one acknowledges it. Raises ShimRefused, ShimLost while they are poured."""
        within = START_S if call.workspace == "keep" else START_S + FILES_S
        return HttpFrames(functools.partial(self._open, route, "/shim/start", call.model_dump(), within))

    def attach(self, route: Route, call: Attach) -> HttpFrames:
        """The frames of the running attempt after `call.src`; ShimRefused("unknown") when it is lost."""
        return HttpFrames(functools.partial(self._open, route, "/shim/attach", call.model_dump(), ANSWER_S))

    async def stop(self, route: Route, call: Stop) -> None:
        """Ends the attempt and sees its processes dead."""
        await self._call(route, "/shim/stop", call.model_dump(), call.grace + ANSWER_S)

    async def drain(self, route: Route, call: Drain) -> bool:
        """True: quiet, it refuses `start` from now. False: busy."""
        try:
            await self._call(route, "/shim/drain", call.model_dump(), ANSWER_S)
        except ShimRefused as refusal:
            if refusal.word == "busy":
                return False
            raise
        return True

    async def save(self, route: Route, call: Save) -> Saved:
        """A checkpoint, made and stored. Raises ShimRefused (`busy`, `not_kept`), ShimLost."""
        found = await self._call(route, "/shim/checkpoint", call.model_dump(), call.deadline + ANSWER_S)
        try:
            return Saved.model_validate(found)
        except ValueError as fault:
            raise ShimLost(f"unreadable answer: {fault}") from fault

    async def restore(self, route: Route, call: Restore) -> str:
        """The id of the checkpoint whose files are in place now. Raises ShimRefused (`busy`, `not_kept`, `damaged`), ShimLost."""
        found = await self._call(route, "/shim/restore", call.model_dump(), call.deadline + ANSWER_S)
        return str(found.get("restored", ""))

    async def _open(self, route: Route, path: str, body: dict[str, Any], timeout: float) -> HopResponse:
        head = [
            (headers.SECRET.encode(), route.secret.encode()),
            (b"content-type", b"application/json"),
        ]
        try:
            answer = await self._pool.request(
                route.endpoint,
                "POST",
                path,
                head,
                json.dumps(body, separators=(",", ":")).encode(),
                connect_timeout=CONNECT_S,
                head_timeout=timeout,
            )
        except HopError as fault:
            raise ShimLost(str(fault), refused=not fault.sent) from fault
        if answer.status == 200:
            return answer
        try:
            raw = await answer.read(MAX_ANSWER, idle=ANSWER_S)
            detail = json.loads(raw)
            word = str(detail.get("error") or detail.get("status") or answer.status)
        except (HopError, ValueError, AttributeError) as fault:
            raise ShimLost(f"unreadable refusal {answer.status}") from fault
        finally:
            await answer.aclose()
        raise ShimRefused(word, str(detail.get("detail") or ""), tuple(map(str, detail.get("log_tail") or ())))

    async def _call(self, route: Route, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        answer = await self._open(route, path, body, timeout)
        try:
            raw = await answer.read(MAX_ANSWER, idle=timeout)
            found = json.loads(raw)
            return found if isinstance(found, dict) else {}
        except (HopError, ValueError) as fault:
            raise ShimLost(str(fault)) from fault
        finally:
            await answer.aclose()


class HttpFrames:
    """The frame stream of one attempt. It is opened by `pour`, which may be called once."""

    def __init__(self, open_stream: Callable[[], Awaitable[HopResponse]]) -> None:
        self._open = open_stream
        self._answer: HopResponse | None = None

    async def pour(self, put: Callable[[list[Frame]], bool]) -> None:
        """See Frames. Raises ShimRefused, ShimLost."""
        answer = self._answer = await self._open()
        parser = frames.FrameParser()

        def took(piece: bytes) -> bool:
            found = parser.feed(piece)
            return put(found) if found else True

        try:
            await answer.pour(took, idle=SILENCE_S)
        except HopError as fault:
            raise ShimLost(str(fault.__cause__ or fault)) from fault
        finally:
            await answer.aclose()

    def resume(self) -> None:
        """See Frames."""
        if self._answer is not None:
            self._answer.resume()
