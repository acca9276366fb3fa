"""What one review may use: time, bytes, files. Handed down to everything that waits or writes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from . import errors

MIB = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Sized for a sandbox of 512 MiB with a workspace of 1 GiB."""

    review_seconds: float = 300.0
    """The whole review, from the request to the report."""
    reply_seconds: float = 15.0
    """One connection attempt, or one silence in the middle of a reply."""
    index_page_bytes: int = 24 * MIB
    """A project page of the index; the largest real ones are a few MiB."""
    download_bytes: int = 64 * MIB
    """One release file."""
    unpacked_bytes: int = 256 * MIB
    """One release, unpacked; also one revision of a repository."""
    clone_bytes: int = 512 * MIB
    """A fetched repository on disk."""
    files: int = 20_000
    """Members of an archive, or files of a revision."""
    source_bytes: int = 2 * MIB
    """One source file; larger ones are generated tables and are skipped with a note."""
    api_bytes: int = 12 * MIB
    """Source of one version that the API comparison loads at once (about 12 bytes of memory each)."""
    licence_lookups: int = 20
    """Dependencies whose licence is asked from the index."""


@dataclass(frozen=True)
class Budget:
    """A deadline and a way to be called off; `check` and `seconds` are called before and during every wait."""

    limits: Limits = field(default_factory=Limits)
    now: Callable[[], float] = time.monotonic
    cancelled: Callable[[], bool] = lambda: False
    deadline: float = float("inf")

    @classmethod
    def start(
        cls,
        limits: Limits | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> "Budget":
        """A budget whose time runs from this call."""
        limits = limits or Limits()
        return cls(limits, now, cancelled, now() + limits.review_seconds)

    def check(self) -> None:
        """Raises `Cancelled` or `OutOfTime`; returns when the review may go on."""
        if self.cancelled():
            raise errors.Cancelled("The review was cancelled.")
        if self.now() >= self.deadline:
            raise errors.OutOfTime(f"The review did not end within {self.limits.review_seconds:.0f} s and was stopped.")

    def seconds(self, at_most: float) -> float:
        """How long the next wait may last: `at_most`, or what is left."""
        self.check()
        return max(0.05, min(at_most, self.deadline - self.now()))
