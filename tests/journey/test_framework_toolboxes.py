"""Toolboxes in every framework by `MCPToolbox`, and functions as steps where a function calls the framework: what a model is told when
the sandbox dies. The real packages of their own locks; models and the tool server are scripted.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import models as fake_models
from fakes import tools as fake_tools
from fakes.dev_door import ROOT
from fakes.models import Models
from fakes.platform import Platform, poll, started
from fakes.tools import Tools

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(600)]

SHOWN = ROOT / "frameworks"
OURS = Path(__file__).with_name("toolbox_agents")
CALLED = ("openai-agents", "pydantic-ai")
"""By a function."""
FRAMEWORKS = ("agent-framework", "langgraph", *CALLED)
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: openai}}
spec: {{protocol: compatible, baseUrl: "{models}/v1"}}
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: desk}}
spec:
  upstreams: [{{name: desk, mcp: {{url: "{tools}"}}}}]
"""


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    """The scripted models."""
    with fake_models.serving() as made:
        yield made


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    """The scripted server of tools."""
    with fake_tools.serving() as made:
        yield made


@pytest.fixture(scope="module")
def framework(request: pytest.FixtureRequest) -> str:
    """By `each` or `called`."""
    return str(request.param)


each = pytest.mark.parametrize("framework", FRAMEWORKS, indirect=True)
called = pytest.mark.parametrize("framework", CALLED, indirect=True)


@contextlib.contextmanager
def platform_of(models: Models, tools: Tools, framework: str, folder: Path) -> Iterator[Platform]:
    """One for each framework: its environment is most of the start."""
    shutil.copytree(OURS / framework, folder / "ours", ignore=shutil.ignore_patterns("__pycache__"))
    for lists in ("requirements.in", "requirements.txt"):  # as beside the example: equal lists are one environment
        shutil.copy(SHOWN / framework / lists, folder / "ours")
    shutil.copy(OURS / "own_tools.py", folder / "ours")
    if framework in CALLED:
        ignored = shutil.ignore_patterns("__pycache__", "workspace")
        shutil.copytree(SHOWN / framework, folder / "shown", ignore=ignored)
    (folder / "models.yaml").write_text(MANIFEST.format(models=models.url, tools=tools.url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOORAGE_ALLOWED_UPSTREAMS", f"127.0.0.1:{models.port},127.0.0.1:{tools.port}")
        with started(folder) as found:
            assert len(found.agents) == (2 if framework in CALLED else 1), found.log.read_text()[-3000:]
            yield found


@pytest.fixture(scope="module")
def platform(
    models: Models, tools: Tools, framework: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    with platform_of(models, tools, framework, tmp_path_factory.mktemp(framework)) as found:
        yield found


def name(prefix: str) -> str:
    """A text that no other test asks."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def call(tool: str, text: str) -> str:
    return f'call {tool} {{"text": "{text}"}}'


def killed(platform: Platform, agent: str, text: str, when: Callable[[], Any], release: Callable[[], None]) -> Any:
    """The response to `text` in a new session whose sandbox is killed as soon as `when`."""
    session = f"session-{uuid.uuid4().hex}"
    with platform.client(agent, timeout=120) as api:
        extra = {"agent_session_id": session}
        made = api.responses.create(model=agent, input=text, background=True, extra_body=extra)
        poll("it is time", lambda: when() or _ended(api, made.id), within=120)
        ended = api.responses.retrieve(made.id)
        assert when(), (ended.error, ended.output)
        here = set(platform.pids(agent, session))
        platform.kill_sandbox(agent, session)
        poll("it has another sandbox", lambda: set(platform.pids(agent, session)) - here, within=120)
        release()
        done = poll("the turn ends", lambda: _ended(api, made.id), within=120)
    assert done.status == "completed", done
    return done


def _ended(api: Any, response: str) -> Any:
    found = api.responses.retrieve(response)
    return found if found.status not in ("in_progress", "queued") else None


def told(models: Models, mark: str) -> list[str]:
    """The results of tools in the last request to a model of the conversation with that mark, as they stand there."""
    bodies = [each["body"] for each in models.asked if mark in json.dumps(each["body"])]
    return [json.dumps(each["content"]) for each in bodies[-1]["messages"] if each["role"] == "tool"]


def asked_about(models: Models, text: str) -> bool:
    """Whether a model waits with a question whose last text has that, and is no order to call."""
    return any(text in each["text"] and not each["text"].startswith("call ") for each in models.asked)


def ran(tools: Tools, text: str) -> list[str]:
    """The texts that the server's tools ran with and that have that in them."""
    texts = [str(each["arguments"].get("text")) for each in tools.ran]
    return [each for each in texts if text in each]


def lines(platform: Platform, file: str, mark: str) -> list[str]:
    """Lines with that mark in the sessions' files of that name."""
    texts = [each.read_text() for each in platform.workspace_files(file)]
    return [line for text in texts for line in text.splitlines() if mark in line]


@each
def test_a_toolboxs_journal_has_what_a_kill_fell_into_and_a_lost_outcome_is_told_as_one(
    platform: Platform, models: Models, tools: Tools, framework: str
) -> None:
    mark, door = name("mark"), name("door")

    def release() -> None:
        tools.release(door)
        models.release(door)

    searched = (
        'call tool_search {"query": "adds a text"}; call call_tool {"name": "add", "arguments": {"text": "pause %s"}}'
    )
    done = killed(
        platform, f"desk-{framework}", f"{call('add', f'garbage {mark}')}; {searched % door}",
        lambda: ran(tools, mark) and ran(tools, door), release,
    )  # fmt: skip
    lost, listed, found = told(models, mark)
    assert "inputSchema" in listed and "add" in listed, listed
    assert "outcome_unknown" in lost and "not known" in lost, lost
    assert f"pause {door}" in found and "add " in found and "outcome_unknown" not in found, found
    assert (ran(tools, mark), ran(tools, door)) == ([f"garbage {mark}"], [f"pause {door}"]), "each ran once"
    assert len(platform.record(f"desk-{framework}", done.id)["attempts"]) >= 2


@each
def test_a_toolbox_that_is_asked_otherwise_tells_what_was_done(
    platform: Platform, models: Models, tools: Tools, framework: str
) -> None:
    door = name("door")
    killed(
        platform, f"desk-{framework}", call("add", f"NUMBER pause {door}"), lambda: asked_about(models, f"pause {door}"),
        lambda: models.release(door),
    )  # fmt: skip
    (once,) = ran(tools, door)
    (said,) = told(models, door)
    assert "already_done_in_earlier_attempt" in said and f": {once}" in said, said


@called
def test_a_step_that_a_kill_fell_into_is_told_as_unknown(platform: Platform, models: Models, framework: str) -> None:
    mark = name("mark")
    killed(platform, f"desk-{framework}", call("hang", mark), lambda: lines(platform, "hung.txt", mark), lambda: None)
    assert "outcome_unknown" in told(models, mark)[0] and lines(platform, "hung.txt", mark) == [mark]


@called
def test_a_step_that_is_asked_otherwise_tells_what_was_done(platform: Platform, models: Models, framework: str) -> None:
    door = name("door")
    killed(
        platform, f"desk-{framework}", call("note", f"NUMBER pause {door}"), lambda: asked_about(models, f"pause {door}"),
        lambda: models.release(door),
    )  # fmt: skip
    (noted,) = lines(platform, "notes.txt", door)
    (said,) = told(models, door)
    assert "already_done_in_earlier_attempt" in said and f"noted {noted}" in said, said


@called
def test_the_example_goes_on_after_a_kill_and_knows_the_conversation(
    platform: Platform, models: Models, framework: str
) -> None:
    agent, item, door = f"shopper-{framework}", name("item"), name("door")
    order = f'call add_item {{"item": "{item} pause {door}", "amount": 2}}'
    done = killed(platform, agent, order, lambda: asked_about(models, door), lambda: models.release(door))
    assert lines(platform, "list.txt", item) == [f"2 {item} pause {door}"] and f"noted: 2 {item}" in done.output_text
    with platform.client(agent, timeout=120) as api:
        after = api.responses.create(model=agent, input=name("after"), previous_response_id=done.id)
    assert after.status == "completed", after
    roles = [each["role"] for each in models.asked[-1]["body"]["messages"] if each["role"] != "system"]
    assert roles == ["user", "assistant", "user"]
