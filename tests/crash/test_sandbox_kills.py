"""`kill -9` of sandboxes at points from before the first byte to after the last delta: the caller sees one whole answer."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from crash.kills import Strike, strike, strikes
from fakes.platform import Platform

LONG = os.environ.get("MOORAGE_LONG") == "1"

pytestmark = [pytest.mark.crash, pytest.mark.timeout(7200 if LONG else 900)]

PER_CHANGE = 40  # with the gateways' and Valkey's in the other modules: 50 and more
IN_LONG = 1_000
AT_ONCE = 3


def test_a_killed_sandbox_is_not_noticed(struck: Platform, request: pytest.FixtureRequest) -> None:
    seed = request.config.getoption("--crash-seed") or int(time.time()) // 86_400
    wanted = IN_LONG if LONG else PER_CHANGE
    print(f"crash seed {seed}: replay with --crash-seed {seed}")
    todo = strikes(seed, wanted * 3)
    hits: list[tuple[Strike, list[str]]] = []
    missed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while len(hits) < wanted and todo:
            batch, todo = todo[: max(AT_ONCE, wanted - len(hits))], todo[max(AT_ONCE, wanted - len(hits)) :]
            for one, record in zip(batch, pool.map(lambda s: strike(struck, s), batch), strict=True):
                if record is None:
                    missed += 1
                else:
                    hits.append((one, [a["reason"] for a in record["attempts"]]))
                if (len(hits) + missed) % 100 == 0:
                    print(f"{len(hits)} hits, {missed} misses, the last {one}", flush=True)
    print(f"{len(hits)} kills hit a running attempt, {missed} did not")
    assert len(hits) >= wanted, f"only {len(hits)} of {wanted} kills hit"
    assert {s.agent for s, _ in hits} == {"paced", "rechunked", "other"}
    assert {s.mode for s, _ in hits} == {"plain", "stream", "background"}
