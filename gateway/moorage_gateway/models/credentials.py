"""Keys of model endpoints, as files. Layer: gateway, I/O rim.

The chart mounts one Secret into every gateway; its values are files called as `catalog.credential_name` says. A changed file is used
within `FRESH_S` of the kubelet's own delay, without a restart (faults.md F41).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

FRESH_S = 5.0
MOST = 16 * 1024


class Credentials(Protocol):
    """Where keys come from."""

    def get(self, name: str) -> str | None:
        """The key, None when there is none; asked for at each call."""


class NoCredentials:
    """None at all."""

    def get(self, name: str) -> str | None:
        """See Credentials."""
        return None


class FolderCredentials:
    """Files of one folder, on a file system in memory, so that a read does not wait. `now` in seconds that only go forward."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._now = now
        self._known: dict[str, tuple[float, str | None]] = {}

    def get(self, name: str) -> str | None:
        """See Credentials."""
        at, now = self._known.get(name, (float("-inf"), None))[0], self._now()
        if now - at > FRESH_S:
            self._known[name] = (now, usable(_read(self._folder / name)))
        return self._known[name][1]


def usable(text: str | None) -> str | None:
    """A key as it may stand in a header, without the line end that files have; None for what could end the header."""
    found = (text or "").strip()
    return found if found and found.isascii() and found.isprintable() else None


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(MOST).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
