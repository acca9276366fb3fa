"""The fixed face of `scripts/dev`: its line, its end with all that it began, its second start, `--ephemeral`, its refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from fakes.dev_door import ROOT, Dev, dev, environment, groups_of
from fakes.platform import AGENTS, poll

pytestmark = pytest.mark.journey

SESSION = "session-that-stays"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two agents."""
    agents = tmp_path / "agents"
    shutil.copytree(AGENTS / "shapes", agents / "shapes")
    shutil.copytree(ROOT / "examples" / "hello", agents / "hello")
    return agents


def second_start_within() -> float:
    """Five seconds where nothing else runs; as much longer as other work on this machine makes everything."""
    return 5.0 * max(1.0, (os.getloadavg()[0] + 1) / (os.cpu_count() or 1))


def say(platform: Dev, text: str) -> Any:
    with platform.client("shapes") as api:
        return api.responses.create(model="shapes", input=text, extra_body={"agent_session_id": SESSION})


def get(platform: Dev, path: str) -> tuple[int, Any]:
    request = urllib.request.Request(platform.url + path)
    request.add_header("authorization", f"Bearer {platform.line['api_key']}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.timeout(300)
def test_it_ends_with_all_it_began_and_a_second_start_finds_everything_again(folder: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with dev(folder, tmp_path, "--state", str(state)) as first:
        assert set(first.line) == {"url", "api_key", "agents"}
        assert first.line["agents"] == [
            {
                "name": name,
                "responses_url": f"{first.url}/v1/agents/{name}/responses",
                "invocations_url": f"{first.url}/v1/agents/{name}/invocations",
            }
            for name in ("hello", "shapes")
        ]
        assert first.state() == state
        written = say(first, "write kept")
        assert written.output_text == "written"
        assert say(first, "print seen by its author").output_text == "printed"
        shown = f"shapes/{SESSION[:12]} | seen by its author"
        poll("what an agent prints is shown with where it comes from", lambda: shown in first.log.read_text())
        with first.client("hello") as api:
            left = api.responses.create(model="hello", input="ada", background=True)
        assert get(first, "/v1/keys")[0] == get(first, "/v1/audit")[0] == 200, "the printed key may do everything"
        family = first.family()
        groups = groups_of(family)
        assert len(family) > 5
        assert first.end(signal.SIGTERM) == 0
        assert first.process.stdout is not None and first.process.stdout.read() == b"", "stdout is for the line alone"
    poll("no process is left", lambda: not [one for one in family if one.alive], within=5)
    poll("no control group is left", lambda: not [path for path in groups if path.exists()], within=5)

    with dev(folder, tmp_path, "--state", str(state)) as second:
        assert second.seconds < second_start_within(), f"a second start took {second.seconds:.1f} s"
        assert second.line["api_key"] == first.line["api_key"]
        with second.client("shapes") as api:
            assert api.responses.retrieve(written.id).output_text == "written"
        with second.client("hello") as api:
            poll("the answer in flight is there", lambda: api.responses.retrieve(left.id).output_text == "Hello ada!")
        code, found = get(second, f"/v1/sessions/{SESSION}")
        assert (code, found["agent"]) == (200, "shapes")
        assert say(second, "read").output_text == "kept"
        assert get(second, "/v1/audit/verify")[1]["ok"] is True
        family = second.family()
        second.end(signal.SIGKILL)
        poll("what is tied to a killed platform ends too", lambda: not [one for one in family if one.alive], within=15)

    with dev(folder, tmp_path, "--state", str(state)) as third:
        assert say(third, "read").output_text == "kept"
        assert get(third, "/v1/audit/verify")[1]["ok"] is True
        refused = subprocess.run(
            [str(ROOT / "scripts" / "dev"), "--no-demo", "--port", "0", "--state", str(state), str(folder)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(tmp_path),
            check=False,
        )
        assert refused.returncode == 1 and str(state) in refused.stderr and "Traceback" not in refused.stderr
        assert third.end(signal.SIGINT) == 0


def test_an_ephemeral_platform_forgets_everything(folder: Path, tmp_path: Path) -> None:
    with dev(folder, tmp_path, "--ephemeral") as platform:
        state = platform.state()
        assert state.is_dir()
        assert say(platform, "write x").output_text == "written"
        family = platform.family()
        assert platform.end(signal.SIGTERM) == 0
    assert not state.exists()
    poll("no process is left", lambda: not [one for one in family if one.alive], within=5)


def test_what_it_cannot_do_is_said_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            ("--ephemeral", "--state", str(tmp_path / "s")): (2, "either --ephemeral or --state"),
            ("--ephemeral", "--port", port): (1, port),
            ("--ephemeral", "--otlp", "collector:4318"): (2, "http://"),
        }
        for options, (code, words) in cases.items():
            done = subprocess.run(
                [str(ROOT / "scripts" / "dev"), "--json", "--no-demo", *options, str(folder)],
                capture_output=True,
                text=True,
                timeout=60,
                env=environment(tmp_path) | {"COLUMNS": "200", "NO_COLOR": "1"},
                check=False,
            )
            said = " ".join(done.stderr.replace("│", " ").split())
            assert (done.returncode, done.stdout) == (code, ""), (options, done)
            assert words in said and "Traceback" not in said, said
