"""Which session this volume belongs to: a small file that outlives the sandbox. Layer: I/O rim (one file, fsynced).

The file lies beside the agent's folders, not inside them, so an agent cannot rewrite it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

BEGUN_SIZE = 256
"""Bytes of the record of the last attempt."""


@dataclass(frozen=True)
class Binding:
    """The session a volume is bound to for ever, the highest epoch seen, and which sandbox wrote it last.

    The rest is what a restarted shim must know to go on: nobody binds a sandbox again that is bound.
    """

    session: str
    epoch: int
    sandbox: str
    tenant: str
    agent: str
    session_id: str
    user: str


class BindingFile:
    """`<volume>/.moorage/binding.json`, and beside it the name (fence) of the last attempt begun here."""

    def __init__(self, volume: str) -> None:
        self._folder = Path(volume) / ".moorage"
        self._path = self._folder / "binding.json"
        self._begun = self._folder / "begun.json"

    def load(self) -> Binding | None:
        """None: never bound. Raises ValueError for a file that is not one of ours: then nobody may bind it."""
        text = _read(self._path)
        if text is None:
            return None
        try:
            found = Binding(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"{self._path} is not a binding") from error
        if not isinstance(found.session, str) or type(found.epoch) is not int:
            raise ValueError(f"{self._path} is not a binding")
        return found

    def save(self, binding: Binding) -> None:
        """On return the binding survives a power cut. Raises OSError (a full volume); the old one then stands."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, json.dumps(asdict(binding)).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(fresh, self._path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def load_begun(self, sandbox: str) -> int:
        """The last attempt this sandbox began, 0 when it began none: it tells a restarted shim what it has lost."""
        text = _read(self._begun)
        try:
            found = json.loads(text or "{}")
        except ValueError:
            return 0
        return int(found.get("begun", 0)) if found.get("sandbox") == sandbox else 0

    def save_begun(self, sandbox: str, begun: int) -> None:
        """One write of one size: a killed process leaves the old name or the new one, and a full volume has room for it.

        Not fsynced: it must outlive this process, not the machine, whose end ends the sandbox too.
        """
        record = json.dumps({"sandbox": sandbox, "begun": begun}).ljust(BEGUN_SIZE).encode()
        try:
            fd = os.open(self._begun, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._begun, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, record, 0)
        finally:
            os.close(fd)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
