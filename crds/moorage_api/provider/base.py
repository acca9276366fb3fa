"""The seams of a provider: the ledger it answers to, and the machine it makes sandboxes on.

Layer: the floor, pure shapes. `loop.Provider` is the loop between the two; `ProviderLedger` (Redis) is the real ledger; machines are
processes, pods, and objects in memory. All pass `tests/component/provider/conformance.py`.

    MakeFailed   one sandbox could not be made; the message and log lines say why
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from moorage_api.catalog import AgentEntry
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.ledger.provider import ApplyRequest, Asked
from moorage_api.ledger.records import Descriptor, SessionIdentity, SessionRecord
from moorage_api.printed import shown
from moorage_api.wire.calls import DOOR_PORT, TOOLBOXES_URL, agent_environment


@dataclass(frozen=True)
class Revision:
    """One immutable revision, ready to run, and the spec it was made from. `program` is what its machine runs, in that machine's words."""

    tenant: str
    agent: str
    revision: str
    spec: HostedAgentSpec
    contract: str
    program: object = None

    @property
    def key(self) -> str:
        """How a revision is named in tables and logs."""
        return f"{self.tenant}/{self.agent}/{self.revision}"

    @cached_property
    def wire_spec(self) -> dict[str, Any]:
        """The spec as others get it; made once, and nobody's to change."""
        return self.spec.model_dump(mode="json", by_alias=True)

    @property
    def door_variables(self) -> tuple[str, ...]:
        """Variables that point at the agent's door: those of model clients where it may use models, of toolboxes where it may use some."""
        own, spec = {variable.name for variable in self.spec.env}, self.spec
        found = agent_environment(DOOR_PORT, without=own)
        return tuple(name for name in found if (spec.toolboxes if name == TOOLBOXES_URL else spec.models))

    @property
    def environment(self) -> dict[str, str]:
        """The agent's variables: the manifest's own, and what the program is told of itself."""
        spec = self.spec
        manifest = {  # what a program's own flags are held against (hostedagent.md: the manifest is the truth)
            "protocols": spec.protocols,
            "turn": {"durableState": spec.turn.durable_state},
            "workspace": {"fileSystem": spec.workspace.file_system},
        }
        found = agent_environment(DOOR_PORT)
        doors = {name: found[name] for name in self.door_variables}
        return (
            doors
            | {variable.name: variable.value for variable in spec.env}
            | {
                "MOORAGE_AGENT": self.agent,
                "MOORAGE_TENANT": self.tenant,
                "MOORAGE_REVISION": self.revision,
                "MOORAGE_MANIFEST": json.dumps(manifest),
            }
        )


class MakeFailed(RuntimeError):
    """A sandbox (or the server it is forked from) did not get ready. `fault`: the agent's own, not the machine's."""

    def __init__(self, message: str, log_tail: Sequence[str] = (), *, fault: bool = True) -> None:
        self.message = message
        self.log_tail = tuple(log_tail)
        self.fault = fault
        lines = (shown(line).replace("\n", " ") for line in self.log_tail)
        tail = "\n".join(f"  | {line}" for line in lines)
        super().__init__(f"{message}\nIts last lines:\n{tail}" if tail else message)


@dataclass(frozen=True)
class Death:
    """A sandbox whose every process was seen dead: why, and its last lines."""

    sandbox: str
    reason: str
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutOfReach:
    """A volume that could not be used for longer than its machine waits, and the sandbox on it, "" where none gets there."""

    tenant: str
    agent: str
    volume: str
    sandbox: str
    reason: str


class Machine(Protocol):
    """Where sandboxes run. Every method is safe to repeat; none keeps a sandbox half made."""

    outlives: bool
    """Whether sandboxes go on when the provider ends: then `close` ends none, and the next provider finds them by `adopted`."""

    def watch(self, wake: Callable[[], None]) -> None:
        """`wake` is called when something may have died."""

    async def leftovers(self) -> list[str]:
        """Sandboxes of an earlier run, by now certainly dead. Called once, before anything else."""

    async def adopted(self) -> list[tuple[Revision, Descriptor]]:
        """Sandboxes of an earlier run that were ready once and live, with what they were made from. Called once, after `leftovers`."""

    def strays(self) -> list[str]:
        """Sandboxes that are there in whatever state and that no running `make` answers for. The loop ends those it does not hold."""

    async def prepare(self, revision: Revision) -> None:
        """Gets a revision ready to make sandboxes from. Raises MakeFailed."""

    async def make(self, revision: Revision, sandbox: str, volume: str) -> Descriptor:
        """A running sandbox on an existing volume. Raises MakeFailed; then nothing of it is left."""

    async def destroy(self, sandbox: str, reason: str) -> None:
        """Ends a sandbox; returns when every process of it was seen dead. Unknown ones are fine."""

    async def release(self, revision: str) -> None:
        """Ends what `prepare` keeps for a revision (by its `key`)."""

    def dead(self) -> list[Death]:
        """Sandboxes that died by themselves and were not yet taken by `forget`."""

    def forget(self, sandbox: str) -> None:
        """The death was reported; drops what is remembered."""

    def create_volume(self, revision: Revision) -> str:
        """A fresh volume."""

    def has_volume(self, tenant: str, agent: str, volume: str) -> bool:
        """Whether that volume is there."""

    def bound(self, tenant: str, agent: str, volume: str) -> tuple[str, int] | None:
        """(session key, epoch) the volume is bound to by its own marks, or None. A machine whose volumes bear no mark of the shim's
        learns it by `set_label`.
        """

    async def remove_volume(self, tenant: str, agent: str, volume: str) -> None:
        """Removes the volume; none there is fine."""

    def volumes(self) -> list[tuple[str, str, str]]:
        """(tenant, agent, volume) of all there are."""

    def origin(self, tenant: str, agent: str, volume: str) -> tuple[str, str] | None:
        """(the sandbox it was made for, the ledger known then) of a volume that outlives the provider; None of any other."""

    def label(self, tenant: str, agent: str, volume: str) -> SessionIdentity | None:
        """Whose session a volume was last noted to hold."""

    async def set_label(self, one: Descriptor, epoch: int, identity: SessionIdentity) -> None:
        """Notes on a sandbox's volume whose session it holds."""

    async def unfit(self) -> list[tuple[str, str]]:
        """(sandbox, reason) of those that must end: they hold more than their manifest allows, or part of them ended already."""

    async def out_of_reach(self) -> list[OutOfReach]:
        """What nobody can prove dead and nobody can use, as when a node is lost. A machine that is one with its volumes has none."""

    async def abandon(self, tenant: str, agent: str, volume: str) -> None:
        """That volume holds no session from here, whatever its marks say, and goes as soon as nothing runs on it."""

    async def close(self) -> None:
        """Ends everything."""


class Ledger(Protocol):
    """What the provider asks of Redis; `moorage_api.ledger.provider.ProviderLedger` is the real one."""

    async def offer(self, descriptor: Descriptor) -> bool: ...
    async def pool(self, tenant: str, agent: str, revision: str) -> list[str]: ...
    async def session(self, key: str) -> SessionRecord | None: ...
    async def holder(self, sandbox: str) -> str: ...
    async def sandboxes(self) -> list[str]: ...
    async def identity(self) -> str: ...
    async def asked(self) -> Asked: ...
    async def ready(self, session: str, epoch: int, descriptor: Descriptor) -> bool: ...
    async def unready(self, session: str, epoch: int, reason: str) -> None: ...
    async def gone(self, sandbox: str, reason: str) -> tuple[str, str]: ...
    async def doom(self, sandbox: str, reason: str) -> None: ...
    async def unkept(self, session: str, volume: str) -> None: ...
    async def out_of_reach(self, sandbox: str, session: str, volume: str, reason: str) -> str: ...
    async def abandoned(self, volume: str) -> None: ...
    async def removed(self, session: str) -> None: ...
    async def label(self, session: str, epoch: int, volume: str, identity: SessionIdentity) -> str: ...
    async def publish(self, entry: AgentEntry) -> bool: ...
    async def unpublish(self, tenant: str, agent: str) -> None: ...
    async def catalog(self) -> list[AgentEntry]: ...
    async def set_token_key(self, key: str) -> None: ...
    async def next_apply(self) -> ApplyRequest | None: ...
    async def answer(self, request_id: str, answer: dict[str, Any]) -> None: ...
