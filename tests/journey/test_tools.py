"""The stock MCP client in an agent, and what becomes of its calls when a part dies (turns.md §6): each tool runs once, and is told once.

The agent's environment has the client from the package index; the tool servers are scripted ones of this process, one of each era.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.commands import Commands
from fakes.http_api import HttpApi
from fakes.http_api import serving as serving_api
from fakes.platform import Platform, poll
from fakes.tools import Tools, serving
from journey import calling
from journey.calling import deployed, ended, lose_sandbox, losing_valkey, name, new_session
from moorage_gateway.tools.pins import digest

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

AGENT = Path(__file__).with_name("tools_agent")
CANARY = "tok-canary-2b7d91e4c0a85f36"
MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {{name: caller}}
spec:
  source: {{path: ., entrypoint: host.py}}
  pool: {{min: 1, max: 3}}
  toolboxes: [desk]
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: desk}}
spec:
  upstreams:
    - {{name: new, mcp: {{url: "{new}"}}, credential: {{secret: desk, key: token}}, deny: [put]}}
    - {{name: old, mcp: {{url: "{old}"}}, readOnly: [get_*]}}
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {{name: office}}
spec:
  upstreams:
    - name: api
      openapi: {{server: "{api}", url: "{document}"}}
      oauth: {{tokenUrl: "{tokens}", clientId: moorage, clientSecret: {{secret: office, key: secret}}}}
      readOnly: [get_*, list_*]
"""


@pytest.fixture(scope="module")
def new() -> Iterator[Tools]:
    """The server of the newer era."""
    with serving("new") as made:
        yield made


@pytest.fixture(scope="module")
def old() -> Iterator[Tools]:
    """The server of the older one."""
    with serving("old") as made:
        yield made


@pytest.fixture(scope="module")
def office() -> Iterator[HttpApi]:
    """An API that is opened by tokens."""
    with serving_api() as made:
        made.tokens = set()
        yield made


@contextlib.contextmanager
def platform_of(new: Tools, old: Tools, office: HttpApi, folder: Path) -> Iterator[Platform]:
    places = {"api": office.url, "document": office.document_url, "tokens": office.token_url}
    (folder / "gateway-keys").mkdir()
    (folder / "gateway-keys" / "dev_toolboxes_desk_new").write_text(CANARY)
    env = {
        "DESK_TOKEN": CANARY,
        "OFFICE_SECRET": CANARY,
        "MOORAGE_ALLOWED_UPSTREAMS": f"{new.named},{old.named}",
        "MOORAGE_CREDENTIALS": str(folder / "gateway-keys"),
    }
    with deployed(AGENT, MANIFEST.format(new=new.url, old=old.url, **places), folder, env=env) as found:
        yield found


@pytest.fixture(scope="module")
def platform(new: Tools, old: Tools, office: HttpApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_of(new, old, office, tmp_path_factory.mktemp("tools")) as found:
        yield found


ask = functools.partial(calling.ask, agent="caller")


def test_a_stock_client_of_either_era_lists_and_calls(platform: Platform, new: Tools, old: Tools) -> None:
    text = name("hello")
    lines = ask(
        platform, "list", f"call new_add {text}", f"old old_add {text}", f"call old_get_one {text}"
    ).output_text.splitlines()
    assert lines[0].strip() == "new_add new_get_one old_add old_get_one old_put"
    assert [line.strip().rpartition(" ")[2] for line in lines[1:]] == [text] * 3
    assert new.times(text) == 1 and old.times(text) == 2
    (seen,) = [each for each in new.ran if each["arguments"].get("text") == text]
    assert seen["headers"]["authorization"] == f"Bearer {CANARY}"


def test_an_agent_sees_no_credential_and_its_files_and_the_platforms_hold_none(platform: Platform) -> None:
    response = ask(platform, "env DESK_TOKEN", "call new_add leak")
    assert "DESK_TOKEN=None" in response.output_text and "[credential]" in response.output_text
    assert CANARY not in response.output_text
    for pid in platform.pids("caller", response.agent_session_id):
        assert CANARY.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    assert platform.holding(CANARY.encode()) == []
    assert CANARY not in platform.log.read_text()


def test_who_runs_a_platform_lists_and_tries_tools(platform: Platform, new: Tools, tmp_path: Path) -> None:
    commands, text = Commands(platform.url, platform.api_key, tmp_path / "config"), name("cli")
    listed = commands.run("toolboxes", "list").out
    assert new.url in listed and "desk" in listed and CANARY not in listed
    found = json.loads(commands.run("toolboxes", "tools", "desk", "--json").out)
    tools = {(each["upstream"], each["tool"]): each for each in found["data"]}
    assert tools["new", "add"]["name"] == "new_add" and tools["new", "add"]["effect"] == "once"
    assert tools["new", "put"]["name"] is None and tools["old", "get_one"]["effect"] == "again"
    assert tools["new", "add"]["digest"] == digest(new.tools[0]) and found["unavailable"] == {}
    assert tools["new", "put"]["digest"] in commands.run("toolboxes", "tools", "desk").out
    for _ in range(2):
        said = commands.run("toolboxes", "call", "desk", "new_add", json.dumps({"text": text}))
        assert said.out.strip().endswith(text)
    assert new.times(text) == 2, "a call by hand is no call of a turn"
    cut = commands.run("toolboxes", "call", "desk", "new_add", '{"text": "cut"}', fails=True)
    assert cut.code == 1 and cut.out.startswith("outcome_unknown")
    hidden = commands.run("toolboxes", "call", "desk", "new_put", fails=True)
    assert "has no tool of that name" in hidden.err
    assert "not JSON" in commands.run("toolboxes", "call", "desk", "new_add", "{", fails=True).err
    assert "no toolbox of that name" in commands.run("toolboxes", "tools", "other", fails=True).err
    audited = commands.run("audit", "--since", "1h").out
    assert "toolbox.call" in audited and "toolbox/desk/new_add" in audited and text not in audited


def test_operations_of_an_api_are_listed_and_tried_as_tools(
    platform: Platform, office: HttpApi, tmp_path: Path
) -> None:
    commands, text = Commands(platform.url, platform.api_key, tmp_path / "config"), name("api")
    listed = commands.run("toolboxes", "list").out
    assert office.url in listed and "openapi" in listed
    shown = commands.run("toolboxes", "tools", "office")
    assert "create_ticket" in shown.out and "no tool is api: POST /upload: it needs a body of multipart" in shown.err
    said = commands.run("toolboxes", "call", "office", "create_ticket", json.dumps({"body": {"title": text}}))
    assert json.loads(said.out)["path"] == "/v1/tickets"
    (made,) = [each for each in office.ran if each["body"].get("title") == text]
    assert made["method"] == "POST" and made["headers"]["authorization"].startswith("Bearer access-token-canary-")
    wrong = commands.run("toolboxes", "call", "office", "get_ticket", "{}", fails=True)
    assert wrong.code == 1 and "get_ticket needs 'id'" in wrong.out
    assert CANARY not in platform.log.read_text() and "access-token-canary" not in platform.log.read_text()
    assert platform.holding(b"access-token-canary") == []


def test_a_killed_sandbox_runs_no_tool_twice(platform: Platform, new: Tools, old: Tools) -> None:
    session, text, door = new_session(), name("step"), name("door")
    steps = [
        "list",
        f"call new_add {text}-1",
        f"old old_add {text}-2",
        f"both new_add {text}-3 | {text}-4",
        f"call new_add {text}-1",
        f"call new_add pause {door}",
        f"call old_put {text}-5",
    ]
    with platform.client("caller", timeout=120) as api:
        made = api.responses.create(
            model="caller", input="\n".join(steps), background=True, extra_body={"agent_session_id": session}
        )
        poll("the slow call is in flight", lambda: new.times(f"pause {door}") == 1)
        for _ in range(2):
            lose_sandbox(platform, "caller", session)
        new.release(door)
        done = ended(api, made.id)
    assert done.status == "completed", done
    assert [new.times(f"{text}-{n}") for n in (1, 3, 4)] == [2, 1, 1] and old.times(f"{text}-2") == 1
    assert new.times(f"pause {door}") == 1, "finished and recorded though its sandbox died"
    assert old.times(f"{text}-5") == 1
    assert len(done.output_text.strip().splitlines()) == len(steps) and "[" not in done.output_text
    assert len(platform.record("caller", made.id)["attempts"]) >= 2


def test_a_gateway_that_dies_leaves_an_unknown_outcome_and_the_agent_goes_on(platform: Platform, new: Tools) -> None:
    other = platform.start_gateway()
    text, door = name("gw"), name("door")
    steps = f"call new_add {text}\ncall new_add pause {door}\ncall new_add {text}-2"
    with platform.client("caller", url=other.url, timeout=120) as api:
        made = api.responses.create(model="caller", input=steps, background=True)
    poll("the second call is in flight", lambda: new.times(f"pause {door}") == 1)
    other.kill()
    new.release(door)
    with platform.client("caller", timeout=120) as api:
        done = ended(api, made.id)
    assert done.status == "completed", done
    assert [new.times(each) for each in (text, f"pause {door}", f"{text}-2")] == [1, 1, 1]
    lines = done.output_text.strip().splitlines()
    assert len(lines) == 3 and (lines[1].startswith("[outcome_unknown") or lines[1].endswith(f"pause {door}")), lines


def test_a_call_goes_on_when_redis_is_killed_and_comes_back(platform: Platform, new: Tools) -> None:
    text, door = name("redis"), name("door")
    with platform.client("caller", timeout=120) as api:
        steps = f"call new_add {text}\ncall new_add pause {door}\ncall new_add {text}-2"
        made = api.responses.create(model="caller", input=steps, background=True)
        poll("the second call is in flight", lambda: new.times(f"pause {door}") == 1)
        with losing_valkey(platform):
            new.release(door)
        done = ended(api, made.id)
    assert done.status == "completed", done
    assert [new.times(each) for each in (text, f"pause {door}", f"{text}-2")] == [1, 1, 1]
