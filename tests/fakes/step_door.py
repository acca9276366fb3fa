"""The sandbox's door as a step sees it: answers what a test put there, and keeps what was said.

Limits: one process, a thread a connection; nothing is decided here.
"""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

from fakes.scripted_server import Handler, ScriptedServer


class StepDoor(ScriptedServer):
    """`answers`: (status, body) by path, one after the other; without one the connection breaks."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.answers: dict[str, list[tuple[int, Any]]] = {"/steps/begin": [], "/steps/end": []}
        self.held: dict[str, threading.Event] = {}
        super().__init__(_handler(self))

    @property
    def url(self) -> str:
        """Where steps are told."""
        return f"{super().url}/steps"

    def runs(self, times: int = 1) -> None:
        """So many steps are begun, run and recorded."""
        for n in range(times):
            self.answers["/steps/begin"].append((200, {"state": "run", "step": f"mark-{n}"}))
            self.answers["/steps/end"].append((200, {"state": "recorded"}))

    def begins(self, value: Any, status: int = 200) -> None:
        """What the next `begin` is answered."""
        self.answers["/steps/begin"].append((status, value))


def opened() -> contextlib.closing[StepDoor]:
    """A door for as long as the context lasts."""
    return contextlib.closing(StepDoor())


def _handler(door: StepDoor) -> type[Handler]:
    class Answering(Handler):
        def do_POST(self) -> None:
            door.said.append((self.path, json.loads(self.body())))
            if self.path in door.held:
                door.held[self.path].wait(10)
            if not door.answers[self.path]:
                self.close_connection = True
                return
            status, value = door.answers[self.path].pop(0)
            self.answer_json(status, value)

    return Answering
