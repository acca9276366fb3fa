"""Ledger calls of simulated processes: real scripts on a real Valkey, with everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import Callable, Mapping
from typing import Any

import hiredis

from moorage_api.ledger.script import FOUND, SETTLE_MS, Lost, Script, Unreachable

CLOCK = "{math.floor(tonumber(KEYS[1]) / 1000000), tonumber(KEYS[1]) % 1000000}"


class Wire:
    """The smallest client: one connection, one command at a time. A schedule makes thousands of calls."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(30)
        self._socket.connect(path)
        self._reader = hiredis.Reader()

    def execute_command(self, *command: str | bytes | int) -> Any:
        self._socket.sendall(hiredis.pack_command(command))
        return self._answer()

    def pipeline(self, commands: list[tuple[str | bytes | int, ...]]) -> list[Any]:
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
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply


class Dead(asyncio.CancelledError):
    """The process that asked was killed."""


class Faults:
    """How likely what is. All zero: a quiet world."""

    def __init__(self, *, lost_reply: float = 0.0, refused: float = 0.0, slow: float = 0.0) -> None:
        self.lost_reply = lost_reply
        self.refused = refused
        self.slow = slow


class SimRunner:
    """One process' way to Redis; implements `Runner`, `found`, and what `Recovery` needs of a client."""

    def __init__(
        self,
        redis: Wire,
        loop: Any,
        rng: random.Random,
        who: str,
        faults: Faults,
        mutations: Mapping[str, tuple[str, str]],
        gate: Any,
    ) -> None:
        from moorage_gateway.ledger_client import Identity

        self._redis = redis
        self._loop = loop
        self._rng = rng
        self._faults = faults
        self._mutations = mutations
        self._gate = gate
        self._texts: dict[str, tuple[str, str]] = {}
        self.identity = Identity(who)
        self.trouble_at = float("-inf")
        self.calls = 0
        self.on_found: Callable[[tuple[float, int]], None] | None = None

    def calm(self, now_ms: int) -> float:
        away = self.trouble_at + SETTLE_MS / 1000 - self._loop.time()
        return max(0.0, away, (self.identity.settle_ms - now_ms) / 1000)

    def text(self, script: Script) -> tuple[str, str]:
        known = self._texts.get(script.name)
        if known is None:
            body = script.text(CLOCK)
            for name in (script.name, "*"):
                change = self._mutations.get(name)
                if change is not None:
                    assert change[0] in body or name == "*", f"{script.name} has no {change[0]!r}: the mutant is void"
                    body = body.replace(*change)
            known = (hashlib.sha1(body.encode()).hexdigest(), body)
            self._texts[script.name] = known
        return known

    def _call(self, sha: str, body: str, args: tuple[Any, ...]) -> Any:
        us = str(int(self._loop.time() * 1_000_000))
        try:
            return self._redis.execute_command("EVALSHA", sha, 1, us, *args)
        except hiredis.ReplyError as fault:
            if not str(fault).startswith("NOSCRIPT"):
                raise
            return self._redis.execute_command("EVAL", body, 1, us, *args)

    async def _travel(self) -> None:
        slow = self._rng.random() < self._faults.slow
        await asyncio.sleep(self._rng.uniform(1.0, 15.0) if slow else self._rng.uniform(0.0002, 0.003))
        await self._gate()

    async def found(self, *, stored_generation: int = 0) -> bool:
        ident = self.identity
        await self._travel()
        args = (
            ident.who,
            f"{self._rng.getrandbits(64):016x}",
            ident.ledger,
            ident.generation,
            ident.told,
            stored_generation,
            SETTLE_MS,
        )
        us = str(int(self._loop.time() * 1_000_000))
        out = self._redis.execute_command("EVAL", FOUND.text(CLOCK), 1, us, *args)
        if int(out[4]) and self.on_found is not None:
            self.on_found((self._loop.time(), int(out[1])))
        await self._travel()
        ident.ledger, ident.generation, ident.told = out[0].decode(), int(out[1]), int(out[2])
        ident.settle_ms = int(out[3])
        return bool(out[4])

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]:
        self.calls += 1
        ident = self.identity
        guard = (ident.ledger, ident.generation, ident.who, ident.told)
        sha, body = self.text(script)
        await self._travel()
        if self._rng.random() < self._faults.refused:
            self.trouble_at = self._loop.time()
            raise Unreachable("refused")
        out = self._call(sha, body, (*guard, *args))
        lost = self._rng.random() < self._faults.lost_reply
        await self._travel()
        if lost:
            self.trouble_at = self._loop.time()
            raise Unreachable("lost reply")
        if int(out[0]) < 0:
            raise Lost(script.name)
        if ident.ledger == guard[0]:
            ident.told = max(ident.told, int(out[0]))
        return list(out[1:])

    async def read(self, *command: str | bytes | int) -> Any:
        await self._travel()
        if self._rng.random() < self._faults.refused:
            raise Unreachable("refused")
        return self._redis.execute_command(*command)
