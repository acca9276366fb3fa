"""Ledger calls of simulated processes: real scripts on a real Valkey, with everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import hiredis

from moorage_api.ledger.script import FOUND, SETTLE_MS, Arguments, Lost, Script, Unreachable
from moorage_gateway.ledger_client import PATIENCE_S, Identity, LedgerClient

CLOCK = "{math.floor(tonumber(KEYS[1]) / 1000000), tonumber(KEYS[1]) % 1000000}"

# Sent again at once, these answer the same in every word (turns.md §1 c); `claim` says ROUTE where it said CLAIMED.
SAME = frozenset(
    "accept begin append decide close acquire renew release restore ready drain undrain hibernated delete bound label claim "
    "journal_start journal_complete journal_drop journal_hold".split()
)

HINTS = {"append": "log", "close": "log", "cancel": "turns", "release": "turns"}  # what these scripts publish


class Wire:
    """The smallest client: one connection, one command at a time. A schedule makes about a thousand calls."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(300)  # a machine that stood still for a minute is no finding
        self._socket.connect(path)
        self._reader = hiredis.Reader()
        self.commands = 0

    def execute_command(self, *command: str | bytes | int) -> Any:
        self.commands += 1
        self._socket.sendall(hiredis.pack_command(command))
        reply = self._answer()
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def pipeline(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Any]:
        """The replies, errors among them."""
        self.commands += len(commands)
        self._socket.sendall(b"".join(hiredis.pack_command(c) for c in commands))
        return [self._answer() for _ in commands]

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError("Valkey closed the connection")
            self._reader.feed(data)
        return reply


CALL_S = 5.0  # how long the product's clients wait for an answer


class Dead(asyncio.CancelledError):
    """The process that asked was killed."""


class Faults:
    """How likely what is. All zero: a quiet world. `twice`: a command reaches Redis a second time."""

    def __init__(self, *, lost_reply: float, refused: float, slow: float, twice: float) -> None:
        self.lost_reply = lost_reply
        self.refused = refused
        self.slow = slow
        self.twice = twice

    def end(self) -> None:
        """The world is quiet from now."""
        self.lost_reply = self.refused = self.slow = 0.0


class SimRunner:
    """One process' way to Redis; implements `Runner`, `found`, and what `Recovery` needs of a client.

    `point` is told where the process is ("append", "before") and returns True when this reply is to be lost.
    """

    def __init__(
        self,
        world: Any,
        who: str,
        point: Callable[[str, str, Any], Awaitable[bool]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._world = world
        self._redis: Wire = world.redis
        self._loop = world.loop
        self._rng = world.rng
        self._faults: Faults = world.faults
        self._point = point
        self._spawn = spawn
        self.identity = Identity(who)
        self.trouble_at = float("-inf")

    def calm(self, now_ms: int) -> float:
        """The product's own."""
        return LedgerClient.calm(self, now_ms)  # type: ignore[arg-type]

    def text(self, script: Script) -> tuple[str, str]:
        """(SHA-1, text) of a script as this schedule runs it: with the simulated clock, perhaps without one of its rules."""
        texts: dict[str, tuple[str, str]] = self._world.texts
        known = texts.get(script.name)
        if known is None:
            body = script.text(CLOCK)
            for name in (script.name, "*"):
                for old, new in self._world.schedule.mutations.get(name, ()):
                    assert old in body or name == "*", f"{script.name} has no {old!r}: the mutant is void"
                    body = body.replace(old, new)
            known = texts[script.name] = (hashlib.sha1(body.encode()).hexdigest(), body)
        return known

    def _now_us(self) -> str:
        return str(int((self._loop.time() + self._world.skew) * 1_000_000))

    def _call(self, script: Script, args: tuple[Any, ...]) -> Any:
        """Runs a script once, between two looks of the world's watch."""
        sha, body = self.text(script)
        us, watch = self._now_us(), self._world.watch
        look = watch.before(script.name, args[4:])
        *seen, out = self._redis.pipeline([*look, ("EVALSHA", sha, 1, us, *args)])
        if isinstance(out, hiredis.ReplyError):
            if not str(out).startswith("NOSCRIPT"):
                raise out
            out = self._redis.pipeline([("EVAL", body, 1, us, *args)])[0]
            self._redis.commands -= 1  # whether the server knew the script is no part of the schedule
        if int(out[0]) >= 0:
            watch.after(self.identity, script.name, args[4:], out[1:], seen)
        return out

    def _again(self, script: Script, args: tuple[Any, ...], first: Any) -> None:
        """The same command a second time: it must answer the same (that it writes nothing has component tests)."""
        sha, _ = self.text(script)
        out = self._redis.execute_command("EVALSHA", sha, 1, self._now_us(), *args)
        skip = 2 if script.name == "claim" else 1
        if script.name == "claim" and first[1] != b"CLAIMED":
            skip = 1
        if out[skip:] != first[skip:]:
            self._world.violations.append(f"{script.name} sent again answered {out[skip:]} after {first[skip:]}")

    async def _travel(self, point: str, side: str, args: Any) -> bool:
        rng = self._rng
        slow = rng.random() < self._faults.slow
        takes = rng.uniform(1.0, 15.0) if slow else rng.uniform(0.0002, 0.003)
        await asyncio.sleep(min(takes, CALL_S))
        return await self._point(point, side, args) or takes > CALL_S

    async def found(self, *, stored_generation: int = 0) -> bool:
        ident = self.identity
        if await self._travel("found", "before", ()):
            raise Unreachable("refused")
        new = f"{self._rng.getrandbits(64):016x}"
        args = (ident.who, new, ident.ledger, ident.generation, ident.told, stored_generation, SETTLE_MS)
        out = self._redis.execute_command("EVAL", FOUND.text(CLOCK), 1, self._now_us(), *args)
        if int(out[4]):
            self._world.founded.append((self._loop.time(), int(out[1])))
        if await self._travel("found", "after", ()):
            raise Unreachable("lost reply")
        ident.ledger, ident.generation, ident.told = out[0].decode(), int(out[1]), int(out[2])
        ident.settle_ms = int(out[3])
        return bool(out[4])

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]:
        ident, rng = self.identity, self._rng
        guard = (ident.ledger, ident.generation, ident.who, ident.told)
        lost = await self._travel(script.name, "before", args)
        if lost or rng.random() < self._faults.refused:
            self.trouble_at = self._loop.time()
            raise Unreachable("refused")
        out = self._call(script, (*guard, *args))
        if script.name in SAME and int(out[0]) >= 0 and rng.random() < self._faults.twice:
            self._again(script, (*guard, *args), out)
        if script.name in HINTS:
            self._world.hint(HINTS[script.name], str(args[0]))
        lost = rng.random() < self._faults.lost_reply
        lost |= await self._travel(script.name, "after", args)
        if lost:
            self.trouble_at = self._loop.time()
            raise Unreachable("lost reply")
        if int(out[0]) < 0:
            raise Lost(script.name)
        if ident.ledger == guard[0]:
            ident.told = max(ident.told, int(out[0]))
        return list(out[1:])

    def post(self, script: Script, args: Arguments, landed: Callable[[list[Any] | None], None]) -> None:
        """As the product's client, but for the task: a process that is dead hears nothing, a paused one later."""

        async def ask() -> None:
            await asyncio.sleep(self._rng.uniform(0.0, PATIENCE_S))  # others may go along
            leaving = args()
            if leaving is None:
                return
            try:
                out = await self.run(script, *leaving)
            except (Lost, Unreachable):
                landed(None)
            else:
                landed(out)

        self._spawn(ask())

    async def read(self, *command: str | bytes | int) -> Any:
        return (await self.read_all([command]))[0]

    async def read_all(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Any]:
        """Several reads in one journey."""
        late = await self._travel("read", "before", ())
        if late or self._rng.random() < self._faults.refused:
            raise Unreachable("refused")
        if commands[0][0] == "TIME":
            us = int(self._now_us())
            return [[us // 1_000_000, us % 1_000_000]]
        return self._redis.pipeline(commands)
