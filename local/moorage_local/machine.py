"""Sandboxes as processes of this machine: a zygote a revision, an init and a shim a sandbox, a folder a volume.

Layer: local; the real `moorage_api.provider.base.Machine`. It knows how sandboxes are made and seen dead, not when: that is the provider's.
A sandbox ends as a whole: when its shim or its init ends, the other is ended too, and only then is its death told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from moorage_api import names, tokens
from moorage_api.kinds import quantities
from moorage_api.ledger.records import QUOTA, Descriptor, SessionIdentity
from moorage_api.provider.base import Death, MakeFailed, OutOfReach, Revision
from moorage_local import agent_logs, blueprint, cgroups, processes, sandboxes, shims, trees
from moorage_local.isolation import Isolation, IsolationError
from moorage_local.program import Program
from moorage_local.sandboxes import Sandbox
from moorage_local.shims import ShimFailed, ShimForkserver, ShimProcess
from moorage_local.state import State
from moorage_local.volume_store import Lease, Users, VolumeError, VolumeStore
from moorage_local.zygote import Zygote, ZygoteFailed
from moorage_sandbox.config import ShimConfig

log = logging.getLogger(__name__)

_RECORD = "sandboxes"
_GRACE = 3.0
_SLACK = 15.0  # for the shim to say itself why its agent was not ready: its words have the log lines
_GROWTH = 2**20
_FAR_OVER = 2  # times the quota
_TAIL = 20


@dataclass(frozen=True)
class MachineSettings:
    """Bounds in seconds. `gateways` and `egress` are asked at every start of a sandbox: ports may not be known before."""

    gateways: Callable[[], tuple[str, ...]]
    egress: Callable[[], str | None]
    on_line: Callable[[str, str], None] = lambda agent, line: None
    ready_within: float = 60.0
    measure_within: float = 2.0


@dataclass(eq=False)
class _Running:
    descriptor: Descriptor
    revision: Revision
    sandbox: Sandbox
    shim: ShimProcess
    lease: Lease
    inherited: bool
    watch: asyncio.Task[None] | None = None
    floor: int | None = None


class Machine:
    """Everything this machine runs for one platform. Made by `open_machine`."""

    outlives = False

    def __init__(
        self, state: State, isolation: Isolation, shim_maker: ShimForkserver, settings: MachineSettings
    ) -> None:
        plain = isolation.mode == "plain"
        self.isolation = isolation
        self.token_key = state.secret("token_key")
        self._state = state
        self._shims = shim_maker
        self._settings = settings
        self._store = VolumeStore(state.volumes, plain=plain)
        self._users = Users(state.root / "users.json", as_root=isolation.as_root and not plain)
        self._zygotes: dict[str, Zygote] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._running: dict[str, _Running] = {}
        self._dead: dict[str, Death] = {}
        self._wake: Callable[[], None] = lambda: None

    def watch(self, wake: Callable[[], None]) -> None:
        """See moorage_api.provider.base.Machine."""
        self._wake = wake

    def user_of(self, tenant: str, name: str) -> int | None:
        """The host's user for an agent, or for what is none; None where the platform is not root. Raises VolumeError."""
        return self._users.of(tenant, name)

    async def leftovers(self) -> list[str]:
        """Ends what an earlier run left; its recorded sandboxes are then certainly dead."""
        noted = self._state.remembered(_RECORD)
        for process in noted:
            processes.kill(process)
        for process in noted:
            await processes.end(process, grace=0.0, deadline=10.0)
        if self.isolation.groups is not None:
            await self.isolation.groups.sweep()
        found = sorted(path.name for path in (self._state.root / "running").glob("sb-*"))
        for sandbox in found:
            await sandboxes.end_marked(sandbox)
        await asyncio.to_thread(self._store.sweep)
        return found

    async def adopted(self) -> list[tuple[Revision, Descriptor]]:
        """None: they end with this process."""
        return []

    def strays(self) -> list[str]:
        """None: what is there, this process made."""
        return []

    def origin(self, tenant: str, agent: str, volume: str) -> tuple[str, str] | None:
        """None: a volume bears the mark of its own shim."""
        return None

    async def prepare(self, revision: Revision) -> None:
        """Starts the revision's zygote, or finds it running."""
        async with self._starting.setdefault(revision.key, asyncio.Lock()):
            zygote = self._zygotes.get(revision.key)
            if zygote is not None and zygote.alive:
                return
            if zygote is not None:
                await zygote.close()
            self._zygotes[revision.key] = await self._zygote(revision)

    async def _zygote(self, revision: Revision) -> Zygote:
        wanted = blueprint.zygote(
            revision,
            Program.of(revision),
            self._state,
            self._store.folder(revision.tenant, revision.agent),
            uid=self._users.of(revision.tenant, revision.agent),
            ready_within=self._settings.ready_within,
        )
        try:
            return await Zygote.start(
                wanted, self.isolation, on_line=lambda line: self._settings.on_line(revision.agent, line)
            )
        except ZygoteFailed as error:
            raise MakeFailed(str(error), error.log_tail[-_TAIL:]) from error
        except (IsolationError, OSError) as error:
            raise MakeFailed(f"{revision.agent}: {error}", fault=revision.spec.mounts != []) from error

    async def make(self, revision: Revision, sandbox: str, volume: str) -> Descriptor:
        """Makes init and shim on the volume and waits until the agent answers."""
        await self.prepare(revision)
        uid = self._users.of(revision.tenant, revision.agent)
        try:
            lease = self._store.hold(revision.tenant, revision.agent, volume, uid=uid)
        except VolumeError as error:
            raise MakeFailed(str(error), fault=False) from error
        try:
            floor = await self._room(revision, volume)
            running = await self._born(revision, sandbox, volume, lease)
            running.floor = floor
        except BaseException:
            lease.release()
            raise
        self._running[sandbox] = running
        running.watch = asyncio.create_task(self._watched(running), name=f"watch {sandbox}")
        return running.descriptor

    async def _room(self, revision: Revision, volume: str) -> int | None:
        """What a volume that a sandbox was ended for may hold now, None for any other.

        Far over its quota it is refused: each sandbox on it could add what it writes between two measurements.
        """
        place, most = (revision.tenant, revision.agent, volume), quantities.octets(revision.spec.workspace.size)
        if not self._store.is_full(*place):
            return None
        used = await self._store.usage(*place, within=self._settings.measure_within)
        if used.deep or used.octets > _FAR_OVER * most + _GROWTH:
            raise MakeFailed(
                f"{QUOTA}: the session's files take {used.octets // 2**20} MiB, more than {_FAR_OVER} times "
                f"spec.workspace.size ({revision.spec.workspace.size}); delete the session"
            )
        if used.complete and used.octets <= most:
            self._store.set_full(*place, full=False)
        return max(used.octets, most)

    async def _born(self, revision: Revision, sandbox: str, volume: str, lease: Lease) -> _Running:
        config = self._shim_config(revision, sandbox, volume)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        born: Sandbox | None = None
        shim: ShimProcess | None = None
        note = self._state.root / "running" / sandbox
        try:
            note.parent.mkdir(exist_ok=True)
            note.touch()
            born = await self._zygotes[revision.key].spawn(
                sandbox=sandbox,
                volume=self._store.path(revision.tenant, revision.agent, volume),
                control_fd=theirs.fileno(),
                limits=blueprint.limits(revision),
                env={**Program.of(revision).env, **revision.environment},
            )
            shim = await self._shims.spawn(
                config, control_fd=ours.fileno(), on_log=lambda line: self._settings.on_line(revision.agent, line)
            )
            async with asyncio.timeout(self._settings.ready_within + _SLACK):
                await asyncio.shield(shim.ready)
        except BaseException as fault:
            await self._undo(born, shim)
            note.unlink(missing_ok=True)
            raise _failure(fault) from fault
        finally:
            ours.close()
            theirs.close()
        descriptor = Descriptor(
            sandbox=sandbox,
            tenant=revision.tenant,
            agent=revision.agent,
            revision=revision.revision,
            endpoint=config.endpoint,
            secret=config.secret,
            volume=volume,
            pids=tuple(shim.host_pids),
        )
        self._record(also=descriptor.pids)
        inherited = self._store.bound(revision.tenant, revision.agent, volume) is not None
        return _Running(descriptor, revision, born, shim, lease, inherited)

    async def _undo(self, born: Sandbox | None, shim: ShimProcess | None) -> None:
        if shim is not None:
            shim.kill()
            await asyncio.shield(shim.exited)
        if born is not None:
            await born.kill()

    def _shim_config(self, revision: Revision, sandbox: str, volume: str) -> ShimConfig:
        return blueprint.shim(
            revision,
            tokens.Identity(sandbox, revision.tenant, revision.agent, revision.revision, volume),
            self._state,
            self._store.path(revision.tenant, revision.agent, volume),
            token_key=self.token_key,
            gateways=self._settings.gateways(),
            egress=self._settings.egress(),
            ready_within=self._settings.ready_within,
        )

    async def _watched(self, one: _Running) -> None:
        """Waits for the first of the two ends, ends the other, and tells the death."""
        ends: list[asyncio.Future[Any]] = [asyncio.ensure_future(one.sandbox.ended()), one.shim.exited]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await self._finish(one)
        self._wake()

    async def _finish(self, one: _Running) -> None:
        first = "init" if not one.sandbox.alive else "shim"
        one.shim.kill()
        death = await one.sandbox.kill()
        how = await asyncio.shield(one.shim.exited)
        one.lease.release()
        sandbox = one.descriptor.sandbox
        with contextlib.suppress(OSError):
            os.unlink(self._state.sockets / sandbox)
        reason = one.shim.reason or ("out of memory" if death.oom else f"its {first} ended")
        if how.signal is not None and first == "shim" and not one.shim.reason:
            reason = f"its shim was killed by signal {how.signal}"
        self._running.pop(sandbox, None)
        self._dead[sandbox] = Death(sandbox, reason)
        self._record()

    async def destroy(self, sandbox: str, reason: str) -> None:
        """Ends a sandbox: the shim gets a moment to end its streams, then everything is killed."""
        one = self._running.get(sandbox)
        if one is None:
            return
        with contextlib.suppress(ProcessLookupError):
            one.shim.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await asyncio.shield(one.shim.exited)
        one.shim.kill()
        if one.watch is not None:
            await asyncio.shield(one.watch)

    async def release(self, revision: str) -> None:
        """Ends the revision's zygote; sandboxes forked from it have ended before."""
        zygote = self._zygotes.pop(revision, None)
        self._starting.pop(revision, None)
        if zygote is not None:
            await zygote.close()

    def dead(self) -> list[Death]:
        """See moorage_api.provider.base.Machine."""
        return list(self._dead.values())

    def forget(self, sandbox: str) -> None:
        """See moorage_api.provider.base.Machine."""
        self._dead.pop(sandbox, None)
        (self._state.root / "running" / sandbox).unlink(missing_ok=True)

    def create_volume(self, revision: Revision) -> str:
        """See moorage_api.provider.base.Machine."""
        uid = self._users.of(revision.tenant, revision.agent)
        return self._store.create(revision.tenant, revision.agent, uid=uid)

    def has_volume(self, tenant: str, agent: str, volume: str) -> bool:
        """See moorage_api.provider.base.Machine."""
        return self._store.exists(tenant, agent, volume)

    def bound(self, tenant: str, agent: str, volume: str) -> tuple[str, int] | None:
        """See moorage_api.provider.base.Machine."""
        found = self._store.bound(tenant, agent, volume)
        return (found.session, found.epoch) if found is not None else None

    async def remove_volume(self, tenant: str, agent: str, volume: str) -> None:
        """See moorage_api.provider.base.Machine."""
        await asyncio.to_thread(self._store.remove, tenant, agent, volume)

    def volumes(self) -> list[tuple[str, str, str]]:
        """See moorage_api.provider.base.Machine."""
        return self._store.listed()

    def label(self, tenant: str, agent: str, volume: str) -> SessionIdentity | None:
        """See moorage_api.provider.base.Machine."""
        found = self._store.label(tenant, agent, volume)
        try:
            return SessionIdentity(**found) if found is not None else None
        except TypeError:
            return None

    async def set_label(self, one: Descriptor, epoch: int, identity: SessionIdentity) -> None:
        """See moorage_api.provider.base.Machine. Noted beside the sandbox's log too, for whoever asks for a session's lines."""
        key = names.session_key(identity.tenant, identity.partition)
        with contextlib.suppress(VolumeError, OSError):
            self._store.set_label(one.tenant, one.agent, one.volume, dict(identity.__dict__))
            agent_logs.note_session(self._state.logs, one, key)

    async def unfit(self) -> list[tuple[str, str]]:
        """Measures every running sandbox's volume. One that began over its quota may shrink, but not grow."""
        found = []
        for sandbox, one in list(self._running.items()):
            spec, at = one.revision.spec, one.descriptor
            most = quantities.octets(spec.workspace.size)
            used = await self._store.usage(at.tenant, at.agent, at.volume, within=self._settings.measure_within)
            if used.deep:  # what lies that deep is not counted, so it must not stay
                found.append((sandbox, f"{QUOTA}: folders more than {trees.DEEPEST} levels deep cannot be measured"))
            elif used.octets <= most:
                one.floor = most
            elif one.floor is None and one.inherited:
                one.floor = used.octets
            elif used.octets > (one.floor or most) + _GROWTH:
                text = f"{QUOTA}: {used.octets // 2**20} MiB in /workspace and $HOME, spec.workspace.size is {spec.workspace.size}"
                found.append((sandbox, text))
        for at in (self._running[sandbox].descriptor for sandbox, _ in found if sandbox in self._running):
            self._store.set_full(at.tenant, at.agent, at.volume, full=True)
        return found

    async def out_of_reach(self) -> list[OutOfReach]:
        """See moorage_api.provider.base.Machine: folders and processes are of this one."""
        return []

    abandon = remove_volume

    async def close(self) -> None:
        """Ends every sandbox and every zygote."""
        await asyncio.gather(*(self.destroy(sandbox, "closing") for sandbox in list(self._running)))
        await asyncio.gather(*(self.release(revision) for revision in list(self._zygotes)))

    def _record(self, *, also: tuple[int, ...] = ()) -> None:
        pids = [pid for one in self._running.values() for pid in one.descriptor.pids]
        pids += [zygote.pid for zygote in self._zygotes.values()]
        found = [processes.identify(pid) for pid in (*pids, *also)]
        self._state.remember(_RECORD, [process for process in found if process is not None])


@contextlib.asynccontextmanager
async def open_machine(state: State, isolation: Isolation, settings: MachineSettings) -> AsyncIterator[Machine]:
    """A machine with its shim forkserver, for as long as the context lasts."""
    maker = shims.ShimForkserver()
    await maker.start()
    machine = Machine(state, isolation, maker, settings)
    try:
        yield machine
    finally:
        await machine.close()
        await maker.close()


def _failure(fault: BaseException) -> BaseException:
    match fault:
        case ShimFailed():
            return MakeFailed(str(fault), fault.log_tail[-_TAIL:])
        case sandboxes.SandboxFailed() | sandboxes.StillAlive() | cgroups.CgroupBusy():
            return MakeFailed(str(fault), fault=False)
        case TimeoutError():
            return MakeFailed("its shim did not say that it is ready in time", fault=False)
        case OSError():
            return MakeFailed(f"the machine could not make it: {fault}", fault=False)
        case _:
            return fault
