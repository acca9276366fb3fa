"""The pure rules of a turn, by the rows of their docstring tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorage_gateway.turns import rules
from moorage_gateway.turns.rules import Again, Fault, GiveUp, Lifetimes, Look

pytestmark = pytest.mark.unit

HERE = 10  # how long the log is now


def fault(cause: str, progress: int = HERE, *, started: bool = True) -> dict[str, Any]:
    """An attempt's record as `next_attempt` reads it."""
    return {"fault": cause, "progress": progress, "started": started, "detail": "it did", "log_tail": ["last words"]}


@pytest.mark.parametrize(
    ("attempts", "durable", "verdict"),
    [
        pytest.param([], True, Again, id="none: again at once"),
        pytest.param([{"started": True}], True, Again, id="an attempt without a fault: again at once"),
        pytest.param([fault("exit")], False, GiveUp, id="not durable, one started: give up"),
        pytest.param([fault("sandbox_lost")], False, GiveUp, id="not durable, a platform fault: give up too"),
        pytest.param([fault("exit", started=False)], False, Again, id="not durable, never started: again"),
        pytest.param([fault("exit")], True, Again, id="one agent fault: again"),
        pytest.param([fault("exit"), fault("exit")], True, GiveUp, id="two of one cause at one progress: poison"),
        pytest.param([fault("exit"), fault("oom")], True, Again, id="two causes: again"),
        pytest.param([fault("exit", 5), fault("exit")], True, Again, id="progress between them: again"),
        pytest.param(
            [fault("exit"), fault("sandbox_lost"), fault("exit")], True, GiveUp, id="a platform fault between: poison"
        ),
        pytest.param([fault("exit"), fault("oom"), fault("hang")], True, GiveUp, id="max attempts without progress"),
        pytest.param(
            [fault("exit", 3), fault("oom", 4), fault("hang")], True, Again, id="max attempts, with progress: again"
        ),
        pytest.param([fault("sandbox_lost")] * 19, True, Again, id="19 platform faults: again"),
        pytest.param([fault("sandbox_lost")] * 20, True, GiveUp, id="20 platform faults: give up"),
    ],
)
def test_what_follows_the_faults_so_far(attempts: list[dict[str, Any]], durable: bool, verdict: type) -> None:
    assert isinstance(rules.next_attempt(attempts, HERE, 3, durable=durable), verdict)


@pytest.mark.parametrize(
    ("attempts", "delay"),
    [
        ([], 0.0),
        ([fault("sandbox_lost")], 0.0),
        ([fault("exit")], 0.5),
        ([fault("exit"), fault("oom")], 1.0),
        ([fault("exit", 5)], 0.0),  # it went on since: nothing stalls
    ],
)
def test_agent_faults_back_off_and_platform_faults_do_not(attempts: list[dict[str, Any]], delay: float) -> None:
    assert rules.next_attempt(attempts, HERE, 5, durable=True) == Again(delay)


def test_giving_up_says_how_the_last_attempt_ended_and_its_last_log_lines() -> None:
    verdict = rules.next_attempt([fault("exit"), fault("exit")], HERE, 3, durable=True)
    assert isinstance(verdict, GiveUp)
    assert verdict.code == "agent_failed"
    assert "exit (it did)" in verdict.message
    assert "last words" in verdict.message


@pytest.mark.parametrize("cause", sorted(rules.AGENT_FAULTS))
def test_an_agents_faults_are_its_own(cause: str) -> None:
    assert Fault(cause).agent


@pytest.mark.parametrize("cause", ["sandbox_lost", "lost", "orphaned", "generation"])
def test_the_platforms_faults_are_not_the_agents(cause: str) -> None:
    assert not Fault(cause).agent


NOW = 1_000_000_000
LIFE = Lifetimes(idle=60_000, max_life=600_000, retention=3_600_000)
IDLE, BUSY = NOW - 60_000, NOW - 10_000


@pytest.mark.parametrize(
    ("state", "running", "active", "claimed", "stop", "expected"),
    [
        ("claimed", True, IDLE, NOW - 600_000, True, Look("keep", NOW + 5_000)),
        ("claimed", False, BUSY, BUSY, True, Look("drain", NOW + 1_000, "stopped")),
        ("claimed", False, BUSY, NOW - 600_000, False, Look("drain", NOW + 5_000, "maximum lifetime")),
        ("claimed", False, IDLE, IDLE, False, Look("drain", NOW + 5_000, "idle", idle_before=NOW - 60_000)),
        ("claimed", False, IDLE, BUSY, False, Look("keep", BUSY + 60_000)),  # woken since: not idle for that long
        ("claimed", False, BUSY, IDLE, False, Look("keep", BUSY + 60_000)),
        ("claimed", False, BUSY, NOW - 590_000, False, Look("keep", NOW + 10_000)),  # its lifetime ends first
        ("draining", False, BUSY, BUSY, False, Look("drain", NOW + 5_000, "drain resumed")),
        ("waking", False, IDLE, IDLE, False, Look("keep", NOW + 5_000)),
        *(
            (s, False, NOW - 3_600_000, 0, False, Look("delete", NOW + 60_000, "retention"))
            for s in ("new", "hibernated", "archived")
        ),
        *((s, False, NOW - 1_000, 0, False, Look("keep", NOW + 3_599_000)) for s in ("new", "hibernated", "archived")),
        ("hibernated", True, NOW - 3_600_000, 0, False, Look("keep", NOW + 30_000)),
    ],
)
def test_what_a_session_gets(state: str, running: bool, active: int, claimed: int, stop: bool, expected: Look) -> None:
    assert rules.look(state, running=running, active=active, claimed=claimed, stop=stop, life=LIFE, now=NOW) == expected


@pytest.mark.parametrize(
    ("state", "age", "expected"),
    [
        ("hibernated", 0, Look("keep", NOW + 120_000)),
        ("hibernated", 120_000, Look("archive", NOW + 3_480_000)),
        ("hibernated", 3_600_000, Look("delete", NOW + 60_000, "retention")),
        ("archived", 120_000, Look("keep", NOW + 3_480_000)),
        ("new", 120_000, Look("keep", NOW + 3_480_000)),
    ],
)
def test_a_hibernated_sessions_volume_goes_after_a_while(state: str, age: int, expected: Look) -> None:
    life = replace(LIFE, archive=120_000)
    found = rules.look(state, running=False, active=NOW - age, claimed=0, stop=False, life=life, now=NOW)
    assert found == expected


@pytest.mark.parametrize("state", ["claimed", "draining", "waking", "new", "hibernated", "archived"])
@pytest.mark.parametrize("age", [0, 30_000, 60_000, 599_999, 600_000, 3_600_000])
def test_the_next_look_is_always_ahead(state: str, age: int) -> None:
    found = rules.look(state, running=False, active=NOW - age, claimed=NOW - age, stop=False, life=LIFE, now=NOW)
    assert found.at > NOW


def test_clocks_and_limits_come_from_the_spec_with_the_manifests_defaults() -> None:
    assert rules.lifetimes({}) == Lifetimes(idle=900_000, max_life=28_800_000, retention=2_592_000_000)
    assert rules.lifetimes({"session": {"idleTimeout": "2s"}}).idle == 2_000
    found = rules.limits(
        {"turn": {"timeout": "1m", "maxAttempts": 5, "durableState": False}}, acquire_s=7.0, log_bytes=9
    )
    assert (found.timeout_s, found.max_attempts, found.durable, found.acquire_s, found.log_bytes) == (
        60.0,
        5,
        False,
        7.0,
        9,
    )
    assert rules.limits({}, acquire_s=1.0, log_bytes=1).queue == 8


@pytest.mark.parametrize(
    ("turn", "workspace", "checkpoint", "restores"),
    [
        ({}, {}, False, False),
        ({"durability": "session", "retryWorkspace": "keep"}, {}, False, False),
        ({"durability": "turn", "retryWorkspace": "restore"}, {}, True, True),
        ({"durability": "turn", "retryWorkspace": "restore"}, {"fileSystem": False}, False, False),
    ],
)
def test_what_a_manifest_asks_of_checkpoints(
    turn: dict[str, Any], workspace: dict[str, Any], checkpoint: bool, restores: bool
) -> None:
    found = rules.limits({"turn": turn, "workspace": workspace}, acquire_s=1.0, log_bytes=1)
    assert (found.checkpoint, found.restores) == (checkpoint, restores)


def test_a_recorded_call_is_progress_as_a_logged_event_is() -> None:
    def ended(calls: int) -> dict[str, Any]:
        return {"fault": "exit", "started": True, "progress": 5, "calls": calls}

    assert isinstance(rules.next_attempt([ended(1), ended(1)], 6, 3, durable=True), rules.GiveUp)
    assert isinstance(rules.next_attempt([ended(1), ended(2)], 7, 3, durable=True), rules.Again)
    assert isinstance(rules.next_attempt([ended(2)], 8, 3, durable=True), rules.Again), "one was recorded since"


def test_answers_that_break_off_again_and_again_are_asked_for_ever_slower() -> None:
    def verdict(*causes: str) -> Any:
        return rules.next_attempt(
            [{"fault": each, "started": True, "progress": 1} for each in causes], 1, 3, durable=True
        )

    broken = rules.BOUNDARY
    assert [verdict(*[broken] * n).delay for n in (1, 2, 5)] == [0.5, 1.0, 5.0]
    assert verdict(broken, "sandbox_lost").delay == 0.0
    assert isinstance(verdict(*[broken] * rules.MAX_PLATFORM_FAULTS), rules.GiveUp)
