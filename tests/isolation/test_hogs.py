"""An agent that eats, forks, spins or will not die harms its own session only, and the error says how it ended (F26, F27, F32)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fakes.platform import poll
from fakes.prober import Watch, family, outcome, watched

pytestmark = pytest.mark.isolation


@contextmanager
def unharmed(world: Any) -> Iterator[Watch]:
    """The neighbour answers all the while: nothing goes wrong, and nothing takes long."""
    with watched(world.platform, world.key, "unharmed-neighbour") as watch:
        poll("the neighbour answers", lambda: len(watch.took) > 3)
        yield watch
        asked = len(watch.took)
        poll("the neighbour still answers", lambda: len(watch.took) > asked + 3)
    assert watch.wrong == []
    # The goal of 1.2 times is the benchmark's; here two cores are shared with whatever else runs.
    assert watch.slowest() < 2.0, watch.slowest()


def pids_of(world: Any, session: str) -> list[int]:
    """The host's pids of a session's sandbox, all processes in it."""
    found = world.door.ask("GET", f"/v1/agents/prober/sessions/{session}").body
    return [pid for one in (found["sandbox"] or {}).get("pids", []) for pid in family(one)]


def gone(pids: list[int]) -> bool:
    """Whether none of them runs."""
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


# A bomb of shell functions can burn out at the limit, for a shell that is refused a fork ends. Here nobody gives up.
BOMB = '''
import subprocess, sys
code = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.02)
"""
subprocess.Popen([sys.executable, "-c", code])
'''


def test_a_fork_bomb_stays_in_its_session_and_ends_with_it(world: Any) -> None:
    session = "hog-forks-0001"
    with unharmed(world):
        world.prober.tell(session, BOMB)
        poll("it has forked", lambda: len(pids_of(world, session)) > 30, within=20)
        bomb = pids_of(world, session)
        assert len(bomb) <= 64 + 2, "spec.resources.pids, and the shim beside it"
        assert world.door.ask("DELETE", f"/v1/agents/prober/sessions/{session}").status == 200
        poll("every process of it is gone", lambda: gone(bomb), within=20)


def test_a_memory_hog_is_killed_and_its_turn_says_so(world: Any) -> None:
    with unharmed(world):
        response = world.prober.turn(
            "hog-memory-0001",
            """
            print("loading a very large model", flush=True)
            held = [bytearray(b"x" * (1 << 24)) for _ in range(64)]
            """,
        )
    assert response["status"] == "failed"
    message = response["error"]["message"]
    assert "memory" in message and "loading a very large model" in message, message
    record = world.door.ask("GET", f"/v1/agents/prober/responses/{response['id']}/record").body
    assert len(record["attempts"]) == 2, "spec.turn.maxAttempts"
    assert outcome(world.prober.turn("hog-memory-0001", "result = 'usable'")) == "usable"


# Allocates without writing: what is proved is the quota, and the disk under it is everybody's.
FILL = """
import os, time
def fill(files, megabytes=10):
    for n in range(files):
        with open(f"big-{time.time_ns()}", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, megabytes << 20)
"""


def test_a_full_disk_is_noticed_and_the_session_can_be_cleared(world: Any) -> None:
    session = "hog-disk-00001"
    with unharmed(world):
        code = (
            FILL
            + "print('filling the disk', flush=True)\nos.chdir('/workspace')\nfill(2 if os.listdir() else 6)\ntime.sleep(30)"
        )
        response = world.prober.turn(session, code)
    assert response["status"] == "failed"
    message = response["error"]["message"]
    assert "disk quota" in message and "spec.workspace.size" in message and "filling the disk" in message, message
    clear = "import glob, os; result = [os.unlink(path) for path in glob.glob('/workspace/big-*')] and 'cleared'"
    assert outcome(world.prober.turn(session, clear)) == "cleared"


def test_a_session_far_over_its_quota_gets_no_further_sandbox(world: Any) -> None:
    """What is measured every few seconds could grow without end by being ended and woken again; so it is not woken."""
    session = "hog-disk-00002"
    body = {"input": FILL + "os.chdir('/workspace')\nfill(4, 45)\ntime.sleep(30)", "background": True}
    made = world.door.ask("POST", "/v1/agents/prober/responses", body | {"agent_session_id": session}).body

    def reason() -> str:
        return str(world.door.ask("GET", f"/v1/agents/prober/sessions/{session}").body["reason"])

    poll("it is refused", lambda: "delete the session" in reason(), within=30)
    assert "disk quota" in reason() and "spec.workspace.size" in reason()
    record = world.door.ask("GET", f"/v1/agents/prober/responses/{made['id']}/record").body
    assert record["attempts"][0]["reason"] == "quota"
    assert world.door.ask("POST", f"/v1/responses/{made['id']}/cancel").body["status"] == "cancelled"
    assert world.door.ask("DELETE", f"/v1/agents/prober/sessions/{session}").status == 200


def test_one_file_over_the_quota_is_an_error_in_the_agent(told: Any) -> None:
    seen = told(
        "hog-file-00001",
        """
        try:
            with open("/workspace/big", "wb") as file:
                for _ in range(60):
                    file.write(b"x" * (1 << 20))
            result = "written"
        except OSError as fault:
            result = fault.strerror
        """,
    )
    assert seen == "File too large"


def test_files_hidden_deeper_than_a_path_may_be_count_too(world: Any) -> None:
    response = world.prober.turn(
        "hog-hidden-001",
        FILL
        + """
os.chdir("/workspace")
for _ in range(230):
    os.makedirs("d" * 20, exist_ok=True)
    os.chdir("d" * 20)
fill(2 if os.listdir() else 6)
time.sleep(30)
""",
    )
    assert response["status"] == "failed"
    assert "disk quota" in response["error"]["message"]
    assert world.door.ask("DELETE", "/v1/agents/prober/sessions/hog-hidden-001").status == 200


def test_a_spinning_agent_gets_no_more_than_its_share(world: Any) -> None:
    with unharmed(world):
        used = world.prober.tell(
            "hog-cpu-000001",
            """
            import os, subprocess, sys, time
            spin = "import time\\nend = time.time() + 3\\nwhile time.time() < end: pass"
            began = time.time()
            for one in [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(4)]:
                one.wait()
            spent = os.times()
            result = (spent.children_user + spent.children_system) / (time.time() - began)
            """,
        )
    if "cpu by cgroup" in world.platform.log.read_text():
        assert used < 0.75, "spec.resources.cpu is 500m"


def test_an_agent_that_ignores_sigterm_is_ended_all_the_same(world: Any) -> None:
    session = "hog-stubborn-1"
    world.prober.tell(session, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)", main=True)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    body = {
        "input": f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {stubborn!r}]).wait()",
        "agent_session_id": session,
        "background": True,
    }
    with unharmed(world):
        made = world.door.ask("POST", "/v1/agents/prober/responses", body).body
        poll("it runs", lambda: len(pids_of(world, session)) >= 4, within=20)
        held = pids_of(world, session)
        cancelled = world.door.ask("POST", f"/v1/responses/{made['id']}/cancel")
        assert cancelled.body["status"] == "cancelled"
        assert world.door.ask("DELETE", f"/v1/agents/prober/sessions/{session}").status == 200
        poll("all of it is gone", lambda: gone(held), within=20)


def test_orphans_are_reaped(told: Any) -> None:
    left = told(
        "hog-zombies-01",
        """
        import os, subprocess, time
        for _ in range(40):
            subprocess.run(["sh", "-c", "sleep 0.01 & exit 0"])
        def orphans():
            # alive or zombie: an orphan that still sleeps would be a zombie a moment after nobody was seen
            found = 0
            for name in os.listdir("/proc"):
                try:
                    found += "(sleep)" in open(f"/proc/{int(name)}/stat").read()
                except (ValueError, FileNotFoundError, ProcessLookupError):
                    pass
            return found
        end = time.time() + 10
        while (left := orphans()) and time.time() < end:
            time.sleep(0.05)
        result = left
        """,
    )
    assert left == 0


def test_a_flood_of_output_is_bounded(world: Any) -> None:
    session = "hog-output-001"
    with unharmed(world):
        said = world.prober.tell(
            session,
            """
            import sys
            line = "flood " * 100 + "\\n"
            for _ in range(100_000):
                sys.stdout.write(line)
            sys.stdout.write("x" * 5_000_000)
            sys.stdout.flush()
            result = "said"
            """,
        )
    assert said == "said"
    kept = sum(path.stat().st_size for path in (world.platform.state / "logs").rglob("*") if path.is_file())
    assert kept < 12 << 20, "20 MB were printed"


def test_an_agent_that_dies_in_a_turn_shows_its_last_lines(world: Any) -> None:
    code = "import os; print('the very last line', flush=True); os._exit(3)"
    response = world.prober.turn("hog-crash-0001", code)
    assert response["status"] == "failed"
    assert "the very last line" in response["error"]["message"]
    assert outcome(world.prober.turn("hog-crash-0001", "result = 'usable'")) == "usable"
    lines = world.door.ask("GET", "/v1/agents/prober/sessions/hog-crash-0001/logs?tail=200").raw.decode()
    assert "the very last line" in lines
