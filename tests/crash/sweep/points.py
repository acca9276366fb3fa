"""The points of the sweep: an agent's run, what is killed in it and when. Pure: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from crash.sweep.rows import Row

EVENTS = (*(f"q{n}" for n in range(1, 6)), *(f"e{n}" for n in range(1, 6)))
EDGES = ("asked", "answered")
MODES = ("same", "same", "clock", "fresh")
"""How an agent asks in each attempt (`agents/work.py`); half of the points otherwise than before."""
SANDBOX = ("all", "init", "agent", "shim")


@dataclass(frozen=True)
class Blow:
    """What is killed, at which edge of which event, how much later. `lost`: an effect that was asked for does not happen."""

    event: str
    edge: str
    victim: str  # all, init, agent, shim; valkey; gateway
    after_ms: int = 0
    lost: bool = False

    def __str__(self) -> str:
        return f"{self.victim}@{self.event}-{self.edge}+{self.after_ms}{'-lost' * self.lost}"


@dataclass(frozen=True)
class Point:
    """A run and its blows, one after the other."""

    row: Row
    mode: str  # same, clock, fresh
    background: bool
    blows: tuple[Blow, ...]

    def __str__(self) -> str:
        return f"{self.row.name}-{self.mode}{'-background' * self.background}-{','.join(map(str, self.blows))}"


def points(seed: int, start: int, count: int, rows: Sequence[Row], victims: Sequence[str]) -> list[Point]:
    """`count` points from number `start` on: the rows in turn, in each all events, edges and modes; the rest by dice."""
    dice = random.Random(f"{seed} {victims}")
    found: list[Point] = []
    while len(found) < start + count:
        decks = [[(mode, event, edge) for mode in MODES for event in EVENTS for edge in EDGES] for _ in rows]
        for deck in decks:
            dice.shuffle(deck)
        for each in zip(*decks, strict=True):
            found += [_point(dice, row, told, victims) for row, told in zip(rows, each, strict=True)]
    return found[start : start + count]


def _point(dice: random.Random, row: Row, told: tuple[str, str, str], victims: Sequence[str]) -> Point:
    mode, event, edge = told
    blows = [_blow(dice, row, event, edge, victims)]
    if victims == SANDBOX and dice.random() < 0.25:
        blows.append(_blow(dice, row, dice.choice(EVENTS), dice.choice(EDGES), victims))
    return Point(row, mode, dice.random() < 0.3, tuple(blows))


def _blow(dice: random.Random, row: Row, event: str, edge: str, victims: Sequence[str]) -> Blow:
    late = 0 if edge == "asked" else dice.choice((0, 0, 1, 3, 8, 20))
    victim = dice.choice(victims)
    # Whose carrier dies may never have come there: of a step that is its sandbox, of a tool in a toolbox the gateway.
    carrier = "gateway" if effect(event) in row.over_mcp and victim == "gateway" else "all"
    lost = edge == "asked" and event.startswith("e") and victim == carrier and dice.random() < 0.5
    return Blow(event, edge, victim, late, lost)


def effect(event: str) -> int:
    """The number of an effect; 0 for a question."""
    return int(event[1:]) if event.startswith("e") else 0
