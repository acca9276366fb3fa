"""What an agent process prints: cut into lines, the last ones kept, all of them in a rotating file or on a console. Layer: I/O rim.

A line there is JSON: {ts, stream, session, sandbox, line}. The shim's own words go there too, as stream `shim`.
"""

from __future__ import annotations

import os
import re
import select
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from moorage_sandbox.clock import Clock

TAIL_LINES = 50
TAIL_LINE = 2_000
"""Characters of a line in the tail."""
TAIL_BYTES = 64 * 1024
"""Of the whole tail, so that it fits into every answer."""
READ = 64 * 1024
BURST = 8 * 2**20
RATE = 2 * 2**20
"""Bytes of a console, at once and a second from then on. A kubelet looks at logs every 10 s, keeps five of 10 MiB, and evicts a pod whose
container has more than its limit of 128 MiB (`operator/parts.py`): a flood must not end its own sandbox."""

_STEERS = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
"""In UTF-8: DEL and the controls of C1, line separators, marks of direction. JSON lets them stand, and what shows a log obeys them."""


class Lines:
    """Bytes to lines; a line longer than `longest` is cut into pieces."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._held = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines completed by `data`."""
        *whole, self._held = (self._held + data).split(b"\n")
        while len(self._held) > self._longest:
            whole.append(self._held[: self._longest])
            self._held = self._held[self._longest :]
        found: list[str] = []
        for line in whole:
            pieces = [line[at : at + self._longest] for at in range(0, len(line), self._longest)] or [b""]
            found += [piece.decode("utf-8", "replace").rstrip("\r") for piece in pieces]
        return found

    def rest(self) -> list[str]:
        """What stands without a line end when the writer is gone."""
        held, self._held = self._held, b""
        return [held.decode("utf-8", "replace")] if held else []


class Console:
    """Lines on a descriptor that somebody else reads, as a container's stdout. Nobody is waited for: a line that finds no room, or is above
    `BURST` and `RATE`, is dropped; one that was begun is ended first. The descriptor stays as it is: others may share it."""

    def __init__(self, fd: int, clock: Clock) -> None:
        self._fd = fd
        self._clock = clock
        self._left, self._at = float(BURST), clock.now()
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)
        self._rest = b""

    def write(self, line: bytes) -> bool:
        """Whether it was taken; one line or some."""
        before, self._at = self._at, self._clock.now()
        self._left = min(BURST, self._left + (self._at - before) * RATE)
        self._rest = self._put(self._rest)
        if self._rest or len(line) > self._left:
            return False
        left = self._put(line)
        if len(left) == len(line):
            return False
        self._rest, self._left = left, self._left - len(line)
        return True

    def _put(self, data: bytes) -> bytes:
        """What could not be written of it. A pipe that has room takes PIPE_BUF bytes without a wait."""
        while data and self._room.poll(0) == [(self._fd, select.POLLOUT)]:
            try:
                data = data[os.write(self._fd, data[: select.PIPE_BUF]) :]
            except OSError:  # who read it is gone
                break
        return data


class Output:
    """The sandbox's log: the file `path`, else `console`, else only its tail. `session` is set once it is bound."""

    def __init__(
        self, path: str | None, sandbox: str, *, clock: Clock, max_file: int, console: Console | None = None
    ) -> None:
        self._path = path
        self._console = console
        self._sandbox = sandbox
        self._clock = clock
        self._max_file = max_file
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._fd: int | None = None
        self._size = 0
        self.session: str | None = None
        self.dropped = 0
        """Lines that could not be written: a full disk, a console that nobody reads, a flood."""
        self._untold = 0

    def tail(self) -> list[str]:
        """The last lines of the agent, newest last, at most TAIL_BYTES of them."""
        kept: list[str] = []
        size = 0
        for line in reversed(self._tail):
            size += len(line.encode("utf-8", "replace"))
            if size > TAIL_BYTES:
                break
            kept.append(line)
        return kept[::-1]

    def agent(self, lines: list[str]) -> None:
        """Takes lines of an agent process."""
        self._tail.extend(line[:TAIL_LINE] for line in lines)
        self._write("stdout", lines)

    def shim(self, line: str) -> None:
        """Takes a sentence of the shim itself."""
        self._write("shim", [line])

    def close(self) -> None:
        """Closes the file; later lines are lost."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._path, self._console = None, None, None

    def _write(self, stream: str, lines: list[str]) -> None:
        if (self._path is None and self._console is None) or not lines:
            return
        made = self._records(stream, lines)
        if self._path is None:
            assert self._console is not None
            self._show(self._console, made)
            return
        try:
            self._append(self._path, b"".join(made))
        except OSError:
            # The log's disk is full or gone: the agent's work matters more than its log.
            self.dropped += len(lines)

    def _records(self, stream: str, lines: list[str]) -> list[bytes]:
        ts = datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        base = {"ts": ts, "stream": stream, "session": self.session, "sandbox": self._sandbox}
        return [orjson.dumps({**base, "line": line}, option=orjson.OPT_APPEND_NEWLINE) for line in lines]

    def _show(self, console: Console, made: list[bytes]) -> None:
        """What is missing is told where the next line finds room."""
        for one in map(inert, made):
            told = [f"{self._untold} lines are missing here: there was no room for them"] if self._untold else []
            if console.write(b"".join([*self._records("shim", told), one])):
                self._untold = 0
            else:
                self._untold += 1
                self.dropped += 1

    def _append(self, path: str, text: bytes) -> None:
        if self._fd is None:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(self._fd).st_size
        os.write(self._fd, text)
        self._size += len(text)
        if self._size >= self._max_file:
            os.close(self._fd)
            self._fd = None
            os.replace(path, f"{path}.1")


def inert(record: bytes) -> bytes:
    """A line of JSON that says the same and steers no terminal, nor ends a line within it: orjson leaves what is above 31 as it stands."""
    return _STEERS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), record)


def pump(fd: int, lines: Lines, take: Callable[[list[str]], None]) -> bool:
    """Moves what a pipe holds now, one read at most, so that a flood leaves the loop its turns. False: the pipe has ended."""
    try:
        data = os.read(fd, READ)
    except BlockingIOError:
        return True
    except OSError:
        data = b""
    take(lines.feed(data) if data else lines.rest())
    return bool(data)
