"""The simulation as tests: clean schedules for each set of faults, and every rule taken out must be noticed.

A failing seed replays alone: `scripts/test --only sim --sim-seed SEED --sim-schedules 1`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest

from fakes.valkey import Valkey
from sim.mutants import MUTANTS, Mutant
from sim.runner import Wire
from sim.world import Schedule, play

pytestmark = [pytest.mark.sim, pytest.mark.timeout(3600)]

LONG = os.environ.get("MOORAGE_LONG") == "1"
PER_CHANGE = 1_000  # of each fault set: 2,000 in all
IN_LONG = 50_000
BLOCKS = 8  # so that several processes share the work
MUTANT_SCHEDULES = 150


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A Valkey of this process' own: the simulation flushes and rolls back as it likes."""
    server = Valkey(appendonly=False)
    client = Wire(str(server.socket))
    logging.disable(logging.CRITICAL)
    yield client
    logging.disable(logging.NOTSET)
    client.close()
    server.close()


@pytest.mark.parametrize("block", range(BLOCKS))
@pytest.mark.parametrize("kind", ["kills", "redis"])
def test_no_promise_is_broken_under_random_faults(
    kind: str, block: int, wire: Wire, request: pytest.FixtureRequest
) -> None:
    first = request.config.getoption("--sim-seed")
    total = request.config.getoption("--sim-schedules") or (IN_LONG if LONG else PER_CHANGE)
    seeds = range(first + block, first + total, BLOCKS)
    broken = {seed: found for seed in seeds if (found := play(wire, Schedule(seed, kind)))}
    print(f"sim {kind}: {len(seeds)} schedules, first seed {first + block}, step {BLOCKS}")
    assert not broken, (
        f"{len(broken)} of {len(seeds)} schedules broke a promise; replay with --sim-seed: {dict(list(broken.items())[:3])}"
    )


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_each_rule_taken_out_is_noticed(mutant: Mutant, wire: Wire) -> None:
    for seed in range(1, MUTANT_SCHEDULES + 1):
        if play(wire, Schedule(seed, mutant.kind, mutations=mutant.scripts, flags=mutant.flags), mutant.engine):
            print(f"{mutant.name}: noticed by seed {seed}")
            return
    raise AssertionError(f"{MUTANT_SCHEDULES} schedules do not notice that {mutant.rule!r} is missing")
