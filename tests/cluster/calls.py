"""A streamed call that runs beside a test while things break under it, and whether its caller got it whole and once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import openai
from openai import OpenAI

from cluster.served import Served
from crash.kills import INTERRUPTED
from crash.stream import Seen
from fakes.platform import poll

AGAIN_SECONDS = 0.2
LONGEST_SECONDS = 300.0
SERVED_SECONDS = 120.0


def numbers(count: int) -> str:
    """What the tests' agent says when asked to count slowly."""
    return "".join(f"{number} " for number in range(count))


class Call:
    """One caller's view of one response. It begins at `first` and comes back by cursor at `then`, as often as it must."""

    def __init__(self, world: Served, agent: str, text: str, session: str, first: OpenAI) -> None:
        self.seen = Seen()
        self._world = world
        self._agent = agent
        self._text = text
        self._session = session
        self._first = first
        self._heard: list[float] = []
        self._done: Future[None] | None = None

    def begin(self, pool: ThreadPoolExecutor) -> None:
        """From here it runs."""
        self._done = pool.submit(self._run)

    def until(self, deltas: int, within: float = 60) -> None:
        """Waits until the caller saw so many deltas. Raises what ended it before."""

        def reached() -> bool:
            assert self._done is not None
            if self._done.done():
                self._done.result()
            return self.seen.deltas >= deltas

        poll(f"{deltas} deltas", reached, within=within)

    @property
    def runs(self) -> bool:
        """The end was not seen yet."""
        return not self.seen.ended

    def ended(self, within: float = LONGEST_SECONDS) -> Seen:
        """Waits for its end; what was seen of it."""
        assert self._done is not None
        self._done.result(timeout=within)
        return self.seen

    def whole(self, said: str, within: float = LONGEST_SECONDS) -> list[dict[str, Any]]:
        """Waits for its end; its attempts, as the record has them. Raises AssertionError unless it came whole and once."""
        self.ended(within).check()
        last = self.seen.events[-1]
        assert last.type == "response.completed", last
        assert last.response.output_text == said
        path = f"/agents/{self._agent}/responses/{self.seen.response_id}"
        kept = self._told(path)
        assert kept["status"] == "completed", kept
        attempts: list[dict[str, Any]] = self._told(f"{path}/record")["attempts"]
        reasons = [one["reason"] for one in attempts]
        print(f"{self.seen.breaks} breaks, attempts {reasons}, longest silence {self._silence():.1f} s")
        assert reasons[-1] == "completed" and set(reasons[:-1]) <= INTERRUPTED, attempts
        return attempts

    def _told(self, path: str) -> dict[str, Any]:
        """What is kept. A node that came back counts as away for a moment, and its Services lead nowhere meanwhile."""

        def told() -> dict[str, Any] | None:
            try:
                return self._world.client.get(path, cast_to=dict[str, Any])
            except openai.APIConnectionError:
                return None

        return dict(poll(f"{path} is told", told, within=SERVED_SECONDS, every=0.5))

    def _silence(self) -> float:
        """The longest wait between two deltas, in seconds: what the blow cost this caller. Shown, never judged."""
        return max((after - before for before, after in pairwise(self._heard)), default=0.0)

    def _note(self, _: int) -> None:
        self._heard.append(time.monotonic())

    def _run(self) -> None:
        named = {"agent_session_id": self._session}
        self.seen.read(
            self._first.responses.create(
                model=self._agent, input=self._text, stream=True, timeout=LONGEST_SECONDS, extra_body=named
            ),
            self._note,
        )
        deadline = time.monotonic() + LONGEST_SECONDS
        while not self.seen.ended:
            assert time.monotonic() < deadline, f"its end was not seen within {LONGEST_SECONDS:g} s"
            assert self.seen.events, "it broke before its first event"
            with contextlib.suppress(openai.APIConnectionError, openai.InternalServerError):
                self.seen.read(
                    self._world.client.responses.retrieve(
                        self.seen.response_id, stream=True, starting_after=self.seen.last, timeout=LONGEST_SECONDS
                    ),
                    self._note,
                )
            threading.Event().wait(0 if self.seen.ended else AGAIN_SECONDS)


@contextlib.contextmanager
def calling(world: Served, agent: str, text: str, session: str, *, first: OpenAI | None = None) -> Iterator[Call]:
    """A call that runs as long as the block, which takes it over when it has seen its end."""
    call = Call(world, agent, text, session, first or world.client)
    with ThreadPoolExecutor(1) as pool:
        call.begin(pool)
        yield call
