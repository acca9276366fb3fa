"""The folders of a session's volume, as a sandbox needs them. Layer: floor of the local provider.

VOLUME/workspace   /workspace in the sandbox
VOLUME/home        $HOME in the sandbox
VOLUME/tmp         plain mode only: TMPDIR, emptied for each sandbox
VOLUME/…           whatever else (the shim's binding) no sandbox sees
"""

from __future__ import annotations

import os
from pathlib import Path

from moorage_local import trees

SHOWN = ("workspace", "home")


def prepare(volume: Path, *, uid: int | None, plain: bool) -> None:
    """Makes the folders, the agent's own where `uid` is given (the provider is root). No sandbox may run on the volume."""
    volume.mkdir(mode=0o711, parents=True, exist_ok=True)
    for name in SHOWN:
        folder = volume / name
        folder.mkdir(mode=0o700, exist_ok=True)
        if uid is not None and folder.stat().st_uid != uid:
            _give(folder, uid)
    if plain:
        trees.remove(volume / "tmp")
        (volume / "tmp").mkdir(mode=0o700)
        if uid is not None:
            os.chown(volume / "tmp", uid, uid)


def _give(folder: Path, uid: int) -> None:
    """Hands a tree to another user: never through a link, which may lead out of it."""
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(place, name), uid, uid, follow_symlinks=False)
    os.chown(folder, uid, uid)
