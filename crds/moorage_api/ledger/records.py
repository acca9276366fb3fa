"""Typed shapes of what the ledger holds, read out of Redis' flat byte lists. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

LIVE = ("queued", "running", "closing")
ENDED = ("completed", "failed", "incomplete", "cancelled")


def text(value: Any) -> str:
    """A reply part as text: bytes, str, int or None (empty)."""
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def fields(flat: Sequence[Any] | Mapping[Any, Any] | None) -> dict[str, str]:
    """A HGETALL reply (flat list, or a mapping from a client that folds it) as a dict of text."""
    if not flat:
        return {}
    if isinstance(flat, Mapping):
        return {text(k): text(v) for k, v in flat.items()}
    return {text(flat[i]): text(flat[i + 1]) for i in range(0, len(flat), 2)}


class Entry(NamedTuple):
    """One line of a turn's log: which attempt (`begun`) and source event (`src`) it came from, and the event's JSON."""

    begun: int
    src: int
    data: bytes

    def encode(self) -> bytes:
        """`BEGUN SRC JSON`, as the log holds it."""
        return b"%d %d %s" % (self.begun, self.src, self.data)

    @classmethod
    def decode(cls, raw: bytes | str) -> Entry:
        """The entry of one list element."""
        data = raw.encode() if isinstance(raw, str) else raw
        begun, src, body = data.split(b" ", 2)
        return cls(int(begun), int(src), body)


CALLS = ("calls", "input_tokens", "output_tokens", "cached_tokens")
"""What the calls of a turn add up to, in the order in which `decide` writes it."""


@dataclass(frozen=True)
class TurnRecord:
    """The hash `t:R`. Times in epoch ms; `meta` is what the acceptor wrote, parsed."""

    response: str
    state: str
    session: str
    fence: int
    owner: str
    lease: int
    attempt: int
    begun: int
    cancel: bool
    deadline: int
    meta: dict[str, Any]
    input: str
    outcome: str
    terminal: str
    generation: int
    accepted: int
    ended: int
    delivered: bool
    raw: dict[str, str]

    @classmethod
    def parse(cls, response: str, flat: Any) -> TurnRecord | None:
        """The record of a HGETALL reply, or None when there is no such turn."""
        f = fields(flat)
        if "state" not in f:
            return None
        return cls(
            response=response,
            state=f["state"],
            session=f["session"],
            fence=int(f["fence"]),
            owner=f.get("owner", ""),
            lease=int(f.get("lease") or 0),
            attempt=int(f.get("attempt") or 0),
            begun=int(f.get("begun") or 0),
            cancel=f.get("cancel") == "1",
            deadline=int(f.get("deadline") or 0),
            meta=json.loads(f.get("meta") or "{}"),
            input=f.get("input", ""),
            outcome=f.get("outcome", ""),
            terminal=f.get("terminal", ""),
            generation=int(f.get("generation") or 0),
            accepted=int(f.get("accepted") or 0),
            ended=int(f.get("ended") or 0),
            delivered=f.get("delivered") == "1",
            raw=f,
        )

    @property
    def calls(self) -> dict[str, int] | None:
        """What its calls past the boundary added up to when its outcome was fixed; None before, and without any."""
        counts = self.raw.get("calls", "").split()
        return dict(zip(CALLS, map(int, counts), strict=True)) if counts else None

    def ends_with(self, entry: Entry | None) -> bool:
        """Whether the turn has ended and this is its terminal event.

        Record and log are read one after the other: Redis may have lost the one or the other, or been rolled back, in between.
        """
        return entry is not None and self.state in ENDED and entry.encode() == self.terminal.encode()


QUOTA = "disk quota"  # how the reason begins of a sandbox that was ended for what its agent wrote


@dataclass(frozen=True)
class SessionRecord:
    """The hash `s:KEY`. Times in epoch ms; `epoch` numbers the binding to a sandbox; `out`: why its volume was given up, while it is not
    decided what becomes of the session; `stuck`: what its callers are told, once it was decided that it waits."""

    key: str
    tenant: str
    agent: str
    user: str
    session: str
    partition: str
    state: str
    epoch: int
    sandbox: str
    endpoint: str
    secret: str
    volume: str
    revision: str
    running: str
    active: int
    created: int
    bound: int
    claimed: int
    announced: int
    reason: str
    stop: bool
    saved: str
    restore: bool
    kept: bool
    out: str
    stuck: str

    @property
    def leaves(self) -> bool:
        """Whether its volume was given up while it has a use for it. A sleeping one has none, whatever an older gateway left in `out`."""
        return bool(self.out) and self.state in ("claimed", "draining", "waking")

    @property
    def has_files(self) -> bool:
        """Whether its volume holds what the session wrote: it was bound there, or woke on it."""
        return bool(self.volume) and bool(self.bound or self.kept or self.state in ("waking", "hibernated"))

    @classmethod
    def parse(cls, key: str, flat: Any) -> SessionRecord | None:
        """The record of a HGETALL reply, or None when there is no such session."""
        f = fields(flat)
        if "state" not in f:
            return None
        return cls(
            key=key,
            tenant=f.get("tenant", ""),
            agent=f.get("agent", ""),
            user=f.get("user", ""),
            session=f.get("session", ""),
            partition=f.get("partition", ""),
            state=f.get("state", ""),
            epoch=int(f.get("epoch") or 0),
            sandbox=f.get("sandbox", ""),
            endpoint=f.get("endpoint", ""),
            secret=f.get("secret", ""),
            volume=f.get("volume", ""),
            revision=f.get("revision", ""),
            running=f.get("running", ""),
            active=int(f.get("active") or 0),
            created=int(f.get("created") or 0),
            bound=int(f.get("bound") or 0),
            claimed=int(f.get("claimed") or 0),
            announced=int(f.get("announced") or 0),
            reason=f.get("reason", ""),
            stop=f.get("stop") == "1",
            saved=f.get("saved", ""),
            restore=f.get("restore") == "1",
            kept=f.get("kept") == "1",
            out=f.get("out", ""),
            stuck=f.get("stuck", ""),
        )


@dataclass(frozen=True)
class Descriptor:
    """One sandbox as its provider offers it. `endpoint` is `unix:/path` or `http://host:port`; `pids` are host pids."""

    sandbox: str
    tenant: str
    agent: str
    revision: str
    endpoint: str
    secret: str
    volume: str
    pids: tuple[int, ...] = ()

    def to_json(self) -> str:
        """Flat JSON of text, as the scripts store it."""
        return json.dumps(
            {
                "sandbox": self.sandbox,
                "tenant": self.tenant,
                "agent": self.agent,
                "revision": self.revision,
                "endpoint": self.endpoint,
                "secret": self.secret,
                "volume": self.volume,
                "pids": json.dumps(list(self.pids)),
            }
        )

    @classmethod
    def parse(cls, flat: Any) -> Descriptor | None:
        """The descriptor of a HGETALL reply of `x:ID`, or None."""
        f = fields(flat)
        if "sandbox" not in f:
            return None
        return cls(
            sandbox=f["sandbox"],
            tenant=f.get("tenant", ""),
            agent=f.get("agent", ""),
            revision=f.get("revision", ""),
            endpoint=f.get("endpoint", ""),
            secret=f.get("secret", ""),
            volume=f.get("volume", ""),
            pids=tuple(json.loads(f.get("pids") or "[]")),
        )


@dataclass(frozen=True)
class SessionIdentity:
    """Whose session it is, as scripts that may create its record need it."""

    tenant: str
    agent: str
    user: str
    session: str
    partition: str
    revision: str = ""

    def to_json(self, **more: str) -> str:
        """JSON of text; `more` adds fields (the epoch of a restored route, say)."""
        return json.dumps(
            {
                "tenant": self.tenant,
                "agent": self.agent,
                "user": self.user,
                "session": self.session,
                "partition": self.partition,
                "revision": self.revision,
                **more,
            }
        )


@dataclass(frozen=True)
class Claim:
    """What `claim` found. `word`: ROUTE, CLAIMED (both have a route), WAKING, DRAINING, DELETED, SETTLING, ABSENT.

    `kept`: the volume was its workspace before. `restore`: its files are in a checkpoint and nowhere else.
    """

    word: str
    state: str = ""
    epoch: int = 0
    sandbox: str = ""
    endpoint: str = ""
    secret: str = ""
    bound: bool = False
    reason: str = ""
    volume: str = ""
    kept: bool = False
    restore: bool = False
