"""The door to routines in Redis: one method a script, typed. No decisions in here. Every method may raise `Lost` or `Unreachable`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from moorage_api.catalog import RoutineEntry
from moorage_api.catalog import field as catalog_field
from moorage_api.ledger import keys
from moorage_api.ledger.progress import ProgressLedger, Told
from moorage_api.ledger.records import fields, text
from moorage_api.ledger.routine_scripts import PUBLISH_ROUTINE, PUT_ROUTINE, TAKE_ROUTINES
from moorage_api.ledger.script import Runner

HOLD_MS = 15_000
"""How long a taken routine is left to who took it: longer than a turn's acceptance may last (`accepting.ACCEPT_S` and its object)."""


@dataclass(frozen=True)
class TakenRoutine:
    """A routine as it was at one moment. `spec` and `state` are JSON, "" where there is none."""

    field: str
    spec: str
    version: int
    state: str
    since: int = 0
    """When it was published (ms)."""


@dataclass(frozen=True)
class Standing:
    """What a custom resource's status says of a routine. Times are milliseconds since 1970; 0 and "": none."""

    next: int = 0
    last: int = 0
    outcome: str = ""
    response: str = ""
    failures: int = 0
    stopped: bool = False
    suspended: bool = False
    error: str = ""

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))


class RoutineLedger:
    """Routines in Redis."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def publish(self, entry: RoutineEntry) -> bool:
        """Makes it known, and due for a look; False when nothing changed."""
        out = await self._runner.run(PUBLISH_ROUTINE, entry.field, entry.to_json())
        return text(out[0]) == "OK"

    async def unpublish(self, tenant: str, name: str) -> None:
        """Takes it away; what became of its last run stays in the store."""
        await self._runner.run(PUBLISH_ROUTINE, catalog_field(tenant, name), "")

    async def entries(self) -> list[RoutineEntry]:
        """Every routine published."""
        found = fields(await self._runner.read("HGETALL", keys.ROUTINES))
        return [RoutineEntry.from_json(body) for body in found.values()]

    async def take(self, most: int) -> tuple[int, list[TakenRoutine]]:
        """Up to so many that are due, and the ledger's clock (ms). They are the caller's for `HOLD_MS`."""
        out = await self._runner.run(TAKE_ROUTINES, most, HOLD_MS)
        found = [
            TakenRoutine(text(out[at]), text(out[at + 1]), int(out[at + 2]), text(out[at + 3]), int(out[at + 4]))
            for at in range(1, len(out), 5)
        ]
        return int(out[0]), found

    async def put(self, field: str, version: int, state: str, look: int | None, shown: Standing | None = None) -> int:
        """The next state, and when to look again (ms; None leaves it): its version, 0 when it is another one by now. An empty state
        forgets it, and has 1."""
        said = "" if shown is None else shown.to_json()
        out = await self._runner.run(PUT_ROUTINE, field, version, state, "" if look is None else look, said)
        if text(out[0]) != "OK":
            return 0
        return int(out[1]) if len(out) > 1 else 1

    async def look(self, field: str) -> TakenRoutine | None:
        """A routine without taking it; None when it is not published."""
        spec = text(await self._runner.read("HGET", keys.ROUTINES, field))
        if not spec:
            return None
        version, state = await self._runner.read("HMGET", keys.routine(field), "version", "state")
        return TakenRoutine(field, spec, int(version or 0), text(state))

    async def standing(self, field: str) -> Standing | None:
        """How it stands, for its status; None before its first look."""
        found = text(await self._runner.read("HGET", keys.routine(field), "shown"))
        return Standing(**json.loads(found)) if found else None

    async def progress(self, response: str) -> Told | None:
        """How far a run's turn says that it is; None where it said nothing."""
        return await ProgressLedger(self._runner).of(response)

    async def earliest(self) -> int | None:
        """When the next one is due (ms)."""
        found = await self._runner.read("ZRANGE", keys.ROUTINES_DUE, 0, 0, "WITHSCORES")
        return int(float(found[1])) if len(found) > 1 else None
