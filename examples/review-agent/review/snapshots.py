"""One version ready to be examined, wherever it came from, and the pair of them that a review compares."""

from dataclasses import dataclass
from pathlib import Path

from . import model
from .dependencies import Declared
from .layout import Layout
from .licences import Licences


@dataclass(frozen=True)
class Snapshot:
    """`code` is what is imported by users; `tests` may come from another file of the same release."""

    side: model.Side
    code: Layout
    tests: tuple[Path, ...]
    test_root: Path
    declared: Declared
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """What a source hands over: title, both versions, and where licences can be looked up."""

    title: str
    old: Snapshot
    new: Snapshot
    licences: Licences
    notice: str | None = None
    commit: str | None = None
    """Of the newer version, where the tools can attach the review to it."""
