"""The process of a program: begun, greeted, asked, ended, and begun again. Layer: I/O; one loop, one process at a time.

A request is written once. Where its process ends before it answered, whoever asked is told so, and nobody asks again here.

    starting   begun, and has not answered the handshake: who asks waits
    ready      is asked
    pausing    ended; the next one is begun after a pause that doubles: who asks is told why, unless it is over soon
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moorage_api.wire.stdio import MAX_MESSAGE, Fault
from moorage_sandbox import lifeline
from moorage_sandbox.launcher import processes
from moorage_sandbox.stdio import environment, messages
from moorage_sandbox.stdio.environment import Outer
from moorage_sandbox.stdio.hiding import Hiding
from moorage_sandbox.stdio.lines import Lines, Long
from moorage_sandbox.stdio.telling import Telling

GREETING_S: Final = 60.0
"""For the handshake: `uvx` and `npx` fetch what they run first."""
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0
STEADY_S: Final = 60.0
"""A process that lived so long is begun again after the first pause."""
SOON_S: Final = 2.0
"""Of a pause: who asks waits for it."""
SILENT_S: Final = 10.0
"""A process that has said nothing since a call was sent that ran out of time, and answers no ping for so long, is ended: who waits behind
that call would wait for nothing."""
GRACE_S: Final = 2.0
"""Between the end of its input and SIGKILL."""
KILL_S: Final = 10.0
MOST_CALLS: Final = 256
MOST_WAITING: Final = 2 * MAX_MESSAGE
"""Bytes that wait for a program to read them."""
FILES: Final = 4096


class NoAnswer(Exception):
    """`fault` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.text)
        self.fault = fault


@dataclass(frozen=True)
class Answer:
    """A program's own message under the id that it was asked with."""

    number: int
    line: bytes


@dataclass(frozen=True)
class Spec:
    """What is run. `env`: its whole environment; `secrets`: values in it that must not be told; `memory`: bytes for one process, where
    nothing else bounds them; `silent`: see SILENT_S; `outer`: what `argv` puts around it, if anything."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
    memory: int | None = None
    silent: float = SILENT_S
    outer: Outer | None = None
    client: Mapping[str, str] = field(default_factory=lambda: {"name": "moorage", "version": "0"})


@dataclass(frozen=True)
class _Asked:
    most: int
    answer: asyncio.Future[bytes]


class Program:
    """See above. `run` is its life; `reaped` must be told of every child that was reaped."""

    def __init__(self, spec: Spec, telling: Telling) -> None:
        self._spec = spec
        self._telling = telling
        self._hiding = Hiding(spec.secrets)
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._modern = False
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._ended: asyncio.Future[str] | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._why = "its process has not begun yet"
        self._next = 0.0
        self._heard = 0.0
        self._checks: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """Whether it can be asked."""
        return self._ready.is_set()

    async def run(self) -> None:
        """Begins it again and again, until cancelled; then none of its processes is left."""
        pause = FIRST_PAUSE_S
        while True:
            began = self._loop.time()
            self._why = await self._life()
            if self._loop.time() - began > STEADY_S:
                pause = FIRST_PAUSE_S
            self._say(f"{self._why}; it is begun again in {pause:g} s")
            self._next = self._loop.time() + pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_PAUSE_S)

    async def ask(self, method: str, params: dict[str, Any], seconds: float, most: int) -> Answer:
        """One request and its answer. Raises NoAnswer."""
        until = self._loop.time() + seconds
        if len(self._asked) >= MOST_CALLS:
            raise NoAnswer(Fault(f"{MOST_CALLS} calls of it are in flight", sent=False))
        await self._until_ready(seconds)
        try:
            number, answer = self._send(method, params, most)
        except (ValueError, RecursionError):
            raise NoAnswer(Fault("its arguments cannot be written as JSON", sent=False)) from None
        sent = self._loop.time()
        try:
            async with asyncio.timeout_at(until):
                return Answer(number, await answer)
        except TimeoutError:
            self._given_up(number, sent)
            raise NoAnswer(Fault(f"it did not answer within {seconds:.3g} s", sent=True, late=True)) from None
        finally:
            self._asked.pop(number, None)

    def reaped(self, pid: int, status: int) -> None:
        """A child of this process ended; `status` as `os.waitstatus_to_exitcode` has it."""
        process, ended = self._process, self._ended
        if process is not None and process.pid == pid and ended is not None and not ended.done():
            process.returncode = status
            how = f"exit code {status}" if status >= 0 else f"signal {-status}"
            ended.set_result(f"its process ended with {how}")

    async def _until_ready(self, seconds: float) -> None:
        pausing = self._next - self._loop.time()
        if self._ready.is_set():
            return
        if self._process is None and pausing > SOON_S:
            raise NoAnswer(Fault(f"{self._why}; it is begun again in {pausing:.0f} s", sent=False))
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            raise NoAnswer(Fault(f"{self._why}, and it was not ready within {seconds:.3g} s", sent=False)) from None

    def _send(self, method: str, params: dict[str, Any], most: int) -> tuple[int, asyncio.Future[bytes]]:
        stdin = self._stdin
        if stdin is None or stdin.is_closing():
            raise NoAnswer(Fault("its process is just ending", sent=False))
        if stdin.get_write_buffer_size() > MOST_WAITING:
            raise NoAnswer(Fault("it does not read what it was sent before", sent=False))
        number = self._number + 1
        line = messages.request(number, method, params, modern=self._modern, client=dict(self._spec.client))
        self._number = number
        answer: asyncio.Future[bytes] = self._loop.create_future()
        self._asked[number] = _Asked(most, answer)
        stdin.write(line)
        return number, answer

    # -- one process

    async def _life(self) -> str:
        """Begins a process and comes back when it is dead, with what became of it."""
        self._ended = self._loop.create_future()
        try:
            pipes = self._begin(os.getpid())
        except (OSError, subprocess.SubprocessError) as fault:
            what = os.strerror(fault.errno) if isinstance(fault, OSError) and fault.errno else str(fault)
            return f"its program {self._spec.argv[0]!r} cannot be started: {what}"
        self._why = "its process has not answered the handshake yet"
        transports: list[asyncio.BaseTransport] = []
        try:
            transports = await self._connected(*pipes)
            greeting = asyncio.create_task(self._greet(), name="greeting")
            try:
                either: set[asyncio.Future[Any]] = {greeting, self._ended}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if self._ended.done():
                    return self._ended.result()
                failure = greeting.result()
                if failure is not None:
                    return failure
                self._ready.set()
                return await asyncio.shield(self._ended)
            finally:
                greeting.cancel()
                await asyncio.wait({greeting})
        finally:
            await self._finish(transports)

    def _begin(self, parent: int) -> tuple[Any, Any, Any]:
        with environment.begun(self._spec.argv, self._spec.env, self._spec.outer) as made:
            self._process = subprocess.Popen(
                made.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=made.env,
                pass_fds=made.kept,
                cwd=self._spec.cwd,
                start_new_session=True,
                preexec_fn=lambda: self._bounded(parent),
            )
        return self._process.stdin, self._process.stdout, self._process.stderr

    def _bounded(self, parent: int) -> None:
        """Between fork and exec: one thread, and nothing of the loop."""
        lifeline.die_with(parent, signal.SIGKILL)
        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: FILES}
        if self._spec.memory is not None:
            limits[resource.RLIMIT_DATA] = self._spec.memory
        for what, most in limits.items():
            hard = resource.getrlimit(what)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(what, (most, most))

    async def _connected(self, stdin: Any, stdout: Any, stderr: Any) -> list[asyncio.BaseTransport]:
        out = _Reader(Lines(MAX_MESSAGE), self._heard_line)
        err = _Reader(Lines(64 * 1024), self._said_line)
        made: list[asyncio.BaseTransport] = []
        reading, _ = await self._loop.connect_read_pipe(lambda: out, stdout)
        made.append(reading)
        saying, _ = await self._loop.connect_read_pipe(lambda: err, stderr)
        made.append(saying)
        self._stdin, _ = await self._loop.connect_write_pipe(asyncio.BaseProtocol, stdin)
        return [*made, self._stdin]

    async def _finish(self, transports: list[asyncio.BaseTransport]) -> None:
        """No process of it is left after this, and nobody waits for it."""
        self._ready.clear()
        ended = self._ended
        assert ended is not None
        if self._stdin is not None:
            self._stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE_S):
                    await asyncio.shield(ended)
        until = self._loop.time() + KILL_S
        while (not ended.done() or processes.descendants(os.getpid())) and self._loop.time() < until:
            processes.kill_descendants(os.getpid())
            await asyncio.sleep(0.01)
        if not ended.done():
            ended.set_result("its process could not be ended")
        self._process, self._stdin = None, None
        for each in transports:
            each.close()
        why = ended.result()
        for waiting in list(self._asked.values()):
            if not waiting.answer.done():
                waiting.answer.set_exception(NoAnswer(Fault(f"{why} before it had answered", sent=True)))
        for check in list(self._checks):
            check.cancel()

    async def _greet(self) -> str | None:
        """The handshake. None when it is done, else why not."""
        client = dict(self._spec.client)
        try:
            self._modern = False
            said = await self._greeted("initialize", messages.initialize(client))
            if messages.speaks_old(said):
                if self._stdin is not None:
                    self._stdin.write(messages.notification("notifications/initialized", {}))
                return None
            self._modern = True
            if messages.speaks_new(await self._greeted("server/discover", {})):
                return None
        except NoAnswer as fault:
            return f"it did not answer the handshake: {fault}"
        return "it speaks no version of MCP that is known here"

    async def _greeted(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number, answer = self._send(method, params, MAX_MESSAGE)
        try:
            async with asyncio.timeout(GREETING_S):
                return messages.read(await answer) or {}
        except TimeoutError:
            raise NoAnswer(Fault(f"nothing came within {GREETING_S:g} s", sent=True, late=True)) from None
        finally:
            self._asked.pop(number, None)

    # -- what it says

    def _heard_line(self, line: bytes | Long) -> None:
        self._heard = self._loop.time()
        if isinstance(line, Long):
            self._long(line)
            return
        if not line.strip():
            return
        message = messages.read(line)
        if message is None:
            self._say(f"printed what is no JSON-RPC: {line[:200]!r}")
            return
        number = messages.answers(message)
        if number is None:
            if messages.is_request(message) and self._stdin is not None and not self._stdin.is_closing():
                if self._stdin.get_write_buffer_size() <= MOST_WAITING:
                    self._stdin.write(messages.reply(message))
            return
        waiting = self._asked.get(number)
        if waiting is None or waiting.answer.done():
            return  # nobody waits for it any more
        if len(line) > waiting.most:
            waiting.answer.set_exception(NoAnswer(_large(waiting.most)))
        else:
            waiting.answer.set_result(self._hiding.line(line))

    def _long(self, line: Long) -> None:
        number = line.answers
        waiting = self._asked.get(number) if number is not None else None
        self._say(f"printed a line of {line.size} bytes, which is dropped")
        if waiting is not None and not waiting.answer.done():
            waiting.answer.set_exception(NoAnswer(_large(waiting.most)))

    def _said_line(self, line: bytes | Long) -> None:
        self._telling.line(self._hiding.line(line.head if isinstance(line, Long) else line))

    def _say(self, text: str) -> None:
        self._telling.line(self._hiding.line(text.encode()))

    # -- a call that was not answered in time

    def _given_up(self, number: int, sent: float) -> None:
        stdin = self._stdin
        if stdin is None or stdin.is_closing() or stdin.get_write_buffer_size() > MOST_WAITING:
            return
        stdin.write(messages.notification("notifications/cancelled", {"requestId": number, "reason": "out of time"}))
        if self._heard >= sent or self._checks:
            return
        check = asyncio.create_task(self._check(sent), name="check")
        self._checks.add(check)
        check.add_done_callback(self._checks.discard)

    async def _check(self, since: float) -> None:
        """Ends a process that says nothing although it is asked to."""
        with contextlib.suppress(NoAnswer):
            number, answer = self._send("ping", {}, MAX_MESSAGE)
            try:
                async with asyncio.timeout(self._spec.silent):
                    await answer
            except TimeoutError:
                if self._heard < since:
                    self._say("says nothing any more, and is ended")
                    processes.kill_descendants(os.getpid())
            finally:
                self._asked.pop(number, None)


class _Reader(asyncio.Protocol):
    """A pipe, cut into lines."""

    def __init__(self, lines: Lines, each: Callable[[bytes | Long], None]) -> None:
        self._lines = lines
        self._each = each

    def data_received(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._each(line)

    def connection_lost(self, exc: Exception | None) -> None:
        rest = self._lines.rest()
        if rest:
            self._each(rest)


def _large(most: int) -> Fault:
    return Fault(f"its answer is longer than {most} bytes", sent=True, large=True)


def reap(told: Callable[[int, int], None]) -> None:
    """Reaps whatever has ended: this process is the next parent of all that a program leaves behind."""
    for each in processes.reap()[0]:
        told(each.pid, each.status if each.status is not None else -(each.signal or signal.SIGKILL))
