"""All volumes of one platform: `volumes/TENANT/AGENT/VOLUME`, made, held, labelled, measured, removed.

Layer: local; used by `machine`. What lies in one volume is `volumes`' to know. Beside the agent's folders `.moorage` holds what the
agent may not touch: the shim's binding, our label of the session, and the lock that keeps a volume to one writer. A volume is
removed only if it was never bound or its session is deleted.

    VolumeError   the volume is held by another sandbox, missing, or its name is not one of ours
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from moorage_local import trees, volumes
from moorage_local.state import write_atomically
from moorage_local.trees import Usage

_NAME = re.compile(r"v-[0-9a-f]{16}\Z")
_FIRST_UID = 200_001
_LAST_UID = 259_999


class VolumeError(RuntimeError):
    """A volume cannot be used."""


@dataclass(frozen=True)
class Bound:
    """What the shim wrote when it took the volume for a session."""

    session: str
    epoch: int


class Lease:
    """A held volume: nobody else on this machine may write it until `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Gives the volume back; harmless when done twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class VolumeStore:
    """The volumes below `root`. `plain`: whether sandboxes run without namespaces (their TMPDIR then lies in the volume)."""

    def __init__(self, root: Path, *, plain: bool) -> None:
        self._root = root
        self._plain = plain

    def folder(self, tenant: str, agent: str) -> Path:
        """The folder of all volumes of one agent; made if absent."""
        path = self._root / tenant / agent
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        return path

    def path(self, tenant: str, agent: str, volume: str) -> Path:
        """The volume's folder. VolumeError when the name is not one that `create` gives."""
        if _NAME.match(volume) is None:
            raise VolumeError(f"{volume[:40]!r} is not the name of a volume")
        return self._root / tenant / agent / volume

    def create(self, tenant: str, agent: str, *, uid: int | None) -> str:
        """A fresh, empty volume; returns its name."""
        volume = f"v-{secrets.token_hex(8)}"
        path = self.folder(tenant, agent) / volume
        volumes.prepare(path, uid=uid, plain=self._plain)
        (path / ".moorage").mkdir(mode=0o700)
        return volume

    def exists(self, tenant: str, agent: str, volume: str) -> bool:
        """Whether that volume is there."""
        return _NAME.match(volume) is not None and self.path(tenant, agent, volume).is_dir()

    def hold(self, tenant: str, agent: str, volume: str, *, uid: int | None) -> Lease:
        """Takes the volume for one sandbox and gets it ready. VolumeError when it is held, or not there."""
        path = self.path(tenant, agent, volume)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path / ".moorage" / "lock", flags, 0o600)
        except OSError as error:
            raise VolumeError(f"the volume {volume} is not there ({error.strerror})") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            volumes.prepare(path, uid=uid, plain=self._plain)
        except BlockingIOError:
            os.close(descriptor)
            raise VolumeError(f"the volume {volume} is held by another sandbox") from None
        except OSError as error:
            os.close(descriptor)
            raise VolumeError(f"the volume {volume} cannot be used: {error}") from error
        return Lease(descriptor)

    def bound(self, tenant: str, agent: str, volume: str) -> Bound | None:
        """Which session the shim bound the volume to, or None when it never was. An unreadable binding counts as bound."""
        path = self.path(tenant, agent, volume) / ".moorage" / "binding.json"
        try:
            data = json.loads(path.read_bytes())
            return Bound(str(data["session"]), int(data["epoch"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return Bound("", 0)

    def label(self, tenant: str, agent: str, volume: str) -> dict[str, str] | None:
        """Whose session it is, as noted by `set_label`, or None."""
        try:
            data = json.loads((self.path(tenant, agent, volume) / ".moorage" / "session.json").read_bytes())
        except (OSError, ValueError):
            return None
        return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else None

    def set_label(self, tenant: str, agent: str, volume: str, label: dict[str, str]) -> None:
        """Notes whose session it is, so that its workspace can be given back after Redis lost it."""
        path = self.path(tenant, agent, volume) / ".moorage" / "session.json"
        write_atomically(path, json.dumps(label, sort_keys=True).encode())

    def set_full(self, tenant: str, agent: str, volume: str, *, full: bool) -> None:
        """Notes that a sandbox was ended for what lies in the volume, or that it is below its quota again."""
        mark = self.path(tenant, agent, volume) / ".moorage" / "full"
        with contextlib.suppress(OSError):
            mark.touch() if full else mark.unlink(missing_ok=True)

    def is_full(self, tenant: str, agent: str, volume: str) -> bool:
        """Whether a sandbox was ended for what lies in the volume."""
        return (self.path(tenant, agent, volume) / ".moorage" / "full").exists()

    def listed(self) -> list[tuple[str, str, str]]:
        """(tenant, agent, volume) of every volume there is."""
        found = [path for path in self._root.glob("*/*/v-*") if _NAME.match(path.name) and path.is_dir()]
        return sorted((path.parent.parent.name, path.parent.name, path.name) for path in found)

    def remove(self, tenant: str, agent: str, volume: str) -> None:
        """Removes the volume with everything in it, whatever modes the agent gave its folders; none there is fine."""
        path = self.path(tenant, agent, volume)
        if not path.is_dir() or path.is_symlink():
            return
        trash = path.with_name(f".{volume}-{secrets.token_hex(4)}")
        path.rename(trash)
        trees.remove(trash)

    def sweep(self) -> None:
        """Finishes removals that an earlier run began."""
        for path in self._root.glob("*/*/.v-*"):
            trees.remove(path)

    async def usage(self, tenant: str, agent: str, volume: str, *, within: float) -> Usage:
        """How much the volume holds: allocated bytes, hard links counted once. Bounded by time and by count."""
        path = self.path(tenant, agent, volume)
        loop = asyncio.get_running_loop()
        roots = [path / name for name in ("workspace", "home", "tmp")]
        return await asyncio.to_thread(trees.measure, roots, loop.time, loop.time() + within)


class Users:
    """A host user id for each agent where the provider is root: stable, kept in one file."""

    def __init__(self, file: Path, *, as_root: bool) -> None:
        self._file = file
        self._as_root = as_root

    def of(self, tenant: str, agent: str) -> int | None:
        """The uid of an agent, or None where the provider is not root. VolumeError when all are given away."""
        if not self._as_root:
            return None
        try:
            known: dict[str, int] = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            known = {}
        name = f"{tenant}/{agent}"
        if name not in known:
            uid = max(known.values(), default=_FIRST_UID - 1) + 1
            if uid > _LAST_UID:
                raise VolumeError(
                    f"no user ids are left for {name}; remove {self._file} and the volumes when nothing runs"
                )
            known[name] = uid
            write_atomically(self._file, json.dumps(known, sort_keys=True).encode())
        return known[name]
