"""Agents' environments, kept from one platform of a run of `scripts/test` to the next ones.

Each platform has a state folder of its own, and would resolve, unpack and compile the same packages anew: seconds of CPU for the SDK's
own, and most of a platform's start for a framework's. Kept as hard links under the product's own name for them, a hash of all that goes
into one, so that the product decides what fits. The first of each is made by a platform as ever.

Limits: within one run, on one file system; nothing is kept where `KEPT` names no folder, as under pytest alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

KEPT = "MOORAGE_TEST_ENVIRONMENTS"
LISTS = {".txt", ".in", ".lock", ".toml"}


def lay(agents: Path, state: Path) -> None:
    """Puts what is kept into a state folder, where an agent of that folder may need it."""
    kept, wanted = _kept(), _lists(agents)
    for note in () if kept is None else sorted(kept.glob("*.json")):
        of = set(json.loads(note.read_text()))
        if not of or of & wanted:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)  # as a platform makes it
            _link(note.with_suffix(""), state / "environments" / note.stem)


def keep(agents: Path, state: Path) -> None:
    """Keeps what a platform that serves these agents has made."""
    kept, wanted = _kept(), _lists(agents)
    for ready in () if kept is None else sorted((state / "environments").glob("*/ready")):
        note = kept / f"{ready.parent.name}.json"
        before = set(json.loads(note.read_text())) if note.exists() else wanted
        if not _link(ready.parent, note.with_suffix("")):
            continue
        with tempfile.NamedTemporaryFile("w", dir=kept, delete=False) as fresh:
            json.dump(sorted(before & wanted), fresh)  # what serves platforms with nothing in common is the SDK's own
        Path(fresh.name).replace(note)


def _kept() -> Path | None:
    folder = os.environ.get(KEPT)
    return Path(folder) if folder else None


def _lists(agents: Path) -> set[str]:
    """What may be a list of requirements below a folder, as hashes of what is in it."""
    found = [path for path in agents.rglob("*") if path.suffix in LISTS and path.is_file()]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def _link(made: Path, place: Path) -> bool:
    """Whether it lies there whole; another worker may have been first."""
    if place.exists():
        return True
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".linked-", dir=place.parent))
    try:
        shutil.copytree(made, fresh / "made", symlinks=True, copy_function=os.link)
        with contextlib.suppress(OSError):
            (fresh / "made").rename(place)
    except (OSError, shutil.Error):  # another file system
        return False
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place.exists()
