"""Stock clients of models in an agent, and what becomes of their calls when a part dies (turns.md §6): asked once, told once.

The agent's environment has the clients from the package index; the models are a scripted server of this process.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.models import INPUT, Models, serving
from fakes.otlp import Collector, collecting
from fakes.platform import Platform, poll
from journey import calling
from journey.calling import deployed, ended, lose_sandbox, losing_valkey, name, new_session

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

AGENT = Path(__file__).with_name("models_agent")
CANARY = "sk-canary-7f3e9a5b1c2d4e6f"
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: asker}}
spec:
  source: {{path: ., entrypoint: host.py}}
  pool: {{min: 1, max: 3}}
  models: [chat, messages, azure]
---
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: chat}}
spec: {{protocol: compatible, baseUrl: "{url}/v1", credential: {{secret: chat}}}}
---
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: messages}}
spec: {{protocol: anthropic, baseUrl: "{url}", credential: {{secret: messages, key: key}}}}
---
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {{name: azure}}
spec: {{protocol: azure, baseUrl: "{url}"}}
"""


@pytest.fixture(scope="module")
def models() -> Iterator[Models]:
    """The scripted server."""
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def spans() -> Iterator[Collector]:
    """Where this platform's spans go."""
    with collecting() as found:
        yield found


@contextlib.contextmanager
def platform_of(models: Models, folder: Path, *options: str) -> Iterator[Platform]:
    keys = folder / "keys" / "messages"
    keys.mkdir(parents=True)
    (keys / "key").write_text(f"{CANARY}-of-messages\n")
    env = {
        "CHAT_API_KEY": CANARY,
        "MOORAGE_ALLOWED_UPSTREAMS": models.named,
        "MOORAGE_CREDENTIALS": str(folder / "gateway-keys"),
    }
    (folder / "gateway-keys").mkdir()
    (folder / "gateway-keys" / "dev_models_chat").write_text(CANARY)
    options = (*options, "--credentials", str(folder / "keys"))
    with deployed(AGENT, MANIFEST.format(url=models.url), folder, *options, env=env) as found:
        yield found


@pytest.fixture(scope="module")
def platform(models: Models, spans: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_of(models, tmp_path_factory.mktemp("models"), "--otlp", spans.url) as found:
        yield found


ask = functools.partial(calling.ask, agent="asker")


def test_stock_clients_speak_to_their_providers_unchanged(platform: Platform, models: Models) -> None:
    text = name("hello")
    steps = ("chat", "stream", "responses", "events", "messages", "tales", "azure", "module")
    response = ask(platform, *(f"{step} {text}" for step in steps))
    lines = response.output_text.strip().splitlines()
    assert len(lines) == 8 and all(line.strip().endswith(f"to {text}") for line in lines), response
    asked = [each for each in models.asked if each["text"] == text]
    assert [each["path"].partition("?")[0] for each in asked] == [
        "/v1/chat/completions", "/v1/chat/completions", "/v1/responses", "/v1/responses", "/v1/messages", "/v1/messages",
        "/openai/deployments/m-1/chat/completions", "/v1/chat/completions",
    ]  # fmt: skip
    keys = [each["headers"].get("authorization") or each["headers"].get("x-api-key") for each in asked]
    assert keys == [f"Bearer {CANARY}"] * 4 + [f"{CANARY}-of-messages"] * 2 + [None, f"Bearer {CANARY}"]


def test_an_agent_sees_no_key_and_its_files_and_the_platforms_hold_none(platform: Platform) -> None:
    response = ask(platform, "env OPENAI_API_KEY", "env CHAT_API_KEY", "env ANTHROPIC_API_KEY", f"chat {name('k')}")
    assert "OPENAI_API_KEY=moorage" in response.output_text and "CHAT_API_KEY=None" in response.output_text
    assert CANARY not in response.output_text
    session = response.agent_session_id
    for pid in platform.pids("asker", session):
        assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert platform.holding(CANARY.encode()) == []
    assert CANARY not in platform.log.read_text()


def test_a_killed_sandbox_asks_no_completed_question_twice(platform: Platform, models: Models) -> None:
    session, text, door = new_session(), name("step"), name("door")
    steps = [
        f"chat {text}-1",
        f"stream {text}-2",
        f"messages {text}-3",
        f"chat {text}-1",
        f"chat pause {door}",
        f"chat {text}-4",
    ]
    with platform.client("asker", timeout=120) as api:
        made = api.responses.create(
            model="asker", input="\n".join(steps), background=True, extra_body={"agent_session_id": session}
        )
        poll("the fifth call is in flight", lambda: models.times(f"pause {door}") == 1)
        for _ in range(2):
            lose_sandbox(platform, "asker", session)
        models.release(door)
        done = ended(api, made.id)
    assert done.status == "completed", done
    assert [models.times(f"{text}-{n}") for n in (1, 2, 3, 4)] == [2, 1, 1, 1]
    assert models.times(f"pause {door}") == 1, "finished and recorded though its sandbox died"
    assert len(done.output_text.strip().splitlines()) == 6
    assert len(platform.record("asker", made.id)["attempts"]) >= 2


def test_calls_of_a_killed_turn_are_spans_of_one_trace_below_their_attempts_and_add_up(
    platform: Platform, models: Models, spans: Collector
) -> None:
    session, text, door = new_session(), name("span"), name("door")
    steps = f"chat {text}-1\nstream {text}-2\nmessages {text}-3\nchat pause {door}\nchat {text}-4"
    with platform.client("asker", timeout=120) as api:
        made = api.responses.create(
            model="asker", input=steps, background=True, extra_body={"agent_session_id": session}
        )
        poll("the fourth call is in flight", lambda: models.times(f"pause {door}") == 1)
        platform.kill_sandbox("asker", session)
        models.release(door)
        done = ended(api, made.id)
    record = platform.record("asker", made.id)
    assert done.status == "completed" and len(record["attempts"]) == 2
    found = poll("all spans came", lambda: s if len(s := spans.trace(record["trace_id"])) >= 12 else None)
    attempts = [span.span_id for span in found if span.name == "invoke_agent asker"]
    chats = [span for span in found if span.name.startswith("chat ")]
    first, second = ([span for span in chats if span.parent_id == each] for each in attempts)
    assert len(attempts) == 2 and (len(first), len(second)) == (4, 5)
    assert [span.attributes["moorage.replayed"] for span in first] == [False] * 4
    assert [span.attributes["moorage.replayed"] for span in second][:3] == [True] * 3, (
        "the fourth may have been waited for"
    )
    assert second[-1].attributes["moorage.replayed"] is False
    assert {span.attributes["moorage.turn"] for span in chats} == {made.id}
    assert record["calls"]["calls"] == 5 and record["calls"]["input_tokens"] >= 4 * INPUT
    assert not [span for span in found for word in (text, CANARY) if word.encode() in span.raw]


def test_a_stream_that_was_half_told_goes_on_where_it_stopped(platform: Platform, models: Models) -> None:
    session, half = new_session(), name("half")
    with platform.client("asker", timeout=120) as api:
        stream = api.responses.create(
            model="asker", input=f"stream hold {half} one two three four", stream=True,
            extra_body={"agent_session_id": session},
        )  # fmt: skip
        told = []
        for event in stream:
            if event.type == "response.output_text.delta":
                told.append(event.delta)
                if len(told) == 1:
                    platform.kill_sandbox("asker", session)
                    models.release(half)
    assert "".join(told).strip().endswith(f"to hold {half} one two three four"), told
    assert models.times(f"hold {half} one two three four") == 1
    assert "".join(told).count("three") == 1


def test_parallel_calls_are_each_asked_once(platform: Platform, models: Models) -> None:
    session, text, door = new_session(), name("par"), name("door")
    with platform.client("asker", timeout=120) as api:
        made = api.responses.create(
            model="asker", input=f"both {text}-a | {text}-b\nboth {text}-c | pause {door}", background=True,
            extra_body={"agent_session_id": session},
        )  # fmt: skip
        poll("the last is in flight", lambda: models.times(f"pause {door}") == 1 and models.times(f"{text}-c") == 1)
        platform.kill_sandbox("asker", session)
        models.release(door)
        done = ended(api, made.id)
    assert done.status == "completed"
    assert [models.times(each) for each in (f"{text}-a", f"{text}-b", f"{text}-c", f"pause {door}")] == [1, 1, 1, 1]


def test_a_call_goes_on_when_redis_is_killed_and_comes_back(platform: Platform, models: Models) -> None:
    text, door = name("redis"), name("door")
    with platform.client("asker", timeout=120) as api:
        made = api.responses.create(
            model="asker", input=f"chat {text}\nchat pause {door}\nchat {text}-2", background=True
        )
        poll("the second call is in flight", lambda: models.times(f"pause {door}") == 1)
        with losing_valkey(platform):
            models.release(door)
        done = ended(api, made.id)
    assert done.status == "completed", done
    assert [models.times(each) for each in (text, f"pause {door}", f"{text}-2")] == [1, 1, 1]


def test_a_gateway_that_dies_costs_at_most_the_call_it_carried(platform: Platform, models: Models) -> None:
    other = platform.start_gateway()
    text, door = name("gw"), name("door")
    with platform.client("asker", url=other.url, timeout=120) as api:
        made = api.responses.create(
            model="asker", input=f"chat {text}\nchat pause {door}\nchat {text}-2", background=True
        )
    poll("the second call is in flight", lambda: models.times(f"pause {door}") == 1)
    other.kill()
    models.release(door)
    with platform.client("asker", timeout=120) as api:
        done = ended(api, made.id)
    assert done.status == "completed", done
    assert models.times(text) == 1 and models.times(f"{text}-2") == 1
    assert models.times(f"pause {door}") in (1, 2)
    assert len(done.output_text.strip().splitlines()) == 3


def test_a_model_that_an_agent_may_not_use_is_refused_with_what_to_do(platform: Platform) -> None:
    with platform.client("asker", timeout=60) as api:
        failed = api.responses.create(model="asker", input="chat redirect")
    assert failed.status == "failed" and "redirects" in str(failed.error)


def test_plain_processes_reach_models_too(models: Models, tmp_path: Path) -> None:
    with platform_of(models, tmp_path, "--plain") as platform:
        session, text, door = new_session(), name("plain"), name("door")
        with platform.client("asker", timeout=120) as api:
            made = api.responses.create(
                model="asker", input=f"chat {text}\nmessages {text}-2\nchat pause {door}", background=True,
                extra_body={"agent_session_id": session},
            )  # fmt: skip
            poll("the third call is in flight", lambda: models.times(f"pause {door}") == 1)
            platform.kill_sandbox("asker", session)
            models.release(door)
            done = ended(api, made.id)
        assert done.status == "completed", done
        assert [models.times(each) for each in (text, f"{text}-2", f"pause {door}")] == [1, 1, 1]
