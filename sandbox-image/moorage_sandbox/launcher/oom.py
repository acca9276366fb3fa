"""Whether the kernel killed for memory, read from a cgroup file: one the host handed in, or the container's own.

Layer: floor of the launcher, stdlib only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

OWN = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
"""Where a container finds its own count, in both versions of control groups."""


class OomCounter:
    """Counts out-of-memory kills of this sandbox's cgroup; without a file it never saw one."""

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self._seen = self._read()

    def rose(self) -> bool:
        """True once for every rise since the last call."""
        before, self._seen = self._seen, self._read()
        return self._seen > before

    def _read(self) -> int:
        if self.fd is None:
            return 0
        try:
            text = os.pread(self.fd, 4096, 0).decode()
        except OSError:
            return 0
        return kills(text)


def kills(text: str) -> int:
    """The `oom_kill` count in `memory.oom_control` (v1) or `memory.events` (v2); 0 where there is none."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.strip().isdigit():
            return int(value)
    return 0


def first(places: Iterable[Path]) -> int | None:
    """A descriptor of the first of these files that can be read; None where there is none."""
    for place in places:
        with suppress(OSError):
            return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    return None
