"""What a shim is told when it starts, and its bounds. Layer: the floor of this package; frozen values, no I/O.

A provider writes a `ShimConfig` as JSON; the shim reads it once and hands parts of it down.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Limits:
    """Every bound and deadline of a shim. Seconds and bytes."""

    body: int = 32 * 1024 * 1024
    """A JSON body of a shim call (input and history of a turn)."""
    buffer: int = 4 * 1024 * 1024
    """Frames of an attempt kept for a new owner (turns.md §3)."""
    window: int = 1024 * 1024
    """Of these, the last ones written to an owner that is gone: they may never have reached its log."""
    undelivered: int = 64 * 1024
    """Frames an owner has not taken before the shim stops reading from the agent."""
    ownerless: float = 120.0
    """An attempt without an owner ends after this long."""
    keepalive: float = 5.0
    """A stream that was silent this long gets a keep-alive frame."""
    announce: float = 10.0
    """Between two announcements."""
    announce_answer: float = 5.0
    """For one gateway to answer an announcement."""
    silence: float = 60.0
    """Without any answer from a gateway for this long, a bound shim stops everything."""
    checkpoint: float = 600.0
    """A bound sandbox with activity that no checkpoint has seen makes one so often; 0: never by itself."""
    tick: float = 2.0
    """Between two looks at the clocks above."""
    control: float = 8.0
    """For init to answer a spawn or a connect."""
    killall: float = 15.0
    """For init to see every process dead."""
    exit_notice: float = 1.0
    """After the agent's connection broke: how long to wait for the news of its process's death."""
    closing: float = 5.0
    """After the terminal event: how long the agent may take to end its stream."""
    relay_head: float = 600.0
    """For the agent to begin its answer to a relayed request."""
    agent_connect: float = 5.0
    """To open a connection to the agent."""
    connections: int = 512
    """Open connections at the shim's port, and at the agent's door."""
    log_file: int = 8 * 1024 * 1024
    """A log file is rotated at this size; one older file is kept."""
    log_line: int = 8 * 1024
    """Longer log lines are cut into pieces of this size."""
    call: float = 1800.0
    """For a call past the boundary to be answered, by whichever gateway."""
    call_room: int = 64 * 1024 * 1024
    """Bodies of such calls held at a time: each is kept until it is answered, to be sent again."""


@dataclass(frozen=True)
class ShimConfig:
    """One sandbox as its shim sees it. Raises ValueError unless exactly one of `secret` and `secret_sha256` is set.

    `secret` is what gateways show, `token` what the shim shows to them. In a pod, whose spec many may read, the shim is told only
    `secret_sha256` (`tokens.secret_sha256`), and shows beside its token what `token_file` holds: the pod's projected
    service-account token.
    """

    sandbox: str
    tenant: str
    agent: str
    revision: str
    endpoint: str
    token: str
    volume: str
    secret: str = ""
    secret_sha256: str = ""
    token_file: str | None = None
    gateways: tuple[str, ...] = ()
    egress: str | None = None
    contract: str = "moorage"
    readiness: str = "/readiness"
    port: int = 8088
    ready_timeout: float = 30.0
    env: dict[str, str] = field(default_factory=dict)
    keeps: bool = True
    """Whether the session's files outlive the sandbox, so that checkpoints are made of them."""
    notice: float = 0.0
    """Seconds for a last checkpoint once the machine said that this sandbox ends, less than a pod's grace; 0: it ends at once."""
    variables: tuple[str, ...] = ()
    """Of `wire.calls.agent_environment`, those that the agent gets: none where it may use no model."""
    log_file: str | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if bool(self.secret) == bool(self.secret_sha256):
            raise ValueError(
                "exactly one of secret and secret_sha256 is set: who calls this shim must show that one secret"
            )
        if self.secret_sha256 and not _SHA256.match(self.secret_sha256):
            raise ValueError("secret_sha256 is 64 lower-case hex digits")

    def to_json(self) -> str:
        """The text `from_json` reads."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ShimConfig:
        """Raises ValueError or TypeError for anything `to_json` would not write; unknown fields are refused."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ShimConfig:
        """The same, from a parsed object."""
        values = dict(data)
        values["gateways"] = tuple(values.get("gateways", ()))
        values["variables"] = tuple(values.get("variables", ()))
        values["limits"] = Limits(**values.get("limits", {}))
        return cls(**values)
