"""A routine's run of thirty steps, killed at random: it goes on from where it died, and no step that was recorded runs twice.

Sandboxes (all of one, its init, agent or shim) and gateways get `kill -9`, one to three in a run, at a post of a step or just after it.
Plain processes: an isolated one does not reach a ledger on this machine's loopback.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from crash.kills import children
from crash.routines import host
from crash.routines.struck import Blow, Striking, blows, judge, watched
from fakes.effects import Effects, counting
from fakes.platform import Gateway, Platform, poll, started

LONG = os.environ.get("MOORAGE_LONG") == "1"
RUNS = 50 if LONG else 5
AT_ONCE = 5
VICTIMS = ("all", "init", "agent", "shim", "gateway")

pytestmark = [pytest.mark.crash, pytest.mark.routines, pytest.mark.timeout(7200 if LONG else 300)]


@pytest.fixture(scope="module")
def effects() -> Iterator[Effects]:
    with counting() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


@pytest.fixture(scope="module")
def platform(effects: Effects, folder: Path) -> Iterator[Platform]:
    (folder / "host.py").write_text(Path(host.__file__).read_text())
    agent = {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "HostedAgent",
        "metadata": {"name": "steps"},
        "spec": {
            "source": {"path": ".", "entrypoint": "host.py"},
            "pool": {"min": AT_ONCE, "max": 3 * AT_ONCE},
            "env": [{"name": "LEDGER_URL", "value": effects.url}],
        },
    }
    (folder / "agent.yaml").write_text(yaml.safe_dump(agent))
    with started(folder, "--plain") as made:
        poll("the agent serves", lambda: any(one["name"] == "steps" for one in made.agents), within=120)
        yield made


class Gateways:
    """One besides the platform's own, in whose place another begins when it is killed: runs of both go on at the other."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._lock = threading.Lock()
        self._now: Gateway = platform.start_gateway()

    def kill(self) -> None:
        """SIGKILL, whatever it carries."""
        with self._lock:
            self._now.kill()
            self._now = self._platform.start_gateway()

    def end(self) -> None:
        self._now.kill()


def schedule(platform: Platform, folder: Path, name: str) -> None:
    """Due once, in a moment."""
    at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat(timespec="seconds")
    document = {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Routine",
        "metadata": {"name": name},
        "spec": {"agent": "steps", "at": at, "input": name, "timeoutMinutes": 10, "owner": "dev"},
    }
    (folder / name).mkdir()
    (folder / name / "routines.yaml").write_text(yaml.safe_dump(document))


def strike(platform: Platform, gateways: Gateways, name: str, blow: Blow) -> None:
    if blow.victim == "gateway":
        gateways.kill()
        return
    shim, init = (platform.pids("steps", f"routine-{name}") + [0, 0])[:2]
    for pid in {"all": [shim, init], "shim": [shim], "init": [init], "agent": children(init)}[blow.victim]:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def over(platform: Platform, name: str) -> dict[str, Any]:
    """The run of a routine that was due once."""

    def found() -> dict[str, Any] | None:
        _, said = platform.call(f"/v1/routines/{name}/runs")
        return next((run for run in said.get("data", ()) if run["outcome"] is not None), None)

    return dict(poll(f"{name} ran", found, within=600 if LONG else 240, every=0.3))


def test_a_run_of_thirty_steps_goes_on_from_where_it_died(
    platform: Platform, effects: Effects, folder: Path, request: pytest.FixtureRequest
) -> None:
    seed = request.config.getoption("--crash-seed") or int(time.time()) // 86_400
    print(f"crash seed {seed}: replay with --crash-seed {seed}")
    dice = random.Random(seed)
    gateways = Gateways(platform)

    def one(number: int) -> Striking:
        name = f"steps-{number}"
        return Striking(name, blows(dice, VICTIMS), lambda blow: strike(platform, gateways, name, blow))

    todo = [one(number) for number in range(RUNS)]
    watched(effects, todo)

    def run(each: Striking) -> None:
        schedule(platform, folder, each.run)
        ended = over(platform, each.run)
        with platform.client("steps", timeout=60) as client:
            response = client.responses.retrieve(ended["response_ids"][0])
        judge(effects, each, ended, response, platform.record("steps", response.id)["attempts"])

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(run, todo))
    finally:
        effects.watch = None
        gateways.end()
    print(f"{RUNS} runs, {sum(len(each.struck) for each in todo)} blows")
