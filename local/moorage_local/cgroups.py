"""Control groups of sandboxes, version 1 and 2: limits, membership, out-of-memory kills, sweeping. Layer: floor of the local provider.

All groups of one provider lie in one folder a controller, named after the provider's instance, so that a start finds what the last one left
and never touches another platform's. What the machine lacks is not an error: `Cgroups.controllers` says what is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from moorage_sandbox.launcher import oom

PREFIX = "moorage-"
OWN_LEAF = "moorage-self"
CPU_PERIOD = 100_000
CONTROLLERS = ("memory", "cpu", "pids")
STEP = 0.005


class CgroupBusy(Exception):
    """Processes of a group were still there at the deadline."""


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use. Bytes, cores, numbers; `fsize` 0 is no limit of a single file."""

    memory: int = 512 * 1024 * 1024
    cpu: float = 0.5
    pids: int = 256
    nofile: int = 4096
    tmp: int = 256 * 1024 * 1024
    fsize: int = 0


@dataclass(frozen=True)
class Cgroup:
    """The group of one sandbox: a folder a controller (version 2: one folder for all)."""

    name: str
    version: int
    folders: Mapping[str, Path] = field(repr=False)

    def add(self, pid: int) -> None:
        """Moves a process of the host in; its later children follow."""
        for folder in self._distinct():
            (folder / "cgroup.procs").write_text(str(pid))

    def member_files(self) -> list[Path]:
        """The files a process writes `0` to in order to enter by itself."""
        return [folder / "cgroup.procs" for folder in self._distinct()]

    def entrances(self) -> list[Path]:
        """Version 1: the files by which a single thread enters by writing `0`, without the lock that moving a process takes (10 ms)."""
        return [folder / "tasks" for folder in self._distinct()] if self.version == 1 else []

    def holds(self, pid: int) -> bool:
        """Whether a process is in it, in every hierarchy."""
        return all(str(pid) in (folder / "cgroup.procs").read_text().split() for folder in self._distinct())

    def pids(self) -> set[int]:
        """Every process in it, as the host numbers them."""
        found: set[int] = set()
        for folder in self._distinct():
            for inner, _, _ in os.walk(folder):  # not Path.rglob: it raises when a folder goes meanwhile
                with suppress(OSError):
                    found.update(int(line) for line in Path(inner, "cgroup.procs").read_text().split())
        return found

    def oom_path(self) -> Path | None:
        """The file that counts out-of-memory kills."""
        folder = self.folders.get("memory")
        if folder is None:
            return None
        return folder / ("memory.events" if self.version == 2 else "memory.oom_control")

    def oom_kills(self) -> int:
        """How often the kernel killed in it for memory; 0 once the group is gone."""
        path = self.oom_path()
        try:
            return 0 if path is None else oom.kills(path.read_text())
        except OSError:
            return 0

    async def kill(self, *, seconds: float = 10.0) -> None:
        """SIGKILLs everything in it, until none is left. Raises CgroupBusy."""
        until = asyncio.get_running_loop().time() + seconds
        while members := self.pids():
            for folder in self._distinct():
                if (folder / "cgroup.kill").exists():
                    (folder / "cgroup.kill").write_text("1")
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await self._pause(until)

    async def remove(self, *, seconds: float = 10.0) -> None:
        """Removes the empty group; one that is gone is no error. Raises CgroupBusy when it does not become empty."""
        until = asyncio.get_running_loop().time() + seconds
        left = list(self._distinct())
        while left := [folder for folder in left if not _removed(folder)]:
            await self._pause(until)

    async def _pause(self, until: float) -> None:
        if asyncio.get_running_loop().time() > until:
            raise CgroupBusy(f"control group {self.name} still has processes {sorted(self.pids())}; is one in state D?")
        await asyncio.sleep(STEP)

    def _distinct(self) -> Iterable[Path]:
        return dict.fromkeys(self.folders.values())


def _removed(folder: Path) -> bool:
    try:
        for child in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            child.rmdir()
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Cgroups:
    """Where this provider may make groups. `parents`: controller → the provider's own folder in it."""

    version: int
    parents: Mapping[str, Path]

    @property
    def controllers(self) -> frozenset[str]:
        """The controllers in which limits take effect."""
        return frozenset(self.parents)

    def create(self, name: str, limits: Limits) -> Cgroup:
        """Makes the group `name` with these limits. Raises OSError, FileExistsError for a name in use; nothing is left then."""
        group = Cgroup(name, self.version, {controller: parent / name for controller, parent in self.parents.items()})
        made: list[Path] = []
        try:
            for folder in dict.fromkeys(group.folders.values()):
                folder.mkdir()
                made.append(folder)
            for controller, folder in group.folders.items():
                for file, value, needed in settings(self.version, controller, limits):
                    if needed or (folder / file).exists():
                        (folder / file).write_text(value)
        except OSError:
            for folder in made:
                _removed(folder)
            raise
        return group

    def leftovers(self) -> list[Cgroup]:
        """Groups that are there: at a start, those of a provider that died."""
        names = {path.name for parent in self.parents.values() for path in parent.iterdir() if path.is_dir()}
        return [Cgroup(name, self.version, {c: p / name for c, p in self.parents.items()}) for name in sorted(names)]

    async def sweep(self) -> int:
        """Kills and removes all leftovers; how many there were."""
        groups = self.leftovers()
        for group in groups:
            await group.kill()
            await group.remove()
        return len(groups)

    async def close(self) -> None:
        """Sweeps, then removes the provider's own folders."""
        await self.sweep()
        await Cgroup(PREFIX, self.version, self.parents).remove()


def settings(version: int, controller: str, limits: Limits) -> list[tuple[str, str, bool]]:
    """(file, value, must exist) that put `limits` into a controller. Pure."""
    quota = max(1000, int(limits.cpu * CPU_PERIOD))
    match version, controller:
        case 1, "memory":
            swap = ("memory.memsw.limit_in_bytes", str(limits.memory), False)
            return [("memory.limit_in_bytes", str(limits.memory), True), swap]
        case 1, "cpu":
            return [("cpu.cfs_period_us", str(CPU_PERIOD), True), ("cpu.cfs_quota_us", str(quota), True)]
        case 2, "memory":
            return [("memory.max", str(limits.memory), True), ("memory.swap.max", "0", False)]
        case 2, "cpu":
            return [("cpu.max", f"{quota} {CPU_PERIOD}", True)]
        case _, "pids":
            return [("pids.max", str(limits.pids), True)]
    return []


def find(instance: str, *, proc: Path = Path("/proc/self"), uid: int | None = None) -> Cgroups | None:
    """The groups this process may make, or None. `instance` names the provider (two on one machine differ)."""
    mounts = _mounts(proc / "mountinfo")
    own = _own_paths(proc / "cgroup")
    first = _find_first(instance, mounts, own)
    if first is not None:
        return first
    return _find_second(instance, mounts, own, os.getuid() if uid is None else uid)


def _find_first(instance: str, mounts: dict[str, tuple[Path, str]], own: dict[str, str]) -> Cgroups | None:
    parents: dict[str, Path] = {}
    for controller in CONTROLLERS:
        if controller not in mounts or controller not in own:
            continue
        parent = _within(*mounts[controller], own[controller]) / f"{PREFIX}{instance}"
        with suppress(OSError):
            parent.mkdir(exist_ok=True)
            if os.access(parent / "cgroup.procs", os.W_OK):
                parents[controller] = parent
    return Cgroups(1, parents) if parents else None


def _find_second(instance: str, mounts: dict[str, tuple[Path, str]], own: dict[str, str], uid: int) -> Cgroups | None:
    if "" not in mounts or "" not in own:
        return None
    place, root = mounts[""]
    home = _within(place, root, own[""])
    for base in [home, place] if uid == 0 else [home]:
        with suppress(OSError):
            usable = _delegate(base)
            if usable:
                parent = base / f"{PREFIX}{instance}"
                parent.mkdir(exist_ok=True)
                _enable(parent, usable)
                return Cgroups(2, dict.fromkeys(usable, parent))
    return None


def _delegate(base: Path) -> list[str]:
    """Makes controllers usable below `base`. A group with processes may not, so our own move to a leaf; others are never moved."""
    offered = (base / "cgroup.controllers").read_text().split()
    usable = [name for name in CONTROLLERS if name in offered]
    if not usable or not os.access(base, os.W_OK):
        return []
    if set(usable) <= set((base / "cgroup.subtree_control").read_text().split()):
        return usable
    members = [int(line) for line in (base / "cgroup.procs").read_text().split()]
    if members == [os.getpid()]:
        leaf = base / OWN_LEAF
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))
    _enable(base, usable)
    return usable


def _enable(folder: Path, usable: list[str]) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in usable))


def _mounts(mountinfo: Path) -> dict[str, tuple[Path, str]]:
    """Controller ("" is version 2) → (mount point, root of the mount in its hierarchy)."""
    found: dict[str, tuple[Path, str]] = {}
    for line in mountinfo.read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, (kind, _, options) = left.split(), right.split(maxsplit=2)
        if kind == "cgroup2":
            found.setdefault("", (Path(fields[4]), fields[3]))
        elif kind == "cgroup":
            for controller in set(options.split(",")) & set(CONTROLLERS):
                found.setdefault(controller, (Path(fields[4]), fields[3]))
    return found


def _own_paths(file: Path) -> dict[str, str]:
    """Controller ("" is version 2) → path of this process in that hierarchy."""
    found: dict[str, str] = {}
    for line in file.read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if number != "0" else [""]:
            found[controller] = path
    return found


def _within(place: Path, root: str, path: str) -> Path:
    """Where the group `path` shows under a mount whose root is `root`; the mount itself where it lies outside."""
    if root != "/" and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    elif root != "/":
        return place
    inside = place / path.lstrip("/")
    return inside if inside.is_dir() else place
