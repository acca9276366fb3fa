"""Programs of toolboxes (upstreams of type `stdio`) on this machine: one process beside the platform for each, and in it the program.

Layer: local. What runs a program is `moorage_sandbox.stdio`, outside of its namespaces, as a shim is outside of its sandbox; here it is
made, found by gateways, made anew when the manifest, its folder or a secret changes, and ended.

    isolated   the program is in namespaces of its own: this machine's system and its folder to read, a home folder to write, no network
    plain      a process of the user that runs the platform
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moorage_api import tokens
from moorage_api.kinds import quantities
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.source import Source
from moorage_api.kinds.stdio_server import StdioServer
from moorage_api.source_tree import SourceError
from moorage_local import bridges, cgroups, enclosure, sandboxes, sources
from moorage_local.blueprint import LAUNCHER
from moorage_local.bridges import Unready
from moorage_local.environments import BuildError, Environments
from moorage_local.isolation import Isolation, IsolationError
from moorage_local.manifests import FoundToolbox
from moorage_local.state import State
from moorage_local.volume_store import VolumeError

log = logging.getLogger(__name__)

LOOK_S = 2.0
FIRST_PAUSE_S, LAST_PAUSE_S = 1.0, 30.0
_PIDS = 256


@dataclass(frozen=True)
class _Wanted:
    """One program: whose it is, and the folder of its manifest."""

    toolbox: str
    upstream: str
    server: StdioServer
    base: Path

    @property
    def name(self) -> str:
        """As people know it."""
        return f"{self.toolbox}/{self.upstream}"


@dataclass(frozen=True)
class _Made:
    """All that a process is begun with: another one where any of it is another."""

    tree: Path
    path: str
    python: Path | None
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Around:
    """What a program is made of. `key_of` reads a secret, `user_of` gives a host's user where the platform is root; `private`: folders
    that no program may see."""

    tenant: str
    token_key: str
    key_of: Callable[[Credential], str | None]
    user_of: Callable[[str, str], int | None]
    private: tuple[Path, ...]


class Programs:
    """All of one platform. `placed` is told where they are reached, whenever that changes: toolbox → upstream → URL."""

    def __init__(
        self,
        state: State,
        isolation: Isolation,
        groups: cgroups.Cgroups | None,
        environments: Environments,
        around: Around,
        *,
        placed: Callable[[dict[str, dict[str, str]]], None],
        say: Callable[[str], None],
    ) -> None:
        self._state = state
        self._isolation = isolation
        self._groups = groups
        self._environments = environments
        self._around = around
        self._placed = placed
        self._say = say
        self._wanted: dict[str, _Wanted] = {}
        self._places: dict[str, dict[str, str]] = {}
        self._changed = asyncio.Event()
        self._save = asyncio.Event()  # the next one; each has an event of its own
        self._mark = f"programs-{hashlib.sha256(str(state.root).encode()).hexdigest()[:10]}"

    def use(self, found: Iterable[FoundToolbox]) -> None:
        """These from now on; their folders may have changed."""
        wanted = [
            _Wanted(one.toolbox.name, upstream.name, upstream.stdio, one.file.parent)
            for one in found
            for upstream in one.toolbox.spec.upstreams
            if upstream.stdio is not None
        ]
        self._wanted = {one.name: one for one in wanted}
        self._save.set()
        self._save = asyncio.Event()
        self._changed.set()

    async def run(self) -> None:
        """Runs what is wanted until cancelled; then none of their processes is left."""
        await sandboxes.end_marked(self._mark)  # what a platform left that was itself killed
        if self._groups is not None:
            await self._groups.sweep()
        running: dict[str, tuple[_Wanted, asyncio.Task[None]]] = {}
        try:
            while True:
                self._changed.clear()
                for name, (wanted, task) in list(running.items()):
                    if self._wanted.get(name) != wanted:
                        await _ended(task)
                        del running[name]
                for name, wanted in self._wanted.items():
                    if name not in running:
                        running[name] = wanted, asyncio.create_task(self._kept(wanted), name=f"program {name}")
                await self._changed.wait()
        finally:
            await asyncio.gather(*(_ended(task) for _, task in running.values()))
            await sandboxes.end_marked(self._mark)
            if self._groups is not None:
                await self._groups.close()

    async def _kept(self, wanted: _Wanted) -> None:
        """One of them, begun again and again."""
        pause, told = FIRST_PAUSE_S, ""
        while True:
            save = self._save
            try:
                made = await self._make(wanted)
                why = await self._lives(wanted, made, save)
                pause, told = FIRST_PAUSE_S, ""
            except (Unready, VolumeError, IsolationError, OSError) as fault:
                why = str(fault)
            if why is None:
                continue
            if why != told:  # once, not at every try
                self._say(f"{wanted.name}: {why}")
                told = why
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await save.wait()
                    pause = FIRST_PAUSE_S
            pause = min(2 * pause, LAST_PAUSE_S)

    async def _make(self, wanted: _Wanted) -> _Made:
        """Its folder as it is now, its environment, its secrets. Raises Unready."""
        server, found = wanted.server, self._secrets(wanted)
        for folder in self._around.private:
            if folder.resolve().is_relative_to(wanted.base.resolve()):
                raise Unready(f"{folder} lies in {wanted.base}, all of which the program may read; move one of them")
        try:
            source = Source(path=".")
            tree = await sources.resolve(
                source, base=wanted.base, tenant=self._around.tenant, root=self._state.sources, fetch=None
            )
            if server.requirements is None:
                return _Made(tree.path, self._path(None), None, found)
            env = await self._environments.of(tree.path, requirements=server.requirements, python=None)
        except (SourceError, BuildError) as fault:
            raise Unready(str(fault)) from fault
        return _Made(tree.path, self._path(env.path / "bin"), env.python, found)

    def _path(self, first: Path | None) -> str:
        system = os.environ.get("PATH", bridges.SYSTEM_PATH) if self._isolation.mode == "plain" else bridges.SYSTEM_PATH
        return f"{first}:{system}" if first is not None else system

    def _secrets(self, wanted: _Wanted) -> dict[str, str]:
        found = {name: self._around.key_of(credential) for name, credential in wanted.server.secrets.items()}
        missing = sorted(name for name, value in found.items() if value is None)
        if missing:
            raise Unready(f"is not begun: there is no secret for {', '.join(missing)}")
        return {name: value for name, value in found.items() if value is not None}

    async def _lives(self, wanted: _Wanted, made: _Made, save: asyncio.Event) -> str | None:
        """Its process from begin to end. Why it ended; None where it is to be made anew."""
        group = self._group(wanted)
        try:
            told = self._told(wanted, made, group.member_files() if group is not None else [])
            async with bridges.running(told, self._mark) as process:
                said = asyncio.create_task(self._printed(wanted, process), name=f"output of {wanted.name}")
                try:
                    port = await bridges.port(process)
                    self._place(wanted, f"http://127.0.0.1:{port}")
                    return await self._watched(wanted, made, save, process)
                finally:
                    self._place(wanted, None)
                    await _ended(said)
        except IsolationError as fault:
            raise Unready(str(fault)) from fault
        finally:
            if group is not None:
                await group.kill()
                await group.remove()

    async def _watched(
        self, wanted: _Wanted, made: _Made, save: asyncio.Event, process: asyncio.subprocess.Process
    ) -> str | None:
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await process.wait()
            try:
                if self._secrets(wanted) != made.secrets:
                    return None
                if save.is_set():
                    save = self._save
                    if await self._make(wanted) != made:
                        return None
            except Unready as fault:
                return str(fault)
        return f"what runs it ended with code {process.returncode}; it is begun again"

    def _group(self, wanted: _Wanted) -> cgroups.Cgroup | None:
        if self._groups is None:
            return None
        resources = wanted.server.resources
        limits = cgroups.Limits(
            quantities.octets(resources.memory), quantities.millicores(resources.cpu) / 1000, pids=_PIDS
        )
        return self._groups.create(hashlib.sha256(wanted.name.encode()).hexdigest()[:12], limits)

    def _told(self, wanted: _Wanted, made: _Made, groups: list[Path]) -> dict[str, Any]:
        """What `moorage_sandbox.stdio` is told. Raises IsolationError, OSError."""
        server, plain = wanted.server, self._isolation.mode == "plain"
        home = self._home(wanted)
        env = {
            "PATH": made.path,
            "LANG": "C.UTF-8",
            "HOME": str(home) if plain else enclosure.HOME,
            "TMPDIR": str(home / "tmp") if plain else "/tmp",
            sandboxes.MARK: self._mark,
            **{each.name: each.value for each in server.env if each.value is not None},
            **made.secrets,
        }
        inner, descriptor = [server.command, *server.args], secrets.token_hex(16)
        outer = {"env": bridges.environment(self._mark), "descriptor": descriptor}
        key = tokens.stdio_secret(self._around.tenant, wanted.toolbox, wanted.upstream, self._around.token_key)
        return {
            "argv": inner if plain else self._enclosed(wanted, made, home, inner, groups, descriptor),
            "env": env,
            "outer": None if plain else outer,
            "cwd": str(made.tree / server.working_dir) if plain else "/",
            "secrets": sorted(made.secrets),
            "memory": None if self._memory_kept else quantities.octets(server.resources.memory),
            "host": "127.0.0.1",
            "port": 0,
            "token_sha256": tokens.secret_sha256(key),
            "parent": os.getpid(),
        }

    @property
    def _memory_kept(self) -> bool:
        return self._groups is not None and "memory" in self._groups.controllers

    def _enclosed(
        self, wanted: _Wanted, made: _Made, home: Path, inner: list[str], groups: Iterable[Path], descriptor: str
    ) -> list[str]:
        """`descriptor`: by which it is told its environment."""
        system = enclosure.observe()
        folders = enclosure.python_folders(made.python) if made.python is not None else []
        binds = enclosure.shown_to(LAUNCHER, folders, system)
        binds += [
            enclosure.Bind(str(made.tree), enclosure.CODE),
            enclosure.Bind(str(home), enclosure.HOME, writable=True),
        ]
        uid = self._around.user_of(self._around.tenant, f"toolboxes/{wanted.name}")
        if uid is not None:
            os.chown(home, uid, uid)
        inside = f"{enclosure.CODE}/{wanted.server.working_dir}".rstrip("/")
        return enclosure.enclosed(self._isolation, binds, system.links, descriptor, inner, uid, groups, inside)

    def _home(self, wanted: _Wanted) -> Path:
        """What it may write: its own, and kept from start to start."""
        home = self._state.root / "programs" / wanted.toolbox / wanted.upstream
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._isolation.mode == "plain":
            shutil.rmtree(home / "tmp", ignore_errors=True)
            (home / "tmp").mkdir(mode=0o700)
        return home

    def _place(self, wanted: _Wanted, url: str | None) -> None:
        held = dict(self._places.get(wanted.toolbox, {}))
        if url is None:
            held.pop(wanted.upstream, None)
        else:
            held[wanted.upstream] = url
        self._places[wanted.toolbox] = held
        self._placed(self._places)

    async def _printed(self, wanted: _Wanted, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            self._say(f"{wanted.name} | {line.decode('utf-8', 'replace').rstrip()}")


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is not None:
        log.error("%s: %r", task.get_name(), task.exception())


def of_platform(
    state: State,
    isolation: Isolation,
    environments: Environments,
    around: Around,
    *,
    instance: str,
    placed: Callable[[dict[str, dict[str, str]]], None],
    say: Callable[[str], None],
) -> Programs:
    """Those of a platform. `instance` names its control groups: the machine's are swept by the machine, so these are beside them."""
    groups = cgroups.find(f"{instance}-programs") if isolation.groups is not None else None
    return Programs(state, isolation, groups, environments, around, placed=placed, say=say)
