"""Bytes to save, and what comes back of them."""

from __future__ import annotations

import random
from pathlib import Path

from fakes.volumes import Store, picture


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def returns(store: Store, source: Path, tmp_path: Path) -> None:
    """Saves and restores, and the pictures are the same."""
    saved = store.save(source)
    assert not saved.unsteady and saved.skipped == ()
    assert picture(store.restore(saved.manifest, tmp_path / "again")) == picture(source)
