"""What is kept of a routine between two looks: JSON in the ledger. Layer: gateway, values only. Times are milliseconds since 1970."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import orjson

Phase = Literal["starting", "running", "waiting"]
AlertKind = Literal["failed", "resolved", "stopped"]
"""`failed` opens an incident, `resolved` ends it, `stopped` says that the routine runs no more."""
Outcome = Literal["succeeded", "failed", "timed_out", "cancelled", "replaced", "skipped", "missed"]

NEVER: frozenset[Outcome] = frozenset({"skipped", "missed"})
"""Of due times that are not run."""

RUN = "run_"
"""Begins the id of a run."""
INVOCATION = "inv_"
"""Begins the id of an invocation, where a turn's is that of its response."""
MOST_TEXT = 4000
"""Characters kept of what a run said, and of why it failed: enough for a template, an alert and a list."""


def is_invocation(name: str) -> bool:
    """Whether a try is an invocation, and no turn."""
    return name.startswith(INVOCATION)


@dataclass(frozen=True)
class Run:
    """The run that goes on. A try is one turn or invocation; `phase` says of the newest whether it is still to be accepted, runs, or is
    waited for."""

    id: str
    slot: int
    manual: bool = False
    number: int = 1
    """Which try it is, from 1."""
    phase: Phase = "starting"
    responses: tuple[str, ...] = ()
    """Ids of the turns or invocations, in order; the last is that of this try once it is accepted."""
    claimed: str = ""
    """The id that the turn or invocation of this try has, accepted or not, from before it is: whatever becomes of the manifest, it can be
    cancelled."""
    began: int = 0
    until: int = 0
    """When this try's time is over; 0 before it was accepted."""
    again: int = 0
    """When the next try begins (`waiting`)."""
    error: str = ""
    """Why the try before failed."""
    called_off: bool = False
    """Somebody ended it: however its try ends, no other is made."""


@dataclass(frozen=True)
class Last:
    """The newest run that ended: what a template may hold of it, and a list shows."""

    outcome: Outcome
    slot: int
    ended: int
    response: str = ""
    output: str = ""
    error: str = ""
    run: str = ""


@dataclass(frozen=True)
class Alert:
    """Something one target is still to be told, or (`dead`) was not told in time. `id` is the same for every try to tell it."""

    id: str
    target: str
    kind: AlertKind
    run: str
    slot: int
    ended: int
    outcome: Outcome
    failures: int
    error: str = ""
    response: str = ""
    tries: int = 0
    at: int = 0
    """When it is tried next; of a dead one, when it was given up."""
    why: str = ""
    """How the last try failed."""


@dataclass(frozen=True)
class State:
    """`cursor`: no due time up to here is looked at again. `timing`: the schedule that the cursor belongs to."""

    spec: str = ""
    """Digest of the spec that was seen last."""
    timing: str = ""
    cursor: int = 0
    run: Run | None = None
    queue: tuple[int, ...] = ()
    """Due times that wait for the run before them."""
    last: Last | None = None
    failures: int = 0
    """Failed runs in a row."""
    stopped: bool = False
    suspended: bool = False
    """By hand, beside what the manifest says."""
    incident: str = ""
    """Id of the run that failed first, while people know of it."""
    alerts: tuple[Alert, ...] = ()
    dead: tuple[Alert, ...] = ()
    ending: tuple[str, ...] = ()
    """Responses of replaced runs that are still to be cancelled: whoever looks does it, until it is done."""

    named: tuple[Ended, ...] = ()
    """Due times that are not run, of which the history may not say so yet: it does after the state that decided so, and not before."""

    kept: str = ""
    """`hold` as the object store was told it last."""

    @property
    def hold(self) -> str:
        """What the object store is to know, lest Redis lose it: what keeps it from running beside its manifest, and what goes on."""
        words = [word for word, said in (("suspended", self.suspended), ("stopped", self.stopped)) if said]
        if self.run is not None:
            words.append(
                f"{self.run.id}/{self.run.number}{'/waits' * (self.run.phase == 'waiting')}{'/off' * self.run.called_off}"
            )
        return " ".join([*words, *map(str, self.queue), *self.ending])

    @property
    def owes(self) -> bool:
        """Whether the store is to be told before anything else is done. That a run has ended, the history says."""
        return self.kept != self.hold and not (self.kept.startswith(RUN) and not self.hold)

    def to_json(self) -> str:
        """As the ledger keeps it."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The state behind `to_json`; a fresh one for "". Raises ValueError, KeyError or TypeError on anything else."""
        if not text:
            return cls()
        data: dict[str, Any] = orjson.loads(text)
        run, last = data.pop("run"), data.pop("last")
        if run is not None:
            run["responses"] = tuple(run["responses"])
        return cls(
            run=Run(**run) if run is not None else None,
            last=Last(**last) if last is not None else None,
            queue=tuple(data.pop("queue")),
            alerts=tuple(Alert(**each) for each in data.pop("alerts", ())),
            dead=tuple(Alert(**each) for each in data.pop("dead", ())),
            ending=tuple(data.pop("ending", ())),
            named=tuple(Ended.of(each) for each in data.pop("named", ())),
            **data,
        )


@dataclass(frozen=True)
class Ended:
    """A run that is over, or that never was: an entry of the history."""

    id: str
    slot: int
    outcome: Outcome
    ended: int
    began: int = 0
    manual: bool = False
    tries: int = 0
    responses: tuple[str, ...] = ()
    output: str = ""
    error: str = ""

    def to_json(self) -> bytes:
        """As the store keeps it."""
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The entry behind `to_json`. Raises ValueError or TypeError."""
        return cls.of(orjson.loads(data))

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """From its fields. Raises ValueError, KeyError or TypeError."""
        return cls(**{**data, "responses": tuple(data["responses"])})

    @property
    def last(self) -> Last:
        """What later runs are told of it."""
        response = self.responses[-1] if self.responses else ""
        return Last(self.outcome, self.slot, self.ended, response, self.output, self.error, self.id)


@dataclass(frozen=True)
class Turn:
    """How a run's turn, or invocation, stands. `missing`: nobody knows it (it was never accepted, or lost before anything else knew of
    it)."""

    status: Literal["missing", "open", "completed", "failed", "cancelled"]
    output: str = ""
    error: str = ""


@dataclass(frozen=True)
class Decision:
    """What follows from a look. `ended`: runs that are over, written before the state is: twice says the same, since it is named by the
    run."""

    state: State
    look: int
    start: bool = False
    """The state's run is to be accepted."""
    cancel: str = ""
    """The response of a run whose time is over."""
    ended: tuple[Ended, ...] = ()
