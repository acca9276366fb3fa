"""A run of thirty steps under blows: when they fall, and what must be true afterwards. How a blow falls is its `strike`.

Apart from who is killed and how, so that runs elsewhere can be struck as well.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from crash.routines.host import STEPS
from fakes.effects import Effects

SAID = "".join(f"{n} " for n in range(STEPS))


@dataclass(frozen=True)
class Blow:
    """At which post of the run, before or after its answer, how much later, and who is killed."""

    post: int
    edge: str  # asked, answered
    after_ms: int
    victim: str

    def __str__(self) -> str:
        return f"{self.victim}@{self.post}-{self.edge}+{self.after_ms}"


def blows(dice: random.Random, victims: Sequence[str], most: int = 3) -> list[Blow]:
    """One to `most` of them, in the order in which they fall; none at the last post, behind which a run may be over before it falls."""
    posts = sorted(dice.sample(range(STEPS - 1), dice.randint(1, most)))
    return [
        Blow(n, dice.choice(("asked", "answered")), dice.choice((0, 0, 1, 5, 20)), dice.choice(victims)) for n in posts
    ]


@dataclass
class Striking:
    """Waits for the posts of one run, and strikes. `struck`: the blows that fell."""

    run: str
    blows: Sequence[Blow]
    strike: Callable[[Blow], None]
    struck: list[Blow] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, edge: str, key: str) -> None:
        """One edge of a post, of whichever run."""
        with self._lock:
            if len(self.struck) == len(self.blows):
                return
            blow = self.blows[len(self.struck)]
            if (key, edge) == (f"{self.run}-{blow.post}", blow.edge):
                threading.Event().wait(blow.after_ms / 1000)
                self.strike(blow)
                self.struck.append(blow)


def watched(effects: Effects, every: Sequence[Striking]) -> None:
    """Each hears of all posts."""

    def see(edge: str, key: str) -> None:
        for one in every:
            one.see(edge, key)

    effects.watch = see


def judge(
    effects: Effects, one: Striking, run: dict[str, Any], response: Any, attempts: Sequence[dict[str, Any]]
) -> None:
    """Each step's effect once, in one turn that went on from where it died. Raises AssertionError."""
    what = (one.run, list(map(str, one.blows)), run)
    assert len(one.struck) == len(one.blows), what
    assert (run["outcome"], run["tries"], len(run["response_ids"])) == ("succeeded", 1, 1), what
    hit = [blow for blow in one.struck if blow.victim != "gateway"]
    assert len(attempts) > 1 or not hit, (what, attempts)
    counts = [effects.counts[f"{one.run}-{n}"] for n in range(STEPS)]
    assert counts == [1] * STEPS, (what, counts)
    assert response.output_text == SAID, (what, response.output_text)
