"""The audit log: who did what, with which outcome, in chains that show a change, a gap and a cut. Layer: gateway.

Each process writes one chain. A record holds the hash of the one before it and its own; a group of records is one immutable
object `audit/WRITER/SEGMENT.jsonl`; the head (sequence and hash) stands in Redis as well, so that a cut tail shows. Records
carry no content. An action that is audited first takes a place in the queue: when the store has been away so long that the
queue is full the action is refused, rather than done without a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from moorage_api.errors import ApiError, Kind
from moorage_api.ledger import keys
from moorage_api.ledger.script import LedgerError
from moorage_gateway.auth import Principal
from moorage_gateway.clock import Clock
from moorage_gateway.keys import Commands
from moorage_gateway.store import Store, StoreUnavailable

log = logging.getLogger("moorage.audit")

START = "0" * 64
ROOM = 10_000  # records that wait for the store
GROUP = 500  # records in one segment
LINGER = 0.5  # seconds a record waits for company
RETRY_FIRST = 0.2
RETRY_LAST = 10.0
TEXT = 256  # characters of any field
LISTED = 1_000

DONE = "ok"

_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")


@dataclass(frozen=True)
class Origin:
    """Which request an action came with."""

    request_id: str = ""
    trace_id: str = ""


@dataclass
class Entry:
    """What `recording` hands to its block, which may correct the object (an id made on the way) and the outcome."""

    object: str
    outcome: str = DONE


def new_writer(name: str) -> str:
    """The id of a new chain: a process never goes on with another's."""
    return f"{re.sub('[^a-z0-9-]', '-', name.lower())[:48]}-{secrets.token_hex(6)}"


def seal(record: dict[str, Any], previous: str) -> dict[str, Any]:
    """The record with `previous` and its own `hash` over everything else."""
    sealed = {**record, "previous": previous}
    return {**sealed, "hash": hashlib.sha256(_canonical(sealed)).hexdigest()}


class AuditLog:
    """The chain of this process. `run` writes it until cancelled, `aclose` writes what is left."""

    def __init__(self, store: Store, commands: Commands, clock: Clock, *, writer: str, room: int = ROOM) -> None:
        self.writer = writer
        self._store = store
        self._commands = commands
        self._clock = clock
        self._room = room
        self._reserved = 0
        self._waiting: deque[dict[str, Any]] = deque()
        self._sequence = 0
        self._segment = 0
        self._previous = START
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._ready: tuple[str, bytes, dict[str, Any], int] | None = None

    @contextlib.asynccontextmanager
    async def recording(
        self, caller: Principal, action: str, object: str, origin: Origin | None = None
    ) -> AsyncIterator[Entry]:
        """Records what the block does: `ok`, or the kind of the ApiError it raises, or `failed`.

        UNAVAILABLE before the block runs when there is no room for one more record.
        """
        if self._reserved + len(self._waiting) >= self._room:
            raise ApiError(
                Kind.UNAVAILABLE,
                "The audit log cannot be written, so nothing that must be audited is done. Check the object store.",
                retry_after=5,
            )
        self._reserved += 1
        entry = Entry(object)
        try:
            yield entry
        except ApiError as error:
            entry.outcome = error.kind.value
            raise
        except asyncio.CancelledError:
            entry.outcome = "cancelled"
            raise
        except BaseException:
            entry.outcome = "failed"
            raise
        finally:
            self._reserved -= 1
            self._append(caller, action, entry, origin or Origin())

    def record(self, caller: Principal, action: str, object: str, outcome: str, origin: Origin | None = None) -> None:
        """Records something that has happened. It is never refused: what already happened must not go missing."""
        self._append(caller, action, Entry(object, outcome), origin or Origin())

    async def run(self) -> None:
        """Writes groups until cancelled; a store or Redis that is away is asked again, without end."""
        pause = RETRY_FIRST
        while True:
            await self._wake.wait()
            await self._clock.sleep(LINGER)
            try:
                await self.flush()
                pause = RETRY_FIRST
            except (StoreUnavailable, LedgerError) as error:
                log.warning("%d audit records wait for the store: %s", len(self._waiting), error)
                await self._clock.sleep(pause)
                pause = min(2 * pause, RETRY_LAST)

    async def flush(self) -> None:
        """Writes all that waits. Raises StoreUnavailable or LedgerError; then it is still waiting."""
        async with self._writing:
            while self._waiting or self._ready:
                await self._write_group()
            self._wake.clear()

    async def aclose(self, *, within: float = 5.0) -> int:
        """Writes what is left, trying for `within` seconds. The number of records that could not be written."""
        until = self._clock.monotonic() + within
        while self._waiting or self._ready:
            try:
                async with asyncio.timeout(max(0.1, until - self._clock.monotonic())):
                    await self.flush()
            except (StoreUnavailable, LedgerError, TimeoutError) as error:
                if self._clock.monotonic() >= until:
                    for record in self._waiting:
                        # The last resort: the process log keeps what the store did not take.
                        log.error("audit record not stored: %s", _canonical(record).decode())
                    log.error("%d audit records were not stored: %s", len(self._waiting), error)
                    return len(self._waiting)
                await self._clock.sleep(RETRY_FIRST)
        return 0

    def _append(self, caller: Principal, action: str, entry: Entry, origin: Origin) -> None:
        self._waiting.append(
            {
                "time": self._clock.now_ms(),
                "tenant": caller.tenant,
                "user": caller.user,
                "key": caller.key_id,
                "action": action,
                "object": _plain(entry.object),
                "outcome": _plain(entry.outcome),
                "request_id": _plain(origin.request_id),
                "trace_id": _plain(origin.trace_id),
            }
        )
        self._wake.set()

    async def _write_group(self) -> None:
        """One segment: the object first, then the head. Sent again after a failure, it is the same bytes under the same key."""
        if self._ready is None:
            self._ready = self._sealed_group()
        key, data, last, count = self._ready
        await self._store.put(key, data)
        await self._commands.read("SADD", keys.AUDIT_WRITERS, self.writer)
        await self._commands.read(
            "HSET", keys.audit_head(self.writer), "sequence", last["sequence"], "hash", last["hash"]
        )
        for _ in range(count):
            self._waiting.popleft()
        self._sequence, self._previous = last["sequence"], last["hash"]
        self._segment += 1
        self._ready = None

    def _sealed_group(self) -> tuple[str, bytes, dict[str, Any], int]:
        sequence, previous = self._sequence, self._previous
        lines: list[bytes] = []
        sealed: dict[str, Any] = {}
        for record in list(self._waiting)[:GROUP]:
            sequence += 1
            sealed = seal({"sequence": sequence, "writer": self.writer, **record}, previous)
            previous = sealed["hash"]
            lines.append(_canonical(sealed))
        key = f"audit/{self.writer}/{self._segment + 1:08d}.jsonl"
        return key, b"\n".join(lines) + b"\n", sealed, len(lines)


def _plain(text: str) -> str:
    """One bounded line: no record can forge another, or a terminal's colours."""
    return _CONTROL.sub("?", text)[:TEXT]


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
