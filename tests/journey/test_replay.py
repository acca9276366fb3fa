"""`moorage replay`: an ended turn again, offline, against its journal; and who may read that."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.models import Models, serving
from fakes.platform import BIN, Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.timeout(240)]

# Without packages: the clients that developers use are in test_models.py; here it counts what is asked, not by whom.
HOST = """
import json, os, urllib.request, uuid
from moorage import HostedAgent, text_of

def ask(text):
    body = json.dumps({"model": "m-1", "messages": [{"role": "user", "content": text}]}).encode()
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]

async def agent(items, ctx):
    for line in text_of(items).splitlines():
        yield ask(line.replace("NONCE", uuid.uuid4().hex)) + "\\n"

HostedAgent(agent).serve()
"""
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: asker}}
spec: {{source: {{path: ., entrypoint: host.py}}, models: [chat], pool: {{min: 1, max: 2}}}}
---
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: chat}}
spec: {{protocol: compatible, baseUrl: "{url}/v1"}}
"""


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def platform(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("replayed")
    agent = folder / "asker"
    agent.mkdir()
    (agent / "host.py").write_text(HOST)
    (agent / "agent.yaml").write_text(MANIFEST.format(url=models.url))
    with started(folder) as found:
        poll("the agent serves", lambda: any(a["name"] == "asker" for a in found.agents), within=120)
        yield found


def ask(platform: Platform, *lines: str, **more: Any) -> Any:
    with platform.client("asker", timeout=60) as api:
        return api.responses.create(model="asker", input="\n".join(lines), **more)


def replayed(platform: Platform, response: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, as a person runs it."""
    command = [str(BIN / "moorage"), "replay", response, str(folder), *options]
    given = ["--url", platform.url, "--key", platform.api_key]
    return subprocess.run([*command, *given], capture_output=True, text=True, timeout=120, check=False)


def copy_of(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The agent's folder as its developer has it now."""
    text = HOST
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "host.py").write_text(text)
    return tmp_path


def test_an_unchanged_agent_asks_the_same_and_nobody_is_asked(
    platform: Platform, models: Models, tmp_path: Path
) -> None:
    response = ask(platform, "one", "two", "one")
    before = len(models.asked)
    done = replayed(platform, response.id, copy_of(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 3 and "The same: 3 calls" in done.stdout
    assert len(models.asked) == before
    again = json.loads(replayed(platform, response.id, tmp_path, "--json").stdout)
    assert again == {"same": True, "calls": 3, "recorded": 3, "difference": None, "same_words": True}


def test_a_turn_that_goes_on_from_another_is_replayed_with_its_history(platform: Platform, tmp_path: Path) -> None:
    first = ask(platform, "first")
    second = ask(platform, "second", previous_response_id=first.id)
    assert replayed(platform, second.id, copy_of(tmp_path)).returncode == 0


def test_the_first_difference_is_shown_as_what_was_and_what_is_asked(platform: Platform, tmp_path: Path) -> None:
    response = ask(platform, "same", "second question")
    folder = copy_of(tmp_path, ("ask(line.replace(", 'ask(line.replace("second", "SECOND").replace('))
    done = replayed(platform, response.id, folder)
    assert done.returncode == 1 and "Call 2 is not what was recorded" in done.stdout, done.stdout + done.stderr
    assert (
        '-        "content": "second question"' in done.stdout
        and '+        "content": "SECOND question"' in done.stdout
    )
    assert '"same"' not in done.stdout, "only what differs, and a little around it"


def test_a_nonce_in_a_prompt_is_what_the_difference_shows(platform: Platform, tmp_path: Path) -> None:
    response = ask(platform, "it is NONCE")
    told = json.loads(replayed(platform, response.id, copy_of(tmp_path), "--json").stdout)
    assert told["difference"]["call"] == 1 and any("it is" in line for line in told["difference"]["diff"])


def test_fewer_and_more_calls_and_other_words_are_differences(platform: Platform, tmp_path: Path) -> None:
    response = ask(platform, "one", "two")
    fewer = replayed(platform, response.id, copy_of(tmp_path, (".splitlines()", ".splitlines()[:1]")))
    assert fewer.returncode == 1 and "after 1 calls of 2" in fewer.stdout
    more = replayed(platform, response.id, copy_of(tmp_path, (".splitlines()", '.splitlines() + ["three"]')))
    assert more.returncode == 1 and "was not made in the recorded run" in more.stdout
    words = replayed(platform, response.id, copy_of(tmp_path, ('+ "\\n"', '+ "!\\n"')))
    assert words.returncode == 1 and "the answer is not" in words.stdout


def test_what_cannot_be_replayed_says_why(platform: Platform, tmp_path: Path) -> None:
    response = ask(platform, "one")
    assert replayed(platform, "caresp_0123456789abcdef00" + "x" * 32, copy_of(tmp_path)).returncode == 3
    (tmp_path / "host.py").write_text("raise SystemExit(7)")
    broken = replayed(platform, response.id, tmp_path)
    assert broken.returncode == 3 and "ended with 7" in broken.stderr
    assert replayed(platform, response.id, tmp_path / "none").returncode == 2


def test_a_journal_is_its_owners_who_may_deploy(platform: Platform) -> None:
    response = ask(platform, "mine")
    path = f"/v1/agents/asker/responses/{response.id}/journal"
    status, journal = platform.call(path)
    assert status == 200 and [call["what"]["kind"] for call in journal["calls"]] == ["model"]
    assert "baseUrl" not in json.dumps(journal) and journal["asked"]["input"]
    user = platform.record("asker", response.id)["user"]
    asked = {"name": "caller", "user": user, "scopes": ["invoke"]}
    status, made = platform.call("/v1/keys", method="POST", body=asked)
    assert status in (200, 201), made
    status, refused = platform.call(path, api_key=made["key"])
    assert status == 403 and "deploy" in refused["error"]["message"]
    asked = {"name": "other", "user": "somebody", "scopes": ["invoke", "deploy"]}
    _, other = platform.call("/v1/keys", method="POST", body=asked)
    assert platform.call(path, api_key=other["key"])[0] == 404
