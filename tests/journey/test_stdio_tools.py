"""Programs of toolboxes (`stdio`) with `moorage dev`: a real server of the `mcp` package, and a scripted one that is bad. Agents use them
with the stock client and with the SDK's toolbox; what becomes of calls when a program dies, hangs, or says too much.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import stdio_program
from fakes.commands import Commands
from fakes.dev_door import ROOT
from fakes.platform import Platform, poll, started

pytestmark = [pytest.mark.journey, pytest.mark.index, pytest.mark.timeout(300)]

OURS = Path(__file__).with_name("stdio_agent")
CANARY = "tok-canary-7c1f0a93be52d846"
AGENT = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: caller}
spec:
  source: {path: ., entrypoint: host.py, requirements: requirements.txt}
  pool: {min: 1, max: 3}
  toolboxes: [notes, bad]
"""
TOOLBOXES = """
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {name: notes}
spec:
  upstreams:
    - name: real
      stdio:
        command: python
        args: [server.py]
        requirements: requirements.txt
        env:
          - {name: MODE, value: earnest}
          - {name: API_TOKEN, secret: {secret: notes, key: token}}
      readOnly: [count]
---
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {name: bad}
spec:
  breaker: {failures: 50}
  upstreams:
    - name: scripted
      stdio:
        command: python
        args: [program.py]
        requirements: requirements.txt
        workingDir: inner
        env: [{name: NOTES, value: ../../home/agent/notes}, {name: LD_BIND_NOW, value: loads-code}]
      timeout: 5s
"""


@contextlib.contextmanager
def platform_of(folder: Path, *options: str) -> Iterator[Platform]:
    caller, desk = folder / "caller", folder / "desk"
    caller.mkdir()
    shutil.copy(OURS / "host.py", caller)
    shutil.copy(ROOT / "frameworks" / "openai-agents" / "requirements.txt", caller)
    (caller / "agent.yaml").write_text(AGENT)
    (desk / "inner").mkdir(parents=True)
    shutil.copy(OURS / "server.py", desk)
    shutil.copy(stdio_program.__file__, desk / "inner" / "program.py")
    (desk / "requirements.txt").write_text("mcp>=2.3\n")
    (desk / "toolboxes.yaml").write_text(TOOLBOXES)
    with started(folder, *options, env={"NOTES_TOKEN": CANARY}, within=240) as found:
        poll("the agent serves", lambda: any(a["name"] == "caller" for a in found.agents), within=240)
        yield found


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform_of(tmp_path_factory.mktemp("stdio")) as found:
        commands = Commands(found.url, found.api_key, found.state / "config")
        for box in ("notes", "bad"):  # its environment is made first
            poll(f"{box} is there", lambda box=box: not _unavailable(commands, box), within=240)  # type: ignore[misc]
        yield found


def _unavailable(commands: Commands, box: str) -> Any:
    said = commands.run("toolboxes", "tools", box, "--json", fails=None)
    return said.code or json.loads(said.out)["unavailable"]


def name(prefix: str) -> str:
    """A text that no other test writes."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def answer(platform: Platform, *steps: str, **options: Any) -> list[str]:
    """What the agent answers to these steps in a new session."""
    with platform.client("caller", timeout=120) as api:
        found = api.responses.create(model="caller", input="\n".join(steps), **options)
    return list(found.output_text.rstrip("\n").split("\n"))


def home(platform: Platform, place: str) -> Path:
    """What a program may write."""
    return platform.state / "programs" / place


def noted(platform: Platform, file: str, text: str) -> int:
    path = home(platform, file)
    return path.read_text().splitlines().count(text) if path.exists() else 0


def programs(platform: Platform, script: str) -> list[int]:
    """Processes of this platform that run the script."""
    found = []
    for pid in _descendants(platform.process.pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"python") and words[1:2] == [script.encode()]:
                found.append(pid)
    return found


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, level = [], [root]
    while level:
        level = [child for pid in level for child in children.get(pid, ())]
        found += level
    return found


def test_a_real_server_is_used_by_the_stock_client_and_by_the_sdks_toolbox(platform: Platform) -> None:
    one, two = name("stock"), name("sdk")
    told = answer(platform, "list notes", f"call notes note {one}", f"sdk notes note {two}", f"call notes note {one}")
    assert told == [
        "note count tell", f"noted {one} in earnest", f"noted {two} in earnest", f"noted {one} in earnest",
    ]  # fmt: skip
    assert noted(platform, "notes/real/calls", one) == 2 and noted(platform, "notes/real/calls", two) == 1
    assert len(programs(platform, "server.py")) == 1, "one process for all sessions"


def test_a_sandbox_that_dies_in_a_call_has_it_once(platform: Platform) -> None:
    session, text, door = f"session-{uuid.uuid4().hex}", name("kill"), name("door")
    steps = "\n".join([f"call notes note {text}", f"call notes note wait {door}", f"call notes note {text}-2"])
    with platform.client("caller", timeout=120) as api:
        made = api.responses.create(
            model="caller", input=steps, background=True, extra_body={"agent_session_id": session}
        )
        poll("the slow call is in flight", lambda: noted(platform, "notes/real/calls", f"wait {door}"))
        before = set(platform.pids("caller", session))
        platform.kill_sandbox("caller", session)
        poll("it has another", lambda: set(platform.pids("caller", session)) - before)
        (home(platform, "notes/real") / door).touch()
        done = poll("the turn ends", lambda: _ended(api, made.id), within=90)
    assert done.status == "completed", done
    assert [noted(platform, "notes/real/calls", each) for each in (text, f"wait {door}", f"{text}-2")] == [1, 1, 1]
    assert "[" not in done.output_text and len(done.output_text.strip().splitlines()) == 3


def test_a_program_that_is_killed_in_a_call_leaves_an_unknown_outcome_and_is_begun_again(platform: Platform) -> None:
    door, text = name("door"), name("after")
    with platform.client("caller", timeout=120) as api:
        steps = f"call notes note wait {door}\ncall notes note {text}"
        made = api.responses.create(model="caller", input=steps, background=True)
        poll("the call is in flight", lambda: noted(platform, "notes/real/calls", f"wait {door}"))
        (pid,) = programs(platform, "server.py")
        os.kill(pid, signal.SIGKILL)
        done = poll("the turn ends", lambda: _ended(api, made.id), within=90)
    first, second = done.output_text.strip().splitlines()
    assert first.startswith("[outcome_unknown") and second == f"noted {text} in earnest"
    assert noted(platform, "notes/real/calls", f"wait {door}") == 1, "never sent twice"
    assert programs(platform, "server.py") != [pid]
    assert re.search(r"notes/real \| its process ended with .*; it is begun again", platform.log.read_text())


def test_what_a_bad_program_does_is_bounded_and_named(platform: Platform) -> None:
    told = answer(
        platform, "call bad do garbage", "call bad do exit 4", "call bad do big 10000000", "call bad do deep 1",
        "call bad do refuse", "call bad do fine",
    )  # fmt: skip
    assert told[0] == "after garbage"
    assert told[1].startswith("[outcome_unknown")
    assert told[2].startswith("['do' was called, and its result is dropped: its answer is longer than 1048576 bytes")
    assert told[3].startswith("[")
    assert told[4] == "['do' was refused by its server: not on a Sunday]"
    assert told[5] == "fine"
    log = platform.log.read_text()
    assert "bad/scripted | printed what is no JSON-RPC: b'debug: here I am'" in log
    assert "bad/scripted | its process ended with exit code 4; it is begun again in 0.5 s" in log


@pytest.mark.long
def test_a_program_that_hangs_is_left_at_the_tools_time(platform: Platform) -> None:
    (told,) = answer(platform, "call bad do hang")
    assert told.startswith("[outcome_unknown"), told
    assert noted(platform, "bad/scripted/notes", "hang") == 1
    poll("it is ended", lambda: "bad/scripted | says nothing any more, and is ended" in platform.log.read_text())
    poll("it is begun again", lambda: answer(platform, "call bad do fine") == ["fine"])


def test_a_program_sees_its_folder_and_nothing_of_the_platform(platform: Platform) -> None:
    where, said, net = answer(platform, "call bad do where", "call bad do environment", "call bad do network")
    assert where == "/app/inner ['program.py']"
    env = json.loads(said)
    assert env["HOME"] == "/home/agent" and "NOTES_TOKEN" not in env and CANARY not in said
    assert {each for each in env if each.startswith("MOORAGE_")} == {"MOORAGE_SANDBOX"}
    assert net.startswith("no: "), "its namespace has no network"
    assert env["LD_BIND_NOW"] == "loads-code", "what loads code counts inside of its namespaces"
    with_it = [each for each in _descendants(platform.process.pid) if _has(each, b"LD_BIND_NOW=loads-code")]
    assert with_it == programs(platform, "program.py"), "and in nothing that begins it"


def _has(pid: int, variable: bytes) -> bool:
    with contextlib.suppress(OSError):
        return variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def test_a_secret_is_in_the_program_and_nowhere_else(platform: Platform, tmp_path: Path) -> None:
    session = f"session-{uuid.uuid4().hex}"
    told, env, _ = answer(
        platform, "call notes tell x", "env", "files", extra_body={"agent_session_id": session}
    )  # fmt: skip
    assert told == "the token is [credential]" and CANARY not in env
    poll("its line is here", lambda: "notes/real | the token is [credential]" in platform.log.read_text())
    (pid,) = programs(platform, "server.py")
    assert CANARY.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    for each in platform.pids("caller", session):
        assert CANARY.encode() not in Path(f"/proc/{each}/environ").read_bytes()
    for each in _descendants(platform.process.pid):
        with contextlib.suppress(OSError):
            assert CANARY.encode() not in Path(f"/proc/{each}/cmdline").read_bytes()
    assert platform.holding(CANARY.encode()) == [] and CANARY not in platform.log.read_text()
    commands = Commands(platform.url, platform.api_key, tmp_path / "config")
    listed = commands.run("toolboxes", "list").out
    assert "stdio" in listed and "python" in listed and CANARY not in listed


def test_another_gateway_uses_the_same_program(platform: Platform) -> None:
    other, text = platform.start_gateway(), name("other")
    with platform.client("caller", url=other.url, timeout=120) as api:
        found = api.responses.create(model="caller", input=f"call notes note {text}")
    assert found.output_text.strip() == f"noted {text} in earnest"
    assert len(programs(platform, "server.py")) == 1
    assert other.end() == 0


def _ended(api: Any, response: str) -> Any:
    found = api.responses.retrieve(response)
    return found if found.status not in ("in_progress", "queued") else None


@pytest.mark.parametrize("mode", [pytest.param("isolated", marks=pytest.mark.long), "plain"])
def test_nothing_of_a_program_outlives_a_platform_that_is_killed(tmp_path: Path, mode: str) -> None:
    folder, options = tmp_path / "desk", ["--plain"] if mode == "plain" else []
    folder.mkdir()
    shutil.copy(stdio_program.__file__, folder / "program.py")
    (folder / "requirements.txt").write_text("# none\n")
    notes = tmp_path / "notes" if mode == "plain" else Path("/home/agent/notes")
    bad = TOOLBOXES.partition("---")[2].replace("workingDir: inner", "").replace("../../home/agent/notes", str(notes))
    (folder / "toolboxes.yaml").write_text(bad.strip())
    state = tmp_path / "state"
    with started(folder, *options, state=state, within=240) as first:
        child = _called(first, "child")
        family = {each: _started(each) for each in _descendants(first.process.pid)}
        assert programs(first, "program.py") and (mode == "isolated" or int(child) in family)
        first.process.kill()
        first.process.wait(timeout=10)
        poll("all of it is dead", lambda: not any(_started(each) == at for each, at in family.items()))
    with started(folder, *options, state=state, within=240) as again:
        assert _called(again, "fine") == "fine"


def _called(platform: Platform, text: str) -> str:
    """A call by hand, as soon as the program is there."""
    commands = Commands(platform.url, platform.api_key, platform.state / "config")
    poll("the program is there", lambda: not _unavailable(commands, "bad"), within=240)
    return commands.run("toolboxes", "call", "bad", "do", json.dumps({"text": text})).out.strip()


def _started(pid: int) -> str:
    """When a live process began, in the kernel's words; empty for one that is dead."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if found[0] == "Z" else found[19]
