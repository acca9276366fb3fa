"""`examples/routine-triage` but for its webhook: killed in a run, it says once what is new; the next run says what came since,
and one that could not post tries again under the same key."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.commands import Commands
from fakes.platform import Platform, poll, started
from journey.test_routines import People
from tree import ROOT

pytestmark = [pytest.mark.journey, pytest.mark.routines, pytest.mark.timeout(240)]

NAME = "nightly-triage"
PACE = "0.4"


@pytest.fixture
def people() -> Iterator[People]:
    made = People()
    yield made
    made.close()


@pytest.fixture
def platform(people: People, tmp_path: Path) -> Iterator[Platform]:
    """Plain processes: an isolated one does not reach a server on this machine's loopback."""
    folder = tmp_path / "agents"
    shutil.copytree(ROOT / "examples" / "routine-triage", folder, ignore=shutil.ignore_patterns("__pycache__"))
    change(folder / "agent.yaml", env=[env("TRIAGE_WEBHOOK", people.url), env("TRIAGE_PACE", PACE)])
    change(folder / "routines.yaml", owner="dev", retries={"limit": 2, "backoff": "1s"})
    with started(folder, "--plain") as made:
        poll("the agent serves", lambda: any(one["name"] == "triage" for one in made.agents), within=120)
        poll("its routine is there", lambda: made.call(f"/v1/routines/{NAME}")[0] == 200)
        yield made


def env(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def change(file: Path, **spec: Any) -> None:
    body = yaml.safe_load(file.read_text())
    body["spec"] |= spec
    file.write_text(yaml.safe_dump(body))


def test_killed_in_a_run_it_says_once_what_is_new_and_then_what_came_since(
    platform: Platform, people: People, tmp_path: Path
) -> None:
    commands = Commands(platform.url, platform.api_key, tmp_path)
    assert platform.call(f"/v1/routines/{NAME}/run", method="POST")[0] == 202
    going = poll("its turn runs", lambda: platform.call(f"/v1/routines/{NAME}/runs")[1]["data"][0]["response_ids"])
    with platform.client("triage", timeout=60) as client:
        for event in client.responses.retrieve(going[0], stream=True):
            if event.type == "response.output_text.delta" and "crashes" in event.delta:
                break
    platform.kill_sandbox("triage", f"routine-{NAME}")

    def over() -> dict[str, Any] | None:
        run = platform.call(f"/v1/routines/{NAME}/runs")[1]["data"][0]
        return dict(run) if run["outcome"] is not None else None

    run = poll("it is over", over, within=90)
    assert run["outcome"] == "succeeded" and run["response_ids"] == going, run
    assert len(platform.record("triage", going[0])["attempts"]) == 2
    (told,) = people.told
    assert b"3 new issues, 2 of them urgent; 2 commits." in told[2]
    assert run["output"].count("Rows are lost") == 2, "in the list, and in the summary"

    again = commands.json("routines", "run", NAME, "--wait")
    assert again["outcome"] == "succeeded" and "1 issues and 1 commits are new." in again["output"]
    assert b"1 new issues, 0 of them urgent; 1 commits." in people.told[1][2] and len(people.told) == 2

    people.answers.append(500)
    tried = commands.json("routines", "run", NAME, "--wait")
    assert tried["outcome"] == "succeeded" and len(tried["response_ids"]) == 2, (
        "the first try could not post, the second did"
    )
    (refused,) = people.refused
    keys = [one[1]["idempotency-key"] for one in people.told]
    assert keys[2] == refused[1]["idempotency-key"], "it said the same thing, whichever try it was"
    assert len(set(keys)) == 3 and refused[2] == people.told[2][2]
