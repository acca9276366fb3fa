"""A server whose every `POST /post` is an effect: it counts them by key, and says of a key whether it is there.

`watch`, where it is set, is called with ("asked", key) before a post is counted and ("answered", key) after its answer was written; a post
of which it says "lost" is not counted, and not answered. `looked` counts who asked whether a key is there. Limits: one process, a
thread a connection.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from fakes.scripted_server import Handler, ScriptedServer


class Effects(ScriptedServer):
    """The server. `counts`: how often each key was posted."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.counts: Counter[str] = Counter()
        self.looked: Counter[str] = Counter()
        self.watch: Callable[[str, str], Any] | None = None
        super().__init__(_handler(self), host)

    def post(self, key: str) -> bool:
        """Counts one, unless it is lost."""
        if self.see("asked", key) == "lost":
            return False
        with self._lock:
            self.counts[key] += 1
        return True

    def look(self, key: str) -> bool:
        """Whether it was posted."""
        with self._lock:
            self.looked[key] += 1
            return self.counts[key] > 0

    def see(self, edge: str, key: str) -> Any:
        """Tells whoever watches."""
        return self.watch(edge, key) if self.watch is not None else None


def _handler(effects: Effects) -> type[Handler]:
    class Counting(Handler):
        def do_GET(self) -> None:
            self.answer_json(200, {"found": effects.look(self.path.rpartition("/")[2])})

        def do_POST(self) -> None:
            key = str(json.loads(self.body())["key"])
            if not effects.post(key):
                self.close_connection = True
                return
            with contextlib.suppress(OSError):
                self.answer_json(200, {"posted": key})
            effects.see("answered", key)

    return Counting


def counting() -> contextlib.closing[Effects]:
    """A server for as long as the context lasts."""
    return contextlib.closing(Effects())
