"""The Redis client behind every ledger call: pipelined, guarded, counted.

Layer: I/O rim of the gateway (the local provider uses it too). Implements `moorage_api.ledger.script.Runner`. Calls made while a
pipeline is in flight share the next one (performance.md §4: appends of all turns share one pipeline). Nothing here decides.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from moorage_api import names
from moorage_api.ledger.records import text
from moorage_api.ledger.script import FOUND, REDIS_CLOCK, SETTLE_MS, Lost, Script, Unreachable

MAX_PIPELINE = 512  # commands in one pipeline
IN_FLIGHT = 2  # pipelines at once: one waits for its fsync while the next is filled
WAITAOF_MS = 2000
# Replies that say "not now" rather than "no": the server is loading, may not write, or is out of memory or disk.
NOT_NOW = ("LOADING", "MISCONF", "READONLY", "OOM", "BUSY", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")


class UnsafePolicy(Exception):
    """Redis may lose acknowledged writes (`appendfsync` is not `always`) and `relaxed` was not set."""


@dataclass
class _Pending:
    command: tuple[Any, ...]
    future: asyncio.Future[Any]
    effect: bool = False


@dataclass
class Identity:
    """Which ledger this writer knows, and what its witness counter was last told (turns.md §1)."""

    who: str
    ledger: str = ""
    generation: int = 0
    told: int = 0
    settle_ms: int = 0


class LedgerClient:
    """Runs ledger scripts and plain reads on one Redis primary.

    `found` must be called before the first script and after each `Lost`. Raises `Lost`, `Unreachable`.
    """

    def __init__(
        self, redis: aioredis.Redis, *, who: str, replicas: int = 0, call_timeout: float = 5.0, clock: str = REDIS_CLOCK
    ) -> None:
        self._redis = redis
        self._replicas = replicas
        self._timeout = call_timeout
        self._clock = clock
        self._scripts: dict[str, tuple[str, str]] = {}
        self._pending: list[_Pending] = []
        self._flights: set[asyncio.Task[None]] = set()
        self.identity = Identity(who)
        self.trouble_at = float("-inf")  # loop time of the last call without an answer (turns.md §7)
        self.commands = 0  # requests sent, a script counts one (performance.md §1)

    async def found(self, *, stored_generation: int = 0) -> bool:
        """Adopts the ledger, or makes the next generation after a loss. True when this call made one."""
        ident = self.identity
        out = await self._send(
            (
                "EVAL",
                FOUND.text(self._clock),
                0,
                ident.who,
                names.new_secret()[:16],
                ident.ledger,
                ident.generation,
                ident.told,
                stored_generation,
                SETTLE_MS,
            )
        )
        ident.ledger, ident.generation, ident.told = text(out[0]), int(out[1]), int(out[2])
        ident.settle_ms = int(out[3])
        return bool(out[4])

    async def check_policy(self, *, relaxed: bool) -> str:
        """The server's fsync policy; raises UnsafePolicy unless it is `always` or `relaxed` was set (turns.md §1)."""
        try:
            raw = await self._send(("CONFIG", "GET", "append*"))
        except ResponseError:
            return "unknown"  # a managed Redis forbids CONFIG: the operator of the platform vouches for it
        found = {text(k): text(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
        if not found and isinstance(raw, list):
            found = {text(raw[i]): text(raw[i + 1]) for i in range(0, len(raw), 2)}
        policy = found.get("appendfsync", "no") if found.get("appendonly") == "yes" else "no"
        if policy != "always" and not relaxed:
            raise UnsafePolicy(
                f"Redis runs with appendonly/appendfsync = {policy}; set 'appendonly yes' and 'appendfsync always', or set "
                "MOORAGE_DURABILITY=relaxed to accept that the last second may be lost"
            )
        return policy

    async def run(self, script: Script, *args: str | bytes | int) -> list[Any]:
        """One guarded script. Raises `Lost` on LOSS, `Unreachable` when no answer came."""
        ident = self.identity
        sha, body = self._loaded(script)
        guard = (ident.ledger, ident.generation, ident.who, ident.told)
        sent_to = ident.ledger
        try:
            out = await self._send(("EVALSHA", sha, 0, *guard, *args), effect=script.effect)
        except NoScriptError:
            out = await self._send(("EVAL", body, 0, *guard, *args), effect=script.effect)
        witness = int(out[0])
        if witness < 0:
            raise Lost(f"{script.name}: the ledger is not the one this process wrote to")
        if ident.ledger == sent_to and witness > ident.told:
            ident.told = witness
        return list(out[1:])

    async def read(self, *command: str | bytes | int) -> Any:
        """One plain command. Raises `Unreachable`."""
        return await self._send(command)

    def calm(self, now_ms: int) -> float:
        """Seconds until leases may be taken and attempts begun: 10 s after Redis was away or was founded anew.

        turns.md §7. After a roll-back the leases in Redis are old ones: their owners get the time to write theirs again.
        """
        away = self.trouble_at + SETTLE_MS / 1000 - asyncio.get_running_loop().time()
        return max(0.0, away, (self.identity.settle_ms - now_ms) / 1000)

    async def aclose(self) -> None:
        """Waits for what is in flight, then closes the connections."""
        while self._flights:
            await asyncio.gather(*self._flights, return_exceptions=True)
        await self._redis.aclose()

    def _loaded(self, script: Script) -> tuple[str, str]:
        known = self._scripts.get(script.name)
        if known is None:
            body = script.text(self._clock)
            known = (hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest(), body)
            self._scripts[script.name] = known
        return known

    async def _send(self, command: tuple[Any, ...], *, effect: bool = False) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(command, future, effect))
        if len(self._flights) < IN_FLIGHT:
            self._launch()
        return await future

    def _launch(self) -> None:
        task = asyncio.get_running_loop().create_task(self._fly())
        self._flights.add(task)

        def landed(done: asyncio.Task[None]) -> None:
            self._flights.discard(done)
            if self._pending and len(self._flights) < IN_FLIGHT:
                self._launch()

        task.add_done_callback(landed)

    async def _fly(self) -> None:
        batch, self._pending = self._pending[:MAX_PIPELINE], self._pending[MAX_PIPELINE:]
        batch = [p for p in batch if not p.future.done()]
        if not batch:
            return
        self.commands += len(batch)
        pipe = self._redis.pipeline(transaction=False)
        for item in batch:
            pipe.execute_command(*item.command)
        durable = self._replicas > 0 and any(p.effect for p in batch)
        if durable:
            pipe.execute_command("WAITAOF", 1, self._replicas, WAITAOF_MS)
        try:
            async with asyncio.timeout(self._timeout):
                answers = await pipe.execute(raise_on_error=False)
        except (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError) as fault:
            self.trouble_at = asyncio.get_running_loop().time()
            _fail(batch, Unreachable(f"no answer from Redis: {type(fault).__name__}"))
            return
        except RedisError as fault:
            _fail(batch, Unreachable(f"Redis refused the pipeline: {fault}"))
            return
        except Exception as fault:
            _fail(batch, fault)  # a mistake of ours: whoever waits must hear of it rather than wait for ever
            return
        if durable:
            acks = answers.pop()
            if not isinstance(acks, list) or acks[0] < 1 or acks[1] < self._replicas:
                _fail([p for p in batch if p.effect], Unreachable("not yet on the replicas' disks"))
        for item, value in zip(batch, answers, strict=True):
            _settle(item.future, value)


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, RedisConnectionError | RedisTimeoutError):
        future.set_exception(Unreachable("no answer from Redis"))
    elif isinstance(value, NoScriptError):
        future.set_exception(value)
    elif isinstance(value, Exception):
        if str(value).startswith(NOT_NOW) or type(value).__name__.startswith(("Busy", "OutOfMemory", "ReadOnly")):
            future.set_exception(Unreachable(str(value)))
        else:
            future.set_exception(value)
    else:
        future.set_result(value)


def _fail(batch: list[_Pending], fault: Exception) -> None:
    for item in batch:
        if not item.future.done():
            item.future.set_exception(fault)


class Recovery:
    """One refounding at a time after a `Lost`; whoever met the loss waits for the same one.

    `restore` (set by the composition) writes back what this process still knows, before anyone goes on.
    """

    def __init__(self, client: LedgerClient, *, stored_generation: Callable[[], Awaitable[int]]) -> None:
        self._client = client
        self._stored = stored_generation
        self._restorers: list[Callable[[], Awaitable[None]]] = []
        self._running: asyncio.Task[None] | None = None
        self._restored = client.identity.ledger
        self.losses = 0

    def adopted(self) -> None:
        """The first `found` of this process is no loss: nothing is restored for it."""
        self._restored = self._client.identity.ledger

    def on_loss(self, restorer: Callable[[], Awaitable[None]]) -> None:
        """Registers what is written back after a loss, in order of registration."""
        self._restorers.append(restorer)

    async def settled(self) -> None:
        """Returns at once, or when the recovery that runs now is over: nobody writes into a ledger half restored."""
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    async def recover(self) -> None:
        """Founds the ledger anew and restores. Raises `Unreachable`; a second loss in between starts over."""
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().create_task(self._recover())
        await asyncio.shield(self._running)

    async def _recover(self) -> None:
        ident = self._client.identity
        known = ident.ledger, ident.generation
        for _ in range(8):
            try:
                await self._client.found(stored_generation=await self._stored())
                if self._client.identity.ledger == self._restored:
                    return  # a stale refusal: this loss was mended already
                self.losses += 1
                for restorer in self._restorers:
                    await restorer()
                self._restored = self._client.identity.ledger
                return
            except Lost:
                continue
            except BaseException:
                # Half restored: the next script must be told LOSS again, or it writes before what was lost is back.
                if ident.ledger != self._restored:
                    ident.ledger, ident.generation = known
                raise
        ident.ledger, ident.generation = known
        raise Unreachable("the ledger keeps being lost")
