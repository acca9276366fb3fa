"""`moorage.step` in an agent whose sandbox dies: what was done is done once, and what is not known is told (turns.md §6)."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.platform import Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.timeout(300)]

AGENT = Path(__file__).with_name("steps_agent")
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: doer}
spec:
  source: {path: ., entrypoint: host.py}
  pool: {min: 1, max: 3}
"""


@contextlib.contextmanager
def platform_in(folder: Path, *options: str) -> Iterator[Platform]:
    shutil.copytree(AGENT, folder / "doer", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "doer" / "agent.yaml").write_text(MANIFEST)
    with started(folder, *options) as found:
        yield found


@pytest.fixture(scope="module", params=[(), ("--plain",)], ids=["isolated", "plain"])
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_in(tmp_path_factory.mktemp("steps"), *request.param) as found:
        yield found


def run(platform: Platform, *lines: str) -> tuple[list[str], list[str]]:
    """What the agent answered and what it did, its sandbox killed once where a line waits for that."""
    session = f"session-{uuid.uuid4().hex}"
    before = set(platform.workspace_files("effects.log"))
    waiting = set(platform.workspace_files("waiting"))
    with platform.client("doer", timeout=120) as api:
        made = api.responses.create(
            model="doer", input="\n".join(lines), background=True, extra_body={"agent_session_id": session}
        )
        if any(line.split()[0] in ("wait", "hang") for line in lines):
            poll("it waits", lambda: set(platform.workspace_files("waiting")) - waiting)
            platform.kill_sandbox("doer", session)

        def ended() -> Any:
            found = api.responses.retrieve(made.id)
            return found if found.status not in ("in_progress", "queued") else None

        done = poll("the turn ends", ended, within=90)
    assert done.status == "completed", done
    (log,) = set(platform.workspace_files("effects.log")) - before
    return done.output_text.strip().splitlines(), log.read_text().split()


def test_what_was_done_is_done_once_in_every_way_of_calling(platform: Platform) -> None:
    said, did = run(platform, "do a", "do a", "later b", "both c | d", "threads e | f", "wait", "do a", "do g")
    assert sorted(did) == ["a", "a", "a", "b", "c", "d", "e", "f", "g"]
    assert said[0] == "{'key': 'a', 'line': 1}" and said[1] == "{'key': 'a', 'line': 2}"
    assert said[-2:] == ["{'key': 'a', 'line': 8}", "{'key': 'g', 'line': 9}"]


def test_one_that_was_cut_off_is_not_known_and_told_so(platform: Platform) -> None:
    said, did = run(platform, "do a", "hang b", "do c")
    assert did == ["a", "b", "c"]
    assert said[1].startswith("OutcomeUnknown") and said[2] == "{'key': 'c', 'line': 3}"


def test_a_failure_goes_the_same_way_in_every_attempt(platform: Platform) -> None:
    said, did = run(platform, "fail a", "wait", "do b")
    assert did == ["a", "b"] and said[0] == "StepFailed Step 'fail' failed: LookupError: no a"


def test_one_that_asks_otherwise_in_a_later_attempt_is_turned_away_once(platform: Platform) -> None:
    said, did = run(platform, "now a", "wait", "now b")
    assert did == ["a", "b"]
    assert "already {'key': 'a', 'line': 1} of a" in said and said[-1] == "{'key': 'b', 'line': 2}"


def test_one_within_another_is_refused(platform: Platform) -> None:
    said, did = run(platform, "do a", "nested b")
    assert did == ["a"] and "is begun within step 'outer'" in said[1]
