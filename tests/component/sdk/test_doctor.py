"""The doctor's two ways out: kubectl, with its deadline and its bound, and a gateway; and the probe's programs where nothing is denied."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.control_plane import ControlPlane
from fakes.platform import poll
from moorage._errors import ConnectionLost
from moorage.cli.connection import Connection
from moorage.cli.doctor import gateway, probe_objects
from moorage.cli.doctor.kubectl import Kubectl

pytestmark = pytest.mark.component
MOORAGE = Path(sys.executable).parent / "moorage"
Stand = Callable[[str], None]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """Puts a program of Python in kubectl's place, alone on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def put(program: str) -> None:
        path = folder / "kubectl"
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)} "$@"\n')
        path.chmod(0o755)

    return put


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    made = ControlPlane(key="right")
    made.start()
    yield made
    made.stop()


def test_what_kubectl_answers_is_the_answer(stand: Stand) -> None:
    stand("import sys; print(sys.argv[2:], sys.stdin.read())")
    asked = Kubectl()("get", "pods", given="body")
    assert (asked.outcome, asked.text) == ("answered", "['get', 'pods'] body\n")
    stand("import sys; print('half'); sys.exit('Error from server (Forbidden): no')")
    asked = Kubectl()("get", "pods")
    assert (asked.outcome, asked.why) == ("forbidden", "Error from server (Forbidden): no")


def test_a_kubectl_that_hangs_is_ended_with_all_it_started(stand: Stand, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    stand(
        "import os, subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{one.pid}}')\n"
        "time.sleep(600)"
    )  # fmt: skip
    began = time.monotonic()
    asked = Kubectl(seconds=3)("get", "pods")
    assert asked.outcome == "refused" and "did not end within 3 s" in asked.why and time.monotonic() - began < 60
    for pid in map(int, note.read_text().split()):
        poll(f"{pid} has ended", lambda pid=pid: _ended(pid), within=10)


def _open(port: int) -> bool:
    """Whether anybody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 2).close()
    except OSError:
        return False
    return True


def _ended(pid: int) -> bool:
    """Whether it runs no more; one that nobody has asked after has."""
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_kubectl_that_never_stops_talking_is_cut_off(stand: Stand) -> None:
    stand("import sys\nwhile True: sys.stdout.write('x' * 1000)")
    asked = Kubectl(seconds=60, limit=10_000)("get", "pods")
    assert asked.outcome == "refused" and "more than 10000 bytes" in asked.why


def run(*arguments: str, path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MOORAGE_", "KUBE"))}
    environment |= {"XDG_CONFIG_HOME": str(path / "config"), "PATH": str(path), **more}
    command = [str(MOORAGE), "doctor", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_no_kubectl_is_a_finding_and_the_gateway_is_asked_all_the_same(plane: ControlPlane, tmp_path: Path) -> None:
    plane.agents["hello"] = {}
    done = run("--url", plane.url, "--key", "right", path=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines() if not line.startswith(" ")] == ["wrong", *["ok"] * 4]
    assert "There is no kubectl on PATH." in done.stdout and "    Install kubectl" in done.stdout
    assert "agents that may be used: 1" in done.stdout and done.stderr == "4 ok, 1 wrong\n"


def test_the_gateways_own_word_on_its_parts_is_told(plane: ControlPlane, tmp_path: Path) -> None:
    plane.parts["store"] = "OSError"
    done = run("--url", plane.url, "--key", "wrong", "--json", path=tmp_path)
    told = json.loads(done.stdout)
    levels = {each["check"]: each["result"] for each in told["findings"]}
    expected = {"cluster": "wrong", "gateway URL": "ok", "Redis": "ok", "object store": "wrong", "key": "wrong"}
    assert (done.returncode, told["ok"], levels) == (1, False, expected)
    assert "right" not in done.stdout and all(each["mend"] for each in told["findings"] if each["result"] == "wrong")


def test_a_gateway_that_says_too_much_of_itself_is_none(plane: ControlPlane) -> None:
    plane.parts["redis"] = "x" * 100_000
    seen = gateway.look(Connection(plane.url, None))
    assert isinstance(seen.ready, ConnectionLost) and "no gateway of Moorage" in seen.ready.message


def test_a_gateway_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        seen = gateway.look(Connection(f"http://127.0.0.1:{silent.getsockname()[1]}", None), seconds=1)
    assert isinstance(seen.ready, ConnectionLost)


def test_a_url_where_no_gateway_is(tmp_path: Path) -> None:
    done = run("--url", "http://127.0.0.1:1", path=tmp_path)
    assert "Nothing answers at http://127.0.0.1:1." in done.stdout and "kubectl port-forward" in done.stdout


def test_without_a_url_no_gateway_is_asked(tmp_path: Path) -> None:
    assert "not tried       gateway URL  No URL was given." in run(path=tmp_path).stdout


@pytest.mark.parametrize(
    "wrong", [["--namespace", "--all"], ["--agents", "a/b"], ["--storage-class", "-x"], ["--nonsense"]]
)
def test_wrong_usage_is_exit_code_2(wrong: list[str], tmp_path: Path) -> None:
    done = run(*wrong, path=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_the_probes_pods_find_everything_open_where_nothing_is_denied_and_nothing_proved_where_nobody_listens() -> None:
    def call(seconds: int) -> int:
        quick = probe_objects.CALL.replace(f"monotonic() + {probe_objects.WITHIN}", f"monotonic() + {seconds}")
        assert quick != probe_objects.CALL
        return subprocess.run([sys.executable, "-c", quick, "127.0.0.1"], timeout=60, check=False).returncode

    listener = subprocess.Popen([sys.executable, "-c", probe_objects.LISTEN])
    try:
        for port in (probe_objects.ALLOWED, probe_objects.IN, probe_objects.OUT):
            poll(f"it listens at {port}", lambda port=port: _open(port))
        assert call(2) == 13
    finally:
        listener.kill()
        listener.wait()
    assert call(1) == probe_objects.UNPROVED
