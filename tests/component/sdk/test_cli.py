"""The command line against a scripted platform: what it sends, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.control_plane import RESPONSE, SESSION, ControlPlane, answer_events
from moorage.cli.main import main

pytestmark = pytest.mark.component

MANIFEST = """
apiVersion: moorage.dev/v1alpha1
kind: HostedAgent
metadata: {name: hello}
spec:
  source: {path: ., entrypoint: host.py}
"""


@dataclass
class Ran:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    made = ControlPlane()
    made.agents["hello"] = {}
    made.start()
    yield made
    made.stop()


@pytest.fixture
def run(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Run:
    monkeypatch.setenv("MOORAGE_URL", plane.url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MOORAGE_API_KEY", raising=False)

    def call(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["moorage", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        seen = capsys.readouterr()
        return Ran(code, seen.out, seen.err)

    return call


def folder(tmp_path: Path, manifest: str = MANIFEST, size: int = 0) -> str:
    place = tmp_path / "agent"
    place.mkdir()
    (place / "agent.yaml").write_text(manifest)
    (place / "host.py").write_text("print('hi')\n")
    if size:
        (place / "data.bin").write_bytes(os.urandom(size))
    return str(place)


def test_up_packs_uploads_applies_waits_and_prints_how_to_call_it(
    run: Run, plane: ControlPlane, tmp_path: Path
) -> None:
    plane.agents.clear()
    plane.conditions = [
        {
            "type": "PoolReady",
            "status": "Unknown",
            "reason": "Filling",
            "message": "The first sandbox is being started.",
        }
    ]
    done = run("up", folder(tmp_path))
    assert done.code == 0, done.err
    assert f"hello is ready at {plane.url}/v1/agents/hello" in done.out
    assert f'OpenAI(base_url="{plane.url}/v1/agents/hello"' in done.out
    assert "The first sandbox is being started." in done.err
    source = plane.agents["hello"]["spec"]["source"]
    assert "path" not in source and source["entrypoint"] == "host.py"
    digest = source["bundle"].removeprefix("sha256:")
    assert len(plane.uploads[digest]) == plane.wanted[digest][1]


def test_up_goes_on_with_a_broken_upload_and_sends_nothing_twice(run: Run, plane: ControlPlane, tmp_path: Path) -> None:
    plane.cut_upload_after = 300_000
    place = folder(tmp_path, size=2_500_000)
    done = run("up", place, "--json")
    assert done.code == 0, done.err
    assert done.json()["agents"][0]["responses_url"] == f"{plane.url}/v1/agents/hello/responses"
    offsets = [int(seen.headers["upload-offset"]) for seen in plane.seen if seen.method == "PATCH"]
    assert offsets[:2] == [0, 300_000] and offsets == sorted(offsets)
    sent = len(offsets)
    assert run("up", place).code == 0
    assert len([seen for seen in plane.seen if seen.method == "PATCH"]) == sent, "the same folder is not uploaded again"


def test_up_names_the_wrong_field_of_a_manifest_and_sends_nothing(
    run: Run, plane: ControlPlane, tmp_path: Path
) -> None:
    done = run("up", folder(tmp_path, MANIFEST.replace("entrypoint", "entrypiont")))
    assert done.code == 1 and "spec.source.entrypiont" in done.err and "did you mean entrypoint?" in done.err
    assert "Traceback" not in done.err and plane.seen == []


def test_up_without_a_manifest_says_what_is_missing(run: Run, tmp_path: Path) -> None:
    done = run("up", str(tmp_path))
    assert done.code == 1 and "agent.yaml" in done.err


def test_up_of_an_agent_that_never_gets_ready_says_why_and_where_to_look(
    run: Run, plane: ControlPlane, tmp_path: Path
) -> None:
    plane.ready_after = 10**6
    plane.conditions = [{"type": "Ready", "status": "False", "reason": "Filling", "message": "It exits with status 3."}]
    done = run("up", folder(tmp_path), "--timeout", "1")
    assert (
        done.code == 1
        and "hello is not ready: It exits with status 3." in done.err
        and "moorage logs hello" in done.err
    )


def test_chat_streams_one_answer(run: Run, plane: ControlPlane) -> None:
    done = run("chat", "hello", "Hi", "--session", SESSION)
    assert (done.code, done.out) == (0, "Hello\n")
    sent = plane.calls("POST", "/v1/agents/hello/responses")[0].body
    assert sent == {"model": "hello", "input": "Hi", "stream": True, "agent_session_id": SESSION}


def test_chat_survives_a_broken_connection_without_gap_or_repeat(run: Run, plane: ControlPlane) -> None:
    plane.script = answer_events("one ", "two ", "three")
    plane.cut_stream_after = 3
    done = run("chat", "hello", "Hi")
    assert (done.code, done.out) == (0, "one two three\n")
    again = plane.calls("GET", f"/v1/agents/hello/responses/{RESPONSE}")
    assert [seen.query for seen in again] == [{"stream": "true", "starting_after": "2"}]


def test_a_stream_cut_before_its_first_event_joins_the_same_turn(run: Run, plane: ControlPlane) -> None:
    plane.cut_stream_after = 0
    assert run("chat", "hello", "Hi").out == "Hello\n"
    first, second = plane.calls("POST", "/v1/agents/hello/responses")
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


def test_chat_keeps_the_thread_over_lines(run: Run, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = iter(["one\n", "\n", "two\n", ""])

    class Lines:
        def isatty(self) -> bool:
            return False

        def readline(self) -> str:
            return next(lines)

    monkeypatch.setattr(sys, "stdin", Lines())
    assert run("chat", "hello").out == "Hello\nHello\n"
    sent = [seen.body for seen in plane.calls("POST", "/v1/agents/hello/responses")]
    assert [body.get("previous_response_id") for body in sent] == [None, RESPONSE]
    assert [body["input"] for body in sent] == ["one", "two"]


def test_a_failed_answer_is_exit_code_1_with_its_reason(run: Run, plane: ControlPlane) -> None:
    plane.script = answer_events("half", status="failed")
    done = run("chat", "hello", "Hi")
    assert done.code == 1 and done.out == "half\n" and "failed: it broke" in done.err


def test_chat_as_json_prints_every_event_as_a_line(run: Run, plane: ControlPlane) -> None:
    done = run("chat", "hello", "Hi", "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == plane.script


def hears_ctrl_c() -> None:
    """In a child: the signal does its work there, though whoever started the tests in the background had it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_cancels_the_turn(plane: ControlPlane, tmp_path: Path) -> None:
    plane.hold_stream_after = 2
    with subprocess.Popen(
        [sys.executable, "-c", "from moorage.cli.main import main; main()", "chat", "hello", "Hi", "--url", plane.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
        preexec_fn=hears_ctrl_c,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(3) == b"Hel"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 1
        told = process.stderr.read()
    assert b"(cancelled)" in told and b"Traceback" not in told
    assert len(plane.calls("POST", f"/v1/agents/hello/responses/{RESPONSE}/cancel")) == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["agents"], "hello"),
        (["agents", "list"], "hello"),
        (["agents", "show", "hello"], "rev1"),
        (["agents", "delete", "hello", "--yes"], "deleted"),
        (["sessions"], SESSION),
        (["sessions", "list", "--agent", "hello"], SESSION),
        (["sessions", "show", SESSION], "idle"),
        (["sessions", "stop", SESSION], "idle"),
        (["sessions", "delete", SESSION, "-y"], "deleted"),
        (["responses", "show", RESPONSE], "sandbox_lost"),
        (["responses", "follow", RESPONSE], "Hello"),
        (["responses", "cancel", RESPONSE], "cancelled"),
        (["responses", "feedback", RESPONSE, "positive", "-m", "good"], "kept"),
        (["logs", "hello"], "up [31mnow"),
        (["logs", SESSION], "[session-0001]"),
        (["keys", "create", "ci", "--scope", "invoke"], "mk_k1_secret"),
        (["keys", "list"], "mine"),
        (["keys", "revoke", "k1"], "revoked"),
        (["audit", "--since", "1h"], "agent.deploy"),
        (["audit", "--verify"], "intact"),
        (["login", "--key", "k"], "hello"),
    ],
)
def test_every_command_answers_for_people_and_as_json(
    run: Run, plane: ControlPlane, arguments: list[str], part: str
) -> None:
    for_people = run(*arguments)
    assert for_people.code == 0, for_people.err
    assert part in for_people.out or arguments[0] == "login"
    plane.agents["hello"] = {}
    as_json = run(*arguments, "--json")
    assert as_json.code == 0, as_json.err
    assert [json.loads(line) for line in as_json.out.splitlines()]


def test_a_broken_audit_chain_is_exit_code_1(run: Run, plane: ControlPlane) -> None:
    plane.chains_ok = False
    done = run("audit", "--verify")
    assert done.code == 1 and "BROKEN at record 1: the record was altered" in done.out


def test_a_refusal_is_one_sentence_and_the_next_step(run: Run, plane: ControlPlane) -> None:
    plane.key = "right"
    done = run("agents", "--key", "wrong")
    assert (done.code, done.out) == (1, "")
    assert (
        done.err
        == "Error: The API key is not valid.\n  Give a key with --key or MOORAGE_API_KEY; `moorage login` keeps one.\n"
    )
    assert run("agents", "--key", "right").code == 0


def test_login_keeps_url_and_key_for_its_owner_only(
    run: Run, plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plane.key = "right"
    assert run("login", "--key", "wrong").code == 1
    kept = tmp_path / "config" / "moorage" / "config.json"
    assert not kept.exists()
    assert run("login", "--key", "right").code == 0
    assert (
        json.loads(kept.read_text()) == {"url": plane.url, "api_key": "right"} and kept.stat().st_mode & 0o777 == 0o600
    )
    monkeypatch.delenv("MOORAGE_URL")
    assert run("agents").code == 0


def test_no_platform_is_one_sentence(run: Run) -> None:
    done = run("agents", "--url", "http://127.0.0.1:1")
    assert done.code == 1 and "Nothing answers at http://127.0.0.1:1." in done.err and "moorage dev" in done.err


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["chat"], ["audit", "--since", "soon"], ["responses", "feedback", RESPONSE]]
)
def test_wrong_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


def test_what_is_not_there_is_said(run: Run) -> None:
    assert "no agent nobody" in run("agents", "show", "nobody").err
    assert "no response caresp_x" in run("responses", "show", "caresp_x").err
    assert "neither an agent nor a session" in run("logs", "something-else").err


# The kernel gives the signal to a thread that is not waiting for anything: what the waiting one would see of a signal that came just
# before it began to wait.
MISSED = """
import os, signal, sys, threading
from moorage import Client

def shoot():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.kill(os.getpid(), signal.SIGINT)

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
with Client(url=sys.argv[1]) as client:
    try:
        for event in client.stream_response("hello", "Hi"):
            if event["type"] == "response.output_text.delta":
                threading.Timer(0.3, shoot).start()
    except KeyboardInterrupt:
        print("interrupted")
"""


def test_a_ctrl_c_that_the_waiting_loop_missed_ends_it_all_the_same(plane: ControlPlane) -> None:
    plane.hold_stream_after = 2
    command = [sys.executable, "-c", MISSED, plane.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, preexec_fn=hears_ctrl_c)
    assert done.stdout == "interrupted\n", done.stderr
