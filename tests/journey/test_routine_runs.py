"""Routines made by programs, and runs while they go on: applied, progress, output and log lines, on a laptop's platform."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes.commands import Commands
from fakes.platform import Platform, poll, started
from moorage import Misuse, Routine

pytestmark = [pytest.mark.journey, pytest.mark.routines, pytest.mark.timeout(240)]

HOST = """
import time
from moorage import HostedAgent, progress, text_of

def agent(items, ctx):
    print(f"printed in attempt {ctx.attempt}", flush=True)
    yield f"begun: {text_of(items)}\\n"
    if ctx.attempt == 1:
        for n in range(1, 31):
            progress(f"{n} of 40 issues", fraction=n / 40)
    if "hang" in text_of(items):
        time.sleep(600)  # somebody ends it
    yield "the end"

HostedAgent(agent=agent).serve()
"""
AGENT = {
    "apiVersion": "moorage.dev/v1alpha1",
    "kind": "HostedAgent",
    "metadata": {"name": "worker"},
    "spec": {"source": {"path": ".", "entrypoint": "host.py"}},
}

METADATA = {"secret": "meta", "key": "url"}


def routine(name: str, **spec: Any) -> dict[str, Any]:
    whole = {"agent": "worker", "schedule": "0 6 1 1 *", "timeZone": "Europe/Berlin", "input": name, "owner": "dev"}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Routine",
        "metadata": {"name": name},
        "spec": whole | spec,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def platform(folder: Path) -> Iterator[Platform]:
    (folder / "host.py").write_text(HOST)
    (folder / "agent.yaml").write_text(yaml.safe_dump(AGENT))
    (folder / "routines.yaml").write_text(yaml.safe_dump_all([routine("hang"), routine("quick")]))
    with started(folder, env=os.environ | {"META_URL": "http://169.254.169.254/secret-part"}) as made:
        poll("the agent serves", lambda: any(one["name"] == "worker" for one in made.agents), within=120)
        poll("its routines are there", lambda: made.call("/v1/routines/quick")[0] == 200)
        yield made


@pytest.fixture(scope="module")
def commands(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(platform.url, platform.api_key, tmp_path_factory.mktemp("home"))


def test_a_run_is_seen_live_and_its_progress_outlives_its_sandbox(platform: Platform, commands: Commands) -> None:
    with commands.start("routines", "run", "hang", "--wait") as seen:
        try:
            _watched(platform, commands)
            out, err = seen.communicate(timeout=60)
        finally:
            seen.kill()
    assert seen.returncode == 1 and out.startswith("begun: hang\n") and "· 30 of 40 issues (75 %)" in err, (out, err)
    assert "cancelled, due" in out.splitlines()[-1]


def _watched(platform: Platform, commands: Commands) -> None:
    """What of a run is seen while it hangs; then it is cancelled."""

    def newest() -> dict[str, Any] | None:
        run = next(iter(platform.call("/v1/routines/hang/runs")[1]["data"]), {"progress": None})
        return run if (run["progress"] or {}).get("text") == "30 of 40 issues" else None

    run = poll("how far it is", newest)
    assert run["progress"]["fraction"] == 0.75 and run["progress"]["said_at"] >= run["started_at"]
    (response,) = run["response_ids"]
    platform.kill_sandbox("worker", "routine-hang")

    def logs() -> dict[str, Any] | None:
        found = commands.json("routines", "logs", "hang")
        return dict(found) if "printed in attempt 2" in [line["text"] for line in found["lines"]] else None

    running = poll("another attempt", logs, within=60)
    assert newest() == run and "30 of 40 issues (75 %)" in commands.run("routines", "show", "hang").out
    assert running["run"]["id"] == run["id"] and running["responses"][0]["id"] == response
    with platform.client("worker") as api:
        api.responses.cancel(response)


def test_the_logs_of_a_run_are_what_it_said_and_what_its_sandbox_printed(
    platform: Platform, commands: Commands
) -> None:
    said = commands.run("routines", "run", "quick", "--wait")
    assert said.out.startswith("begun: quick\nthe end\nsucceeded, due ")
    (run,) = commands.json("routines", "history", "quick")
    for named in ((), (run["id"],), (run["scheduled_time"],), (run["response_ids"][0], "--follow")):
        said = commands.run("routines", "logs", "quick", *named)
        assert said.out.startswith("begun: quick\nthe end\nsucceeded, due ")
        assert said.err.splitlines() == ["stdout: printed in attempt 1"]
    assert commands.run("routines", "logs", "quick", "-n", "0").err == ""
    assert "has no run nowhere" in commands.run("routines", "logs", "quick", "nowhere", fails=True).err


def test_due_times_are_told_in_words(platform: Platform, commands: Commands) -> None:
    lines = [line for line in commands.run("routines", "show", "quick").out.splitlines() if "next" in line]
    assert len(lines) == 5 and all(
        " at 06:00 Europe/Berlin, in " in line and "-01-01T05:00:00Z)" in line for line in lines
    )


def test_a_routine_of_a_program_is_applied_kept_and_taken_away(platform: Platform, commands: Commands) -> None:
    made = Routine(agent="worker", name="made", every="24h", input="quick", missed_runs="skip")
    found = made.deploy(url=platform.url, key=platform.api_key)
    assert (found["name"], found["schedule"], found["warnings"]) == ("made", "every 24h", [])
    assert "begun: quick" in commands.run("routines", "run", "made", "--wait").out
    alerted = Routine(
        agent="worker",
        name="made",
        every="12h",
        input="x",
        alerts=[{"name": "ops", "url": {"secret": "no", "key": "url"}}],
    )
    again = alerted.deploy(url=platform.url, key=platform.api_key)
    assert (
        again["schedule"] == "every 12h"
        and "NO_URL" in again["warnings"][0]
        and again["last"]["outcome"] == "succeeded"
    )
    assert len(list(platform.state.glob("**/routines/made.json"))) == 1, "it outlives the platform"
    commands.run("routines", "delete", "made")
    poll("it is gone", lambda: platform.call("/v1/routines/made")[0] == 404)
    assert "There is no routine" in commands.run("routines", "delete", "made", fails=True).err
    assert not list(platform.state.glob("**/routines/made.json"))


def test_what_cannot_be_applied_is_refused_with_its_field(platform: Platform, commands: Commands) -> None:
    with pytest.raises(Misuse, match=r"spec\.schedule"):
        Routine(agent="worker", schedule="61 * * * *", input="x").deploy(url=platform.url)
    for field, over in (("spec.agent", {"agent": "nowhere"}), ("spec.owner", {"owner": "somebody-else"})):
        body = routine("refused", **{"owner": "dev", **over})
        status, said = platform.call("/v1/routines/refused", method="PUT", body=body)
        assert (status, said["error"]["param"]) == (422, field), said
    for field, name, body in (
        ("metadata.name", "other", routine("refused")),
        ("kind", "refused", AGENT),
        ("spec.timeZone", "refused", routine("refused", timeZone="Europe/Nowhere")),
        ("spec.schedule", "refused", routine("refused", schedule="0 6 31 2 *")),
        ("spec.input", "refused", routine("refused", input="{{ nobody }}")),
        ("spec.input", "refused", routine("refused", input="x" * 300_000)),
        (
            "spec.items",
            "refused",
            routine("refused", input=None, items=[{"type": "message", "content": "x" * 300_000}]),
        ),
        ("spec.alerts[0].url", "refused", routine("refused", alerts=[{"name": "ops", "url": METADATA}])),
    ):
        status, said = platform.call(f"/v1/routines/{name}", method="PUT", body=body)
        assert (status, said["error"]["param"]) == (422, field) and "secret-part" not in str(said), said
    status, said = platform.call("/v1/routines/refused", method="PUT", body=routine("refused", input="x" * 2_000_000))
    assert status == 413 and said["error"]["message"], said
    assert platform.call("/v1/routines/refused")[0] == 404
    for method, body in (("PUT", routine("quick")), ("DELETE", None)):
        status, said = platform.call("/v1/routines/quick", method=method, body=body)
        assert status == 409 and "routines.yaml" in said["error"]["message"], said
    narrow = platform.call("/v1/keys", method="POST", body={"name": "narrow", "scopes": ["invoke", "deploy"]})[1]["key"]
    assert platform.call("/v1/routines/mine", method="PUT", body=routine("mine"), api_key=narrow)[0] == 403


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "never": ({"schedule": "0 6 31 2 *"}, "spec.schedule: "),
    "mars": ({"timeZone": "Mars/Olympus"}, "spec.timeZone: "),
    "unnamed": ({"input": "{{ nobody }}"}, "spec.input: "),
    "large": ({"input": "x" * 300_000}, "spec.input: "),
    "lost": ({"agent": "nowhere"}, "routine lost: spec.agent: there is no agent 'nowhere' yet"),
    "untold": (
        {"alerts": [{"name": "ops", "url": METADATA}]},
        "routine untold: spec.alerts[0].url: the target ops is not allowed: leads to a metadata or link-local address",
    ),
}
"""Name → what is wrong with it, and what is said of that beside its file's or its own name."""


def test_what_is_wrong_in_a_file_of_the_folder_is_said_with_its_field_and_runs_nowhere(
    platform: Platform, folder: Path
) -> None:
    for name, (spec, _) in WRONG.items():
        (folder / name).mkdir()
        (folder / name / "routines.yaml").write_text(yaml.safe_dump(routine(name, **spec)))
    for name, (_, said) in WRONG.items():

        def told(name: str = name, said: str = said) -> bool:
            lines = platform.log.read_text().splitlines()
            return any(said in line and name in line for line in lines)

        poll(f"{name}: {said}", told)
    (folder / "right").mkdir()
    (folder / "right" / "routines.yaml").write_text(yaml.safe_dump(routine("right")))
    poll("one that is right is known", lambda: platform.call("/v1/routines/right")[0] == 200)
    assert not WRONG.keys() & {one["name"] for one in platform.call("/v1/routines")[1]["data"]}
    assert "secret-part" not in platform.log.read_text()
    for name in (*WRONG, "right"):
        (folder / name / "routines.yaml").unlink()


@pytest.mark.long
def test_what_a_program_applied_is_there_after_a_restart(tmp_path: Path) -> None:
    folder, state = tmp_path / "agents", tmp_path / "state"
    folder.mkdir()
    (folder / "host.py").write_text(HOST)
    (folder / "agent.yaml").write_text(yaml.safe_dump(AGENT))
    with started(folder, state=state) as first:
        poll("the agent is there", lambda: first.call("/v1/agents/worker")[0] == 200)
        made = Routine(agent="worker", name="kept", schedule="@daily", input="x").deploy(
            url=first.url, key=first.api_key
        )
        assert first.end() == 0
    with started(folder, state=state) as second:
        found = poll("it is there again", lambda: (said := second.call("/v1/routines/kept"))[0] == 200 and said[1])
        assert found["revision"] == made["revision"]
