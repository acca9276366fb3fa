"""The state folder of one platform on one machine: where everything lies, and who holds it.

Layer: local. Made once by the composition and handed down. One platform at a time per folder (flock); unix sockets live in a
short folder of their own, since their paths may not be longer than about a hundred bytes.

    StateError   the folder cannot be used; the message says what to do
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moorage_local import trees
from moorage_local.processes import ProcessId

LONGEST_SOCKET_PATH = 100


class StateError(RuntimeError):
    """The state folder is held by another platform, belongs to someone else, or cannot be written."""


@dataclass(frozen=True)
class State:
    """Paths of one state folder (`root`) and of its sockets (`runtime`)."""

    root: Path
    runtime: Path

    @property
    def valkey(self) -> Path:
        """Valkey's data."""
        return self.root / "valkey"

    @property
    def objects(self) -> Path:
        """The folder object store."""
        return self.root / "objects"

    @property
    def sources(self) -> Path:
        """Snapshots of agents' code, by digest."""
        return self.root / "sources"

    @property
    def environments(self) -> Path:
        """Agents' environments, by hash."""
        return self.root / "environments"

    @property
    def volumes(self) -> Path:
        """Sessions' files."""
        return self.root / "volumes"

    @property
    def manifests(self) -> Path:
        """Manifests deployed through the API."""
        return self.root / "manifests"

    @property
    def logs(self) -> Path:
        """Agents' output, one file a sandbox."""
        return self.root / "logs"

    @property
    def sockets(self) -> Path:
        """Unix sockets of shims and zygotes."""
        return self.runtime / "s"

    def secret(self, name: str) -> str:
        """A secret (64 hex) made once and kept in a file of mode 0600; the same on every call."""
        path = self.root / name
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return path.read_text(encoding="ascii").strip()
        value = secrets.token_hex(32)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(value)
        return value

    def remember(self, name: str, processes: list[ProcessId]) -> None:
        """Notes processes by name, so that the next start can end what a killed parent left behind."""
        write_atomically(self.root / f"{name}.pids.json", json.dumps([asdict(p) for p in processes]).encode())

    def remembered(self, name: str) -> list[ProcessId]:
        """What an earlier run noted under that name; unreadable notes count as none."""
        try:
            found: list[dict[str, Any]] = json.loads((self.root / f"{name}.pids.json").read_bytes())
            return [ProcessId(int(p["pid"]), int(p["started"])) for p in found]
        except (OSError, ValueError, KeyError, TypeError):
            return []


@contextlib.contextmanager
def hold(root: Path | None) -> Iterator[State]:
    """The state folder for as long as the context lasts, made if absent; None: a temporary one, removed at the end.

    Raises StateError when another platform holds it.
    """
    if root is None:
        temporary = Path(tempfile.mkdtemp(prefix="moorage-state-"))
        try:
            with _held(temporary) as state:
                yield state
        finally:
            trees.remove(temporary)  # agents' trees lie in it, of any depth
    else:
        with _held(root) as state:
            yield state


def default_root(environment: dict[str, str]) -> Path:
    """`$MOORAGE_STATE`, else `$XDG_DATA_HOME/moorage/dev`, else `~/.local/share/moorage/dev`."""
    if environment.get("MOORAGE_STATE"):
        return Path(environment["MOORAGE_STATE"]).expanduser()
    data = environment.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "moorage" / "dev"


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a whole file or nothing: a reader sees the old bytes or the new ones, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def _held(root: Path) -> Iterator[State]:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f"{root} cannot be used for state ({error.strerror}); choose another with --state") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"another platform runs on {root}; stop it, or start this one with --ephemeral or another --state"
            ) from None
        runtime = _runtime(root.resolve())
        state = State(root.resolve(), runtime)
        for folder in (state.objects, state.sources, state.environments, state.volumes, state.manifests, state.logs):
            folder.mkdir(exist_ok=True)
        try:
            yield state
        finally:
            shutil.rmtree(runtime, ignore_errors=True)
    finally:
        os.close(lock)


def _runtime(root: Path) -> Path:
    """A short 0700 folder that is certainly ours, the same for the same state folder."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if len(str(base)) > LONGEST_SOCKET_PATH - 50:
        base = Path("/tmp")
    name = hashlib.sha256(str(root).encode()).hexdigest()[:10]
    path = base / f"moorage-{os.getuid()}-{name}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StateError(f"{path} is not a private folder of this user; remove it")
    for old in path.iterdir():
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink()
    (path / "s").mkdir(mode=0o700)
    return path
