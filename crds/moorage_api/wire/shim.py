"""The calls between gateway and shim, and the frames of an attempt's stream. Layer: the floor.

Both ends import these shapes; the transport (unix socket or TCP, HTTP/1.1) is the caller's business. The rules behind the
fields are turns.md §3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

FRAMES = "application/x-moorage-frames"
ALIVE = "/livez"
"""GET, without a secret: 200 from a shim whose loop turns, and nothing else is said."""

Refusal = Literal[
    "other_session",
    "stale_epoch",
    "fenced",
    "draining",
    "unbound",
    "unknown",
    "not_ready",
    "starting",
    "not_kept",
    "damaged",
    "unfit",
]

EndKind = Literal["done", "cut", "http", "exit", "oom", "hang", "stopped", "superseded", "orphaned", "boundary"]


class _Call(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bind(_Call):
    """Binds a sandbox to a session. Repeating it is harmless; another session or a lower epoch is refused.

    `restore`: the checkpoint that its files come from. Until they are there the answer is `starting`; `damaged`, `not_kept`: they could
    not be had, and asking again tries again.
    """

    session: str
    epoch: int
    tenant: str
    agent: str
    session_id: str
    user: str
    gateways: list[str] = []
    restore: str = ""


class Start(_Call):
    """Starts an attempt: `fence` names it (`begun`). `deadline` is in seconds from now.

    `workspace` (`turn.retryWorkspace`): with `restore` the first attempt begins after a quiet checkpoint, a later one from it.
    """

    turn: str
    fence: int
    attempt: int
    session: str
    epoch: int
    deadline: float
    path: str = "/responses"
    headers: dict[str, str] = {}
    body: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    workspace: Literal["keep", "restore"] = "keep"


class Attach(_Call):
    """Takes over the stream of the attempt `begun`, from the frame after `src`."""

    turn: str
    fence: int
    begun: int
    src: int = 0


class Stop(_Call):
    """Ends the running attempt of `turn`; `grace` seconds before its processes are killed."""

    turn: str
    fence: int
    grace: float = 5.0


class Drain(_Call):
    """Asks for quiet: refused while a request is open or something was active after `idle_before` (epoch ms)."""

    session: str
    epoch: int
    idle_before: int


class Announcement(_Call):
    """What a shim tells the gateway about itself; routes return from it after Redis lost them.

    `secret` is empty where the shim knows only its hash: the gateway derives it (`tokens.sandbox_secret`).
    """

    sandbox: str
    session: str | None = None
    epoch: int = 0
    turn: str | None = None
    begun: int = 0
    state: Literal["unbound", "bound"]
    endpoint: str
    secret: str = ""
    session_id: str = ""
    user: str = ""
    pids: list[int] = []


class AnnouncementAnswer(BaseModel):
    """`epoch` is the highest one known for the session; a shim below it stops everything."""

    ok: bool = True
    epoch: int = 0
    gateways: list[str] = []


@dataclass(frozen=True)
class Acknowledged:
    """The attempt runs: from here a loss is an attempt, before it was only a retry."""

    begun: int


class Source(NamedTuple):
    """One event of the agent, numbered from 1 within its attempt; `data` is compact JSON. A tuple: one is made for every delta."""

    src: int
    data: bytes


@dataclass(frozen=True)
class End:
    """How the attempt ended. Kinds: see `EndKind`; `status`/`signal`/`body` where the kind has them."""

    kind: str
    detail: str = ""
    log_tail: list[str] = field(default_factory=list)
    status: int | None = None
    signal: int | None = None
    body: str | None = None


Frame = Acknowledged | Source | End
