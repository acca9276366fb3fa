"""The simulation as tests: clean schedules for each set of faults, and every rule taken out must be noticed.

A failing seed replays alone: `scripts/test --only sim --sim-seed SEED --sim-schedules 1`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.valkey import Valkey
from sim.mutants import MUTANTS, Mutant
from sim.runner import Wire
from sim.world import Schedule, play

pytestmark = [pytest.mark.sim, pytest.mark.timeout(3600)]

LONG = os.environ.get("MOORAGE_LONG") == "1"
PER_CHANGE = 1_000  # of each fault set: 2,000 in all
WITH_CALLS = 80
IN_LONG = 50_000
BLOCKS = 8  # so that several processes share the work
MUTANT_SCHEDULES = 150
TESTS = Path(__file__).resolve().parent.parent

REPLAY = """
import json, logging, sys
from fakes.valkey import Valkey
from sim.runner import Wire
from sim.world import Schedule, play
logging.disable(logging.CRITICAL)
server = Valkey(appendonly=False)
wire = Wire(str(server.socket))
try:
    for seed in json.loads(sys.argv[2]):
        played = play(wire, Schedule(seed, sys.argv[1], calls=sys.argv[3]))
        print(json.dumps([seed, played.violations, played.counts, played.rounds, played.commands]))
finally:
    wire.close()
    server.close()
"""


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
    broken, counts = {}, Counter[str]()
    for seed in seeds:
        played = play(wire, Schedule(seed, kind))
        counts.update(played.counts)
        if played.violations:
            broken[seed] = played.violations
    print(f"sim {kind}: {len(seeds)} schedules, first seed {first + block}, step {BLOCKS}: {dict(counts)}")
    assert not broken, (
        f"{len(broken)} of {len(seeds)} schedules broke a promise; replay with --sim-seed: {dict(list(broken.items())[:3])}"
    )
    if len(seeds) >= 50:
        assert counts["kills of a running attempt"] >= 0.5 * len(seeds), "the faults hardly hit anything"


@pytest.mark.parametrize(
    ("kind", "calls", "share"), [("kills", "any", 0.6), ("kills", "long", 0.2), ("redis", "any", 0.2)]
)
def test_no_effect_is_made_twice_and_no_recorded_call_again(
    kind: str, calls: str, share: float, wire: Wire, request: pytest.FixtureRequest
) -> None:
    first = request.config.getoption("--sim-seed")
    total = request.config.getoption("--sim-schedules") or round(share * (IN_LONG if LONG else WITH_CALLS))
    broken, counts = {}, Counter[str]()
    for seed in range(first, first + total):
        played = play(wire, Schedule(seed, kind, calls=calls))
        counts.update(played.counts)
        if played.violations:
            broken[seed] = played.violations
    print(f"sim {kind}, calls {calls}: {total} schedules, first seed {first}: {dict(counts)}")
    assert not broken, f"{len(broken)} of {total} schedules broke a promise: {dict(list(broken.items())[:3])}"
    if total >= 20 and kind == "kills":
        met = ("effects done", "models asked", "calls met again", "calls turned away", "outcomes unknown")
        assert all(counts[each] for each in met), "the faults hardly hit anything"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_each_rule_taken_out_is_noticed(mutant: Mutant, wire: Wire) -> None:
    for seed in range(mutant.first, mutant.first + MUTANT_SCHEDULES):
        if play(wire, mutant.schedule(seed)).violations:
            print(f"{mutant.name}: noticed by seed {seed}")
            return
    raise AssertionError(f"{MUTANT_SCHEDULES} schedules do not notice that {mutant.rule!r} is missing")


@pytest.mark.parametrize(("kind", "calls"), [("kills", ""), ("redis", ""), ("kills", "any")])
def test_a_seed_replays_to_the_byte_in_another_process(kind: str, calls: str) -> None:
    def run(hash_seed: str, seeds: list[int]) -> dict[int, str]:
        """What each seed came to, in a process with its own hash seed."""
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-c", REPLAY, kind, json.dumps(seeds), calls]
        out = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=300).stdout
        return {json.loads(line)[0]: line for line in out.splitlines()}

    seeds = list(range(1, 9))
    forwards, backwards = run("1", seeds), run("2", seeds[::-1])
    assert forwards == backwards
    assert len(forwards) == len(seeds)
