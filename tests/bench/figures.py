"""Figures out of samples: medians, percentiles, spreads, ratios with their uncertainty. Pure.

A recorded figure is the median of alternated repetitions; a ratio is only worth saying when its interval excludes 1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 2_000


def median(samples: Sequence[float]) -> float:
    """The middle of the samples, the mean of the middle two; ValueError for none."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that at least `percent` of the samples do not exceed (nearest rank); ValueError for none."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, with the lowest and the highest."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.low)}–{short(self.high)}"

    def scaled(self, by: float) -> Spread:
        """In another unit."""
        return Spread(self.middle * by, self.low * by, self.high * by)


def spread(samples: Sequence[float]) -> Spread:
    """Median and range; ValueError for none."""
    return Spread(median(samples), min(samples), max(samples))


def ratio(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 1) -> Spread:
    """median(ours) / median(theirs), with its 95 % bootstrap interval; repetitions of the same index are drawn together."""
    pairs = list(zip(ours, theirs, strict=True))
    rng = random.Random(seed)
    drawn = sorted(_ratio_of([rng.choice(pairs) for _ in pairs]) for _ in range(RESAMPLES))
    return Spread(_ratio_of(pairs), percentile(drawn, 2.5), percentile(drawn, 97.5))


def slope(few: tuple[float, float], many: tuple[float, float]) -> float:
    """Cost of one more unit, from two (units, cost) points: what both spend beside it cancels out."""
    if many[0] <= few[0]:
        raise ValueError("the second point must have more units than the first")
    return (many[1] - few[1]) / (many[0] - few[0])


def short(value: float) -> str:
    """Three significant digits, without a power of ten."""
    if value == 0:
        return "0"
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 3
    return f"{value:.{max(0, digits)}f}"


def alternated(repetitions: int, subjects: Sequence[str], measure: Callable[[str], float]) -> dict[str, list[float]]:
    """Measures each subject once per round, in turn (A B A B …), so that drift of the machine meets them alike."""
    found: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(repetitions):
        order = subjects if number % 2 == 0 else list(reversed(subjects))
        for name in order:
            found[name].append(measure(name))
    return found


def _ratio_of(pairs: Sequence[tuple[float, float]]) -> float:
    below = median([b for _, b in pairs])
    return median([a for a, _ in pairs]) / below if below else float("inf")
