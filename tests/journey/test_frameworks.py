"""Agents of frameworks, unchanged, as `frameworks/` shows them: the real packages of their own locks, and scripted models.

`framework_agents/` has agents with what the examples do not need: a question to a person, a lost state.
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

from fakes.dev_door import ROOT
from fakes.model_tools import USED_IN, USED_OUT
from fakes.models import INPUT, Models, serving
from fakes.platform import Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(600)]

SHOWN = ROOT / "frameworks"
OURS = Path(__file__).with_name("framework_agents")
FRAMEWORKS = ("agent-framework", "langgraph")
ENDPOINT = """
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: openai}}
spec: {{protocol: compatible, baseUrl: "{url}/v1"}}
"""
CALL = 'call add_item {"item": "lemons", "amount": 2}'


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    """The scripted server."""
    with serving() as made:
        yield made


@contextlib.contextmanager
def platform_of(models: Models, folder: Path) -> Iterator[Platform]:
    for each in FRAMEWORKS:
        ignored = shutil.ignore_patterns("__pycache__", "workspace")
        shutil.copytree(SHOWN / each, folder / "shown" / each, ignore=ignored)
        shutil.copytree(OURS / each, folder / "ours" / each, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("requirements.in", "requirements.txt"):
            shutil.copy(SHOWN / each / name, folder / "ours" / each / name)
    (folder / "shown" / "models.yaml").write_text(ENDPOINT.format(url=models.url))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOORAGE_ALLOWED_UPSTREAMS", f"127.0.0.1:{models.port}")
        with started(folder) as found:
            assert len(found.agents) == 2 * len(FRAMEWORKS), found.log.read_text()[-3000:]
            yield found


@pytest.fixture(scope="module")
def platform(models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_of(models, tmp_path_factory.mktemp("frameworks")) as found:
        yield found


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def asking(platform: Platform, agent: str) -> Iterator[Any]:
    with platform.client(agent, timeout=120) as api:

        def ask(text: str, **more: Any) -> Any:
            return api.responses.create(model=agent, input=text, **more)

        ask.api = api  # type: ignore[attr-defined]
        yield ask


def name(prefix: str) -> str:
    """A text that no other test asks."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def call(tool: str, text: str) -> str:
    return f'call {tool} {{"text": "{text}"}}'


def lines(platform: Platform, file: str, mark: str) -> list[str]:
    """Lines with that mark in the sessions' files of that name."""
    texts = [each.read_text() for each in platform.workspace_files(file)]
    return [line for text in texts for line in text.splitlines() if mark in line]


def asked_about(models: Models, text: str) -> bool:
    """Whether a model waits with a question whose last text has that, and is no order to call."""
    return any(text in each["text"] and not each["text"].startswith("call ") for each in models.asked)


def killed(
    platform: Platform, agent: str, text: str, when: Callable[[], Any], release: Callable[[], None] = lambda: None
) -> Any:
    """The response to `text` in a new session whose sandbox is killed as soon as `when`."""
    session = f"session-{uuid.uuid4().hex}"
    with asking(platform, agent) as ask:
        made = ask(text, background=True, extra_body={"agent_session_id": session})
        poll("it is time", when)
        here = set(platform.pids(agent, session))
        platform.kill_sandbox(agent, session)
        poll("it has another sandbox", lambda: set(platform.pids(agent, session)) - here)
        release()
        return poll("the turn ends", lambda: _ended(ask.api, made.id), within=120)


def roles(models: Models) -> list[str]:
    """Who spoke in the last request, instructions left out."""
    return [each["role"] for each in models.asked[-1]["body"]["messages"] if each["role"] != "system"]


def test_an_answer_is_told_word_by_word(platform: Platform, framework: str) -> None:
    text = name("hello")
    with asking(platform, f"shopper-{framework}") as ask:
        events = list(ask(text, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) == 4 and "".join(deltas).strip().endswith(f"to {text}")
    assert events[-1].type == "response.completed" and [event.sequence_number for event in events] == list(
        range(len(events))
    )


def test_tools_are_items_and_tokens_are_counted(platform: Platform, models: Models, framework: str) -> None:
    with asking(platform, f"shopper-{framework}") as ask:
        done = ask(f"{CALL}; call read_list {{}}")
    kinds = [item.type for item in done.output]
    assert kinds == ["function_call"] * 2 + ["function_call_output"] * 2 + ["message"], done
    first, second, noted, listed, message = done.output
    assert (first.name, second.name) == ("add_item", "read_list") and '"lemons"' in first.arguments
    assert (noted.call_id, listed.call_id) == (first.call_id, second.call_id) and "noted: 2 lemons" in noted.output
    assert message.content[0].text.startswith("answer ")
    words = len(message.content[0].text.split())
    assert (done.usage.input_tokens, done.usage.output_tokens) == (USED_IN + INPUT, USED_OUT + words), (
        "of both requests"
    )
    offered = {each["function"]["name"] for each in models.asked[-1]["body"]["tools"]}
    assert offered == {"add_item", "read_list"}


def test_images_and_files_reach_the_model(platform: Platform, models: Models, framework: str) -> None:
    image, file = "data:image/png;base64,iVBORw0KGgo=", "data:application/pdf;base64,JVBERi0="
    parts = [
        {"type": "input_image", "image_url": image},
        {"type": "input_file", "file_data": file, "filename": "a.pdf"},
        {"type": "input_text", "text": name("look")},
    ]
    with asking(platform, f"shopper-{framework}") as ask:
        done = ask([{"role": "user", "content": parts}])
        refused = ask([{"role": "user", "content": [{"type": "input_audio", "data": "x"}]}])
    assert done.status == "completed", done
    asked = next(each for each in reversed(models.asked) if image in json.dumps(each["body"]))
    assert file in json.dumps(asked["body"]["messages"])
    assert refused.status == "failed" and "input_audio" in refused.error.message, refused


def test_a_conversation_goes_on_and_may_branch(platform: Platform, models: Models, framework: str) -> None:
    with asking(platform, f"shopper-{framework}") as ask:
        first = ask(name("one"))
        second = ask(CALL, previous_response_id=first.id)
        assert roles(models) == ["user", "assistant", "user", "assistant", "tool"]
        ask(name("three"), previous_response_id=second.id)
        assert roles(models) == ["user", "assistant", "user", "assistant", "tool", "assistant", "user"]
        ask(name("other"), previous_response_id=first.id)
        assert roles(models) == ["user", "assistant", "user"]


def test_a_lost_state_is_made_from_the_conversation(platform: Platform, models: Models, framework: str) -> None:
    with asking(platform, f"ours-{framework}") as ask:
        first = ask(name("one"))
        second = ask("call forget {}", previous_response_id=first.id)
        assert "forgotten" in second.output[1].output, second
        third = ask("call forget {}", previous_response_id=second.id)
        ask(name("four"), previous_response_id=third.id)
    assert roles(models) == ["user", "assistant", *["user", "assistant", "tool", "assistant"] * 2, "user"]


def test_a_killed_sandbox_is_not_seen_and_each_attempt_starts_from_what_the_first_found(
    platform: Platform, models: Models, framework: str
) -> None:
    agent, session, door = f"shopper-{framework}", f"session-{uuid.uuid4().hex}", name("door")
    with asking(platform, agent) as ask:
        before = ask(name("before"), extra_body={"agent_session_id": session})
        item = name("item")
        made = ask(
            f'call add_item {{"item": "{item} pause {door}", "amount": 1}}',
            previous_response_id=before.id, background=True, extra_body={"agent_session_id": session},
        )  # fmt: skip
        told = f"noted: 1 {item} pause {door}"
        poll("the model is asked about the result", lambda: models.times(told) == 1)
        here = set(platform.pids(agent, session))
        platform.kill_sandbox(agent, session)
        poll("it has another sandbox", lambda: set(platform.pids(agent, session)) - here)
        models.release(door)
        done = poll("the turn ends", lambda: _ended(ask.api, made.id), within=120)
        assert done.status == "completed", done
        assert [item.type for item in done.output] == ["function_call", "function_call_output", "message"]
        assert models.times(told) == 1, "what the model was asked and answered is not asked again"
        assert len(platform.record(agent, made.id)["attempts"]) >= 2
        assert lines(platform, "list.txt", item) == [f"1 {item} pause {door}"], "the tool ran once"
        after = ask(name("after"), previous_response_id=done.id, extra_body={"agent_session_id": session})
    assert after.status == "completed"
    assert roles(models) == ["user", "assistant", "user", "assistant", "tool", "assistant", "user"]


def test_a_tool_that_a_crash_fell_into_is_told_as_unknown_and_not_run_again(
    platform: Platform, models: Models, framework: str
) -> None:
    mark = name("mark")
    done = killed(platform, f"ours-{framework}", call("hang", mark), lambda: lines(platform, "hung.txt", mark))
    assert done.status == "completed", done
    assert "outcome_unknown" in models.asked[-1]["body"]["messages"][-1]["content"]
    assert lines(platform, "hung.txt", mark) == [mark]


def test_an_agent_that_asks_otherwise_the_second_time_is_told_what_was_done(
    platform: Platform, models: Models, framework: str
) -> None:
    door = name("door")
    asking_again = call("note", f"NUMBER pause {door}")
    done = killed(
        platform, f"ours-{framework}", asking_again, lambda: asked_about(models, f"pause {door}"), release=lambda: models.release(door)
    )  # fmt: skip
    assert done.status == "completed", done
    (noted,) = lines(platform, "notes.txt", door)
    told = models.asked[-1]["body"]["messages"][-1]["content"]
    assert "already_done_in_earlier_attempt" in told and f"noted {noted}" in told, told


def test_a_failed_tool_fails_the_same_way_and_one_that_only_reads_runs_again(
    platform: Platform, models: Models, framework: str
) -> None:
    mark, door = name("mark"), name("door")
    text = f"{call('refuse', mark)}; {call('look', f'{mark} pause {door}')}"
    done = killed(
        platform, f"ours-{framework}", text, lambda: asked_about(models, f"seen {mark} pause {door}"), release=lambda: models.release(door)
    )  # fmt: skip
    assert done.status == "completed", done
    told = [item.output for item in done.output if item.type == "function_call_output"]
    assert len(told) == 4, "the model was asked anew, and named the calls anew"
    assert told[:2] == told[2:] and told[1] == f"seen {mark} pause {door}" and "rror" in told[0]
    assert lines(platform, "refused.txt", mark) == [mark]
    assert len(lines(platform, "looks.txt", mark)) == 2


def test_a_cancelled_turn_ends_and_the_session_goes_on(platform: Platform, models: Models, framework: str) -> None:
    agent, session, door = f"shopper-{framework}", f"session-{uuid.uuid4().hex}", name("door")
    with asking(platform, agent) as ask:
        made = ask(f"pause {door}", background=True, extra_body={"agent_session_id": session})
        poll("the model is asked", lambda: models.times(f"pause {door}") == 1)
        ask.api.responses.cancel(made.id)
        ended = poll("it is cancelled", lambda: _ended(ask.api, made.id))
        models.release(door)
        assert ended.status == "cancelled"
        text = name("next")
        assert ask(text, extra_body={"agent_session_id": session}).output_text.strip().endswith(text)


def test_what_a_framework_raises_is_the_answer(platform: Platform, framework: str) -> None:
    with asking(platform, f"shopper-{framework}") as ask:
        failed = ask(f"fail 400 9 {name('why')}")
        assert failed.status == "failed" and "told to fail" in failed.error.message, failed


def test_a_graph_that_asks_a_person_goes_on_with_the_answer(platform: Platform, models: Models) -> None:
    with asking(platform, "ours-langgraph") as ask:
        asked = ask("call buy {}")
        *_, question = asked.output
        assert (question.type, question.name) == ("function_call", "interrupt")
        assert question.arguments == '{"value": {"really": "buy"}}'
        answer = [{"type": "function_call_output", "call_id": question.call_id, "output": '"surely"'}]
        done = ask(answer, previous_response_id=asked.id)
    assert [item.type for item in done.output] == ["function_call_output", "message"], done
    assert done.output[0].output == "bought: surely" and "bought: surely" in done.output_text
    assert roles(models) == ["user", "assistant", "tool"]


def test_a_tool_that_asks_for_approval_ends_the_turn_with_what_to_do(platform: Platform) -> None:
    with asking(platform, "ours-agent-framework") as ask:
        failed = ask("call buy {}")
    assert failed.status == "failed", failed
    assert "approval of buy" in failed.error.message and "never_require" in failed.error.message


def _ended(api: Any, response: str) -> Any:
    found = api.responses.retrieve(response)
    return found if found.status not in ("in_progress", "queued") else None
