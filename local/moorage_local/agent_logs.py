"""What agents print: one file a sandbox, written by its shim, read here for the terminal and for `moorage logs`.

Layer: local; I/O. A line of a file is JSON: {ts, stream, session, sandbox, line}. Beside a log, once its sandbox serves a session,
lies a file with the session's key, so that the lines of a session can be found after its sandboxes are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from moorage_api.ledger.records import Descriptor
from moorage_gateway.logs import LogLine

_PAUSE = 0.25
_TAIL_BYTES = 4 * 2**20  # read at most from the end of one file
_PIECE = 256 * 1024
_KEPT_FILES = 400


@dataclass(frozen=True)
class AgentLine:
    """One line with where it comes from."""

    tenant: str
    agent: str
    sandbox: str
    line: LogLine


def path_of(folder: Path, tenant: str, agent: str, sandbox: str) -> Path:
    """The log file of a sandbox. Names of tenants and agents have no dots."""
    return folder / f"{tenant}.{agent}.{sandbox}.log"


def note_session(folder: Path, one: Descriptor, key: str) -> None:
    """Notes whose lines a sandbox's log holds from now on."""
    path_of(folder, one.tenant, one.agent, one.sandbox).with_suffix(".session").write_text(key, encoding="utf-8")


def prune(folder: Path) -> None:
    """Keeps the newest logs only."""
    logs = sorted(folder.glob("*.log"), key=_written, reverse=True)
    for path in logs[_KEPT_FILES:]:
        for each in (path, path.with_suffix(".session"), path.with_name(f"{path.name}.1")):
            each.unlink(missing_ok=True)


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # just being rotated
        return math.inf


class FolderLogs:
    """The gateway's `LogSource` over a folder of log files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def lines(
        self, tenant: str, agent: str, *, session_key: str | None, tail: int, follow: bool
    ) -> AsyncIterator[LogLine]:
        """The last `tail` lines of the agent (of one session), then, with `follow`, new ones without end."""
        reader = _Reader(self._folder, f"{tenant}.{agent}.*.log", session_key)
        kept: deque[AgentLine] = deque(maxlen=max(tail, 1))
        for found in await asyncio.to_thread(reader.more):
            kept.append(found)
        for found in sorted(kept, key=lambda each: each.line.time) if tail else ():
            yield found.line
        while follow:
            await asyncio.sleep(_PAUSE)
            for found in await asyncio.to_thread(reader.more):
                yield found.line

    def elsewhere(self, tenant: str, agent: str, sandbox: str, *, tail: int, follow: bool) -> str:
        """See `LogSource.elsewhere`: they are here."""
        return ""


async def print_all(folder: Path, write: Callable[[AgentLine], None]) -> None:
    """Hands every new line of every agent to `write`, until cancelled. What was there before is left out."""
    reader = _Reader(folder, "*.log", None)
    reader.skip()
    while True:
        for found in await asyncio.to_thread(reader.more):
            write(found)
        await asyncio.sleep(_PAUSE)


class _Reader:
    """Reads on where it stopped, in any number of files; a rotated file is read from its start."""

    def __init__(self, folder: Path, pattern: str, session_key: str | None) -> None:
        self._folder = folder
        self._pattern = pattern
        self._key = session_key
        self._at: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}

    def skip(self) -> None:
        """Goes to the end of every file there is."""
        for path in self._folder.glob(self._pattern):
            with contextlib.suppress(FileNotFoundError):  # just being rotated: what is new in it is read from its start
                self._at[path] = path.stat().st_size

    def more(self) -> list[AgentLine]:
        """New lines, at most a piece of each file."""
        found: list[AgentLine] = []
        for path in sorted(self._folder.glob(self._pattern)):
            if self._key is not None and _session_of(path) != self._key:
                continue
            found += self._of_file(path)
        return found

    def _of_file(self, path: Path) -> list[AgentLine]:
        try:
            size = path.stat().st_size
            first = path not in self._at
            at = self._at.setdefault(path, max(0, size - _TAIL_BYTES))
            if size < at:
                at, self._rest[path] = 0, b""
            if size == at:
                return []
            with path.open("rb") as file:
                file.seek(at)
                data = file.read(_TAIL_BYTES if first else _PIECE)
        except OSError:
            return []
        self._at[path] = at + len(data)
        *whole, rest = (self._rest.get(path, b"") + data).split(b"\n")
        self._rest[path] = rest[-_PIECE:]
        tenant, agent, sandbox = path.name.removesuffix(".log").split(".", 2)
        return [AgentLine(tenant, agent, sandbox, line) for raw in whole if (line := _parsed(raw)) is not None]


def _parsed(raw: bytes) -> LogLine | None:
    try:
        data: dict[str, Any] = json.loads(raw)
        stamp = data["ts"]
        time = int(stamp) if isinstance(stamp, (int, float)) else int(datetime.fromisoformat(stamp).timestamp() * 1000)
        return LogLine(time, str(data["stream"]), str(data["line"]), str(data.get("session") or ""))
    except (ValueError, KeyError, TypeError):
        return None


def _session_of(path: Path) -> str:
    try:
        return path.with_suffix(".session").read_text(encoding="utf-8")
    except OSError:
        return ""
