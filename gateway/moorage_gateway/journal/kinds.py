"""What a kind of boundary call says of itself. Layer: shapes and one registry; the journal knows no kind by name.

A new kind (tools, agents, memory) is a class with `prefix` and `prepare`, added where the gateway is composed (`core.py`); its first part
of a path stands among `wire.calls.KINDS`. Who makes a call:

    Performed     this gateway, by `perform`
    Handed        the attempt itself, told so by `hand`; how it ended comes as a `Report`

    CallRefused   raised by `prepare`: nobody is asked; its answer is told and not recorded
    NothingSent   raised by `perform`: surely nothing reached anybody
    NoOutcome     raised by `perform`: it was sent, and no whole answer came
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard

from moorage_api.ledger.journal import Bounds, Outcome, Permits
from moorage_gateway.journal.answers import Answer, Headers


class CallRefused(Exception):
    """The call must not be made as it stands, or is answered here."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class NothingSent(Exception):
    """Nothing left this gateway; `str()` says why."""


class NoOutcome(Exception):
    """The other end may have done it; `str()` says what was seen."""


@dataclass(frozen=True)
class Asked:
    """One request as the agent made it, and whose agent that is. `spec`: its manifest as published; `session` and `turn` (empty outside of
    one): what the shim says, which is true by the time a call is made."""

    tenant: str
    agent: str
    spec: dict[str, Any]
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    session: str
    turn: str = ""


class Outlet(Protocol):
    """Where a call being made puts what comes of it."""

    async def sending(self) -> None:
        """Call it before anything is sent. Raises NothingSent when this gateway may not any more."""

    def begin(self, status: int, headers: Headers, *, streams: bool) -> None:
        """The answer's head. Without `streams` nothing is passed on before the whole answer is recorded."""

    def put(self, piece: bytes, *, last: bool = False) -> None:
        """The next piece. From the first one that is `last` on all is held until it is recorded. Raises NoOutcome: larger than may be."""

    def clear(self) -> None:
        """Forgets what was put, of which nothing was passed on: another try follows."""

    def note(self, outcome: Outcome) -> None:
        """What the call turned out to be: for its entry, its turn's sums and its purse. The last one counts; also of a try that broke."""

    @property
    def passed_on(self) -> bool:
        """Whether somebody may have seen a part of the answer."""

    @property
    def call_id(self) -> str:
        """The same for every try of this call, and no other call's: for whoever can tell by it that he has been asked before."""


@dataclass(frozen=True)
class Bounded:
    """What a call may cost, and what the agent is told where that is too much.

    `refuse` makes the answer, in the form of the protocol that was asked, from one of the ledger's words SHUT, RATE and SPENT, of what is
    short (`requests`, `tokens`, or nothing), and seconds until asking again may help.
    """

    bounds: Bounds
    refuse: Callable[[str, str, float], Answer]


class Prepared(Protocol):
    """What the journal needs to know of a call that may be made; it is `Performed` or `Handed`."""

    @property
    def fingerprint(self) -> str:
        """What makes it the same call in another attempt: hex, without dots."""

    @property
    def permits(self) -> Permits:
        """`once`: an effect."""

    @property
    def bounded(self) -> Bounded | None:
        """None: it costs nothing that is counted."""

    @property
    def what(self) -> dict[str, str]:
        """For traces and people; short, and nothing secret."""

    @property
    def tool(self) -> str:
        """What an effect calls, as its agent knows it: a later attempt's other call of it is turned away. Of a call that may be made again,
        what it has in common with those whose answer it may take in a later attempt. Empty: neither (turns.md §6)."""

    @property
    def call(self) -> str:
        """The call as its agent can read it, kept for whoever is turned away to it; at most `MAX_CALL` characters of it are."""

    def unknown(self) -> Answer:
        """What the agent gets where the outcome is not known."""

    def earlier(self, call: str, answer: Answer | None) -> Answer:
        """What the agent gets instead of this call: an earlier attempt's `call` of the same tool, and its answer (None: not known)."""


class Performed(Prepared, Protocol):
    """A call that the gateway makes."""

    async def perform(self, outlet: Outlet) -> None:
        """Makes it. Returns when the whole answer was put. Raises NothingSent, NoOutcome."""


class Handed(Prepared, Protocol):
    """A call that the attempt makes by itself."""

    def hand(self, mark: str) -> Answer:
        """Tells it so, with the mark that its report must bear. Without one nothing is recorded, and no report is wanted."""


# By the one method that makes each what it is: Python's own look at a Protocol costs as much as fingerprint and record together.


def is_performed(prepared: object) -> TypeGuard[Performed]:
    """Whether a prepared call is one that the gateway makes."""
    return hasattr(prepared, "perform")


def is_handed(prepared: object) -> TypeGuard[Handed]:
    """Whether it is one that the attempt makes by itself."""
    return hasattr(prepared, "hand")


@dataclass(frozen=True)
class Report:
    """How a handed call ended: `mark` is what `hand` gave, `answer` what later attempts get, `told` what the reporter does; `fault`: a word
    for traces, where it failed."""

    mark: str
    answer: Answer
    told: Answer
    what: dict[str, str]
    fault: str = ""


class Rendering(Protocol):
    """A prepared call whose answer depends on who asks for it: a later attempt that meets it again asked under another id. Its answers
    are told whole."""

    def shown(self, answer: Answer) -> Answer:
        """What this asker is told of what the journal holds, or of a refusal of the journal's."""


def is_rendering(prepared: object) -> TypeGuard[Rendering]:
    """Whether its answer depends on who asks."""
    return hasattr(prepared, "shown")


class CallKind(Protocol):
    """One kind of call."""

    prefix: str
    """Of the target, as `/models/`."""

    def prepare(self, asked: Asked) -> Performed | Handed | Report:
        """Raises CallRefused."""


class Kinds:
    """The registry: which kind a target is of."""

    def __init__(self, kinds: Sequence[CallKind]) -> None:
        self._kinds = tuple(kinds)

    def of(self, target: str) -> CallKind | None:
        """None: no such kind."""
        return next((kind for kind in self._kinds if target.startswith(kind.prefix)), None)
