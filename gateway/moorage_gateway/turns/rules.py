"""The pure rules of a turn: what follows a fault, when a turn is given up, what an idle sandbox gets.

No I/O, no clock: `now` and the record are arguments. Source of every number: turns.md §2, hostedagent.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage_api.kinds import quantities
from moorage_api.ledger.records import QUOTA

MAX_PLATFORM_FAULTS = 20
BOUNDARY = "boundary"  # an answer from outside broke off after the agent saw its beginning (turns.md §6)
POISON = 2  # agent faults of one cause at one progress

AGENT_FAULTS = frozenset({"exit", "oom", "hang", "cut", "not_ready", "quota"})


@dataclass(frozen=True)
class Fault:
    """Why an attempt ended without an outcome. `cause` is a word; `detail` and `log_tail` are for people."""

    cause: str
    detail: str = ""
    log_tail: tuple[str, ...] = ()

    @property
    def agent(self) -> bool:
        """Whether the agent is to blame (it counts against maxAttempts)."""
        return self.cause in AGENT_FAULTS


def blamed(fault: Fault, reason: str) -> Fault:
    """The fault of an attempt whose sandbox was ended under it, once the provider's reason is known: a full disk is the agent's own."""
    return Fault("quota", reason, fault.log_tail) if reason.startswith(QUOTA) else fault


@dataclass(frozen=True)
class GiveUp:
    """The turn ends `failed`: no further attempt. `code` and `message` reach the caller."""

    code: str
    message: str


@dataclass(frozen=True)
class Again:
    """Another attempt, after `delay` seconds."""

    delay: float


def next_attempt(
    attempts: Sequence[dict[str, Any]], progress: int, max_attempts: int, *, durable: bool
) -> Again | GiveUp:
    """What follows the faults so far.

    attempts | meaning of a record's fields used here: `fault` (word or None), `progress` (log length when it ended), `calls` (how
             | many past the boundary were recorded then); the argument `progress` is the sum of both now

    faults                                              | verdict
    ----------------------------------------------------|----------------------------------------
    none                                                | again, at once
    durableState false, one started attempt             | give up
    2 agent faults of one cause at this same progress   | give up: poison
    `max_attempts` agent faults without progress        | give up
    20 platform faults                                  | give up
    else                                                | again; agent faults, and answers that break off, back off
    """
    faults = [a for a in attempts if a.get("fault")]
    started = [a for a in faults if a.get("started")]
    if not faults:
        return Again(0.0)
    last = faults[-1]
    if not durable and started:
        return GiveUp(
            "agent_failed", f"The agent stopped ({describe(last)}), and its manifest sets durableState: false."
        )
    stalled = []
    for a in reversed(faults):
        if int(a.get("progress", 0)) + int(a.get("calls", 0)) < progress:
            break
        if a["fault"] in AGENT_FAULTS:
            stalled.append(a)
    causes = [a["fault"] for a in stalled]
    for cause in set(causes):
        if causes.count(cause) >= POISON:
            return GiveUp("agent_failed", f"The agent stopped twice at the same point: {describe(last)}")
    if len(stalled) >= max_attempts:
        return GiveUp("agent_failed", f"The agent stopped {len(stalled)} times without progress: {describe(last)}")
    broken = _last_in_a_row(faults, BOUNDARY)
    platform = [a for a in faults if a["fault"] not in AGENT_FAULTS]
    if len(platform) >= MAX_PLATFORM_FAULTS:
        return GiveUp("server_error", f"The platform lost {len(platform)} sandboxes under this turn: {describe(last)}")
    # A server whose answers break off is paid for each of them: it gets time, a lost sandbox does not.
    waits = max(len(stalled), broken)
    return Again(0.0 if not waits else min(5.0, 0.25 * 2**waits))


def _last_in_a_row(faults: Sequence[dict[str, Any]], cause: str) -> int:
    return next((n for n, a in enumerate(reversed(faults)) if a["fault"] != cause), len(faults))


def describe(attempt: dict[str, Any]) -> str:
    """One sentence about how an attempt ended, with its last log lines."""
    tail = attempt.get("log_tail") or []
    text = str(attempt.get("fault", "lost"))
    if attempt.get("detail"):
        text += f" ({attempt['detail']})"
    return text + ("; last log lines:\n" + "\n".join(tail[-10:]) if tail else "")


@dataclass(frozen=True)
class Lifetimes:
    """A session's clocks in ms (hostedagent.md `session`); `archive` is the platform's, 0: never."""

    idle: int
    max_life: int
    retention: int
    archive: int = 0


@dataclass(frozen=True)
class Look:
    """What to do with a session now, and when to look again (epoch ms). `action`: keep, drain, archive, delete."""

    action: str
    at: int
    reason: str = ""
    idle_before: int = 0


def look(state: str, *, running: bool, active: int, claimed: int, stop: bool, life: Lifetimes, now: int) -> Look:
    """What a session gets. A claimed one is idle since its last activity, or since it got its sandbox if that is later.

    state              | turn | stop asked | idle for | age    | action
    -------------------|------|------------|----------|--------|-----------------------------------
    claimed            | yes  | any        | any      | any    | keep; look again when it could end
    claimed            | no   | yes        | any      | any    | drain
    claimed            | no   | no         | any      | >= max | drain (replaced on the next call)
    claimed            | no   | no         | >= idle  | < max  | drain, if still idle since then
    claimed            | no   | no         | < idle   | < max  | keep; look when either limit comes
    draining           | any  | any        | any      | any    | drain: whoever began it may be dead
    waking             | any  | any        | any      | any    | keep; look again soon
    hibernated         | no   | any        | >= archive, < retention | any | archive
    new, hibernated, archived | no | any   | >= retention | any | delete
    new, hibernated, archived | no | any   | < retention  | any | keep; look at its end
    """
    if state == "claimed":
        active = max(active, claimed)
        if running:
            return Look("keep", now + 5_000)
        if stop:
            return Look("drain", now + 1_000, "stopped")
        if now - claimed >= life.max_life:
            return Look("drain", now + 5_000, "maximum lifetime")
        if now - active >= life.idle:
            return Look("drain", now + 5_000, "idle", idle_before=now - life.idle)
        return Look("keep", min(active + life.idle, claimed + life.max_life))
    if state == "draining":
        return Look("drain", now + 5_000, "drain resumed")
    if state == "waking":
        return Look("keep", now + 5_000)
    if running:
        return Look("keep", now + 30_000)
    return _resting(state, active, life, now)


def _resting(state: str, active: int, life: Lifetimes, now: int) -> Look:
    """The last rows of `look`: a session without a sandbox and without a turn."""
    if now - active >= life.retention:
        return Look("delete", now + 60_000, "retention")
    if state == "hibernated" and life.archive:
        if now - active >= life.archive:
            return Look("archive", active + life.retention)
        return Look("keep", min(active + life.archive, active + life.retention))
    return Look("keep", active + life.retention)


@dataclass(frozen=True)
class Limits:
    """What one turn may use; from the agent's spec and the gateway's settings."""

    timeout_s: float = 1800.0
    max_attempts: int = 3
    acquire_s: float = 60.0
    queue: int = 8
    durable: bool = True
    log_bytes: int = 64 * 1024 * 1024
    checkpoint: bool = False  # durability: turn
    restores: bool = False  # retryWorkspace: restore
    extra: dict[str, Any] = field(default_factory=dict)


def lifetimes(spec: dict[str, Any], *, archive_ms: int = 0) -> Lifetimes:
    """The session clocks of a published spec; the manifest's defaults where the agent is gone."""
    session = spec.get("session") or {}
    return Lifetimes(
        idle=int(quantities.seconds(str(session.get("idleTimeout") or "15m")) * 1000),
        max_life=int(quantities.seconds(str(session.get("maxLifetime") or "8h")) * 1000),
        retention=int(quantities.seconds(str(session.get("retention") or "30d")) * 1000),
        archive=archive_ms,
    )


def limits(spec: dict[str, Any], *, acquire_s: float, log_bytes: int) -> Limits:
    """What a turn of an agent with this spec may use."""
    turn, session = spec.get("turn") or {}, spec.get("session") or {}
    keeps = bool((spec.get("workspace") or {}).get("fileSystem", True))
    return Limits(
        timeout_s=float(quantities.seconds(str(turn.get("timeout") or "30m"))),
        max_attempts=int(turn.get("maxAttempts") or 3),
        acquire_s=acquire_s,
        queue=int(session.get("queue", 8)),
        durable=bool(turn.get("durableState", True)),
        log_bytes=log_bytes,
        checkpoint=turn.get("durability") == "turn" and keeps,
        restores=turn.get("retryWorkspace") == "restore" and keeps,
    )
