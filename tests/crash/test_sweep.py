"""The sweep (turns.md §10): agents with models and effects, killed before and after each boundary event.

No effect happens twice, no completed model call is paid twice, the client's stream is whole.

    scripts/test --only sweep                300 points of sandbox and Valkey, and some of gateways, counted apart
    scripts/test --only sweep --long         ten times as many
    --crash-seed N                           the same points again
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from crash.sweep.points import Point, Strikers, points, strike
from crash.sweep.rows import ROWS, Ground, ground

LONG = os.environ.get("MOORAGE_LONG") == "1"

pytestmark = [pytest.mark.crash, pytest.mark.sweep, pytest.mark.index, pytest.mark.timeout(14400 if LONG else 1800)]

SANDBOX = ("all", "init", "agent", "shim")
AT_ONCE = 3
FEW = 12  # the share of an ordinary run: a minute
SANDBOXES, VALKEYS, GATEWAYS = (2_700, 300, 40) if LONG else (270, 30, 6)


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
) -> None:
    seed = request.config.getoption("--crash-seed") or int(time.time()) // 86_400
    print(f"sweep seed {seed}, {'/'.join(victims)}: replay with --crash-seed {seed}")
    made = points(seed, count, ROWS, victims)
    fell: Counter[str] = Counter()
    began = time.monotonic()

    def one(point: Point) -> int:
        try:
            return strike(*field, point)
        except AssertionError as fault:
            raise AssertionError(f"{point}: {fault}") from fault

    with ThreadPoolExecutor(at_once) as pool:
        for n, (point, blows) in enumerate(zip(made, pool.map(one, made), strict=True), 1):
            fell[point.agent] += bool(blows)
            fell["of two blows both"] += blows == 2
            if n % 50 == 0:
                print(f"{n} points in {time.monotonic() - began:.0f} s", flush=True)
    print(f"{count} points of {'/'.join(victims)} in {time.monotonic() - began:.0f} s: {dict(fell)}")
    assert all(fell[row.name] for row in ROWS) and sum(fell[row.name] for row in ROWS) == count, fell


def test_a_few_points_of_every_kind(field: tuple[Ground, Strikers], request: pytest.FixtureRequest) -> None:
    sweep(field, request, FEW, SANDBOX, at_once=AT_ONCE)


@pytest.mark.long
def test_no_killed_sandbox_makes_an_effect_happen_twice(
    field: tuple[Ground, Strikers], request: pytest.FixtureRequest
) -> None:
    sweep(field, request, SANDBOXES, SANDBOX, at_once=AT_ONCE)


@pytest.mark.long
def test_no_killed_valkey_does(field: tuple[Ground, Strikers], request: pytest.FixtureRequest) -> None:
    sweep(field, request, VALKEYS, ("valkey",))


@pytest.mark.long
def test_no_killed_gateway_does_and_a_model_is_asked_again_only_where_it_was_being_asked(
    field: tuple[Ground, Strikers], request: pytest.FixtureRequest
) -> None:
    sweep(field, request, GATEWAYS, ("gateway",))
