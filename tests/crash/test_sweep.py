"""The sweep (turns.md §10): agents with models and effects, killed before and after each boundary event.

No effect happens twice, no completed model call is paid twice, the client's stream is whole.

    scripts/test --only sweep                300 points of sandbox and Valkey, and some of gateways, counted apart
    scripts/test --only sweep --long         ten times as many
    --crash-seed N                           the same points again
    --sweep-from N --sweep-count M           M points of each kind from its Nth on: a long run in parts, or one point again
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from crash.sweep.points import SANDBOX, Point, points
from crash.sweep.rows import ROWS, Ground, ground
from crash.sweep.striking import Strikers, strike
from fakes.platform import Platform

LONG = os.environ.get("MOORAGE_LONG") == "1"

pytestmark = [pytest.mark.crash, pytest.mark.sweep, pytest.mark.index, pytest.mark.timeout(28800 if LONG else 1800)]

AT_ONCE = 3
FEW = 2 * len(ROWS)  # the share of an ordinary run: a minute
SANDBOXES, VALKEYS, GATEWAYS = (2_800, 240, 208) if LONG else (280, 24, 32)
RESTARTS, WITHIN_S = 5, 61.0  # more ends of Valkey within a minute than these, and a platform gives up
END_S = 5.0
WRONG = 10  # faults after which it is plain that something is


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ground, Strikers]]:
    with ground(tmp_path_factory.mktemp("sweep")) as made:
        yield made, Strikers(made)


def sweep(
    field: tuple[Ground, Strikers],
    request: pytest.FixtureRequest,
    count: int,
    victims: Sequence[str],
    *,
    at_once: int = 1,
    restarts: int = 0,
) -> None:
    seed = request.config.getoption("--crash-seed") or int(time.time()) // 86_400
    start = request.config.getoption("--sweep-from")
    count = min(max(count - start, 0), request.config.getoption("--sweep-count") or count)
    if not count:
        pytest.skip(f"there is no point {start} of {'/'.join(victims)}")
    print(f"sweep seed {seed}, {count} points of {'/'.join(victims)} from {start} on: replay with --crash-seed {seed}")
    fell: Counter[str] = Counter()
    faults: list[str] = []
    ends: list[float] = []
    began = time.monotonic()

    def one(numbered: tuple[int, Point]) -> None:
        number, point = numbered
        if restarts and len(ends) >= restarts:
            threading.Event().wait(max(0.0, ends[-restarts] + WITHIN_S - time.monotonic()))
        if len(faults) >= WRONG:
            return
        try:
            blows, unknown = strike(*field, point)
        except (AssertionError, openai.OpenAIError, OSError) as fault:
            again = f"--crash-seed {seed} --sweep-from {number} --sweep-count 1"
            faults.append(f"{again}, {point}: {type(fault).__name__} {fault}{ended(field[0].platform)}")
            print(faults[-1], flush=True)
            return
        finally:
            ends.append(time.monotonic())
        fell[point.row.name] += bool(blows)
        fell["of two blows both"] += blows == 2
        fell["told as unknown"] += unknown
        if (done := number + 1 - start) % 50 == 0:
            print(f"about {done} points in {time.monotonic() - began:.0f} s", flush=True)

    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(one, enumerate(points(seed, start, count, ROWS, victims), start)))
    print(f"{count} points of {'/'.join(victims)} in {time.monotonic() - began:.0f} s: {dict(fell)}")
    assert not faults, "\n".join(faults)
    assert sum(fell[row.name] for row in ROWS) == count, fell


def ended(platform: Platform) -> str:
    """What a platform said last that does not run any more."""
    try:
        platform.process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        return ""
    return f"\nthe platform ended:\n{platform.log.read_text()[-5000:]}"


def test_a_few_points_of_every_kind(field: tuple[Ground, Strikers], request: pytest.FixtureRequest) -> None:
    sweep(field, request, FEW, SANDBOX, at_once=AT_ONCE)


@pytest.mark.long
def test_no_killed_sandbox_makes_an_effect_happen_twice(
    field: tuple[Ground, Strikers], request: pytest.FixtureRequest
) -> None:
    sweep(field, request, SANDBOXES, SANDBOX, at_once=AT_ONCE)


@pytest.mark.long
def test_no_killed_valkey_does(field: tuple[Ground, Strikers], request: pytest.FixtureRequest) -> None:
    sweep(field, request, VALKEYS, ("valkey",), restarts=RESTARTS)


@pytest.mark.long
def test_no_killed_gateway_does_and_a_model_is_asked_again_only_where_it_was_being_asked(
    field: tuple[Ground, Strikers], request: pytest.FixtureRequest
) -> None:
    sweep(field, request, GATEWAYS, ("gateway",), at_once=AT_ONCE)
