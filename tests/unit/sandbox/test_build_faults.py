"""Whose fault a failed build is: what a server says is the source's, that it says nothing is not."""

from __future__ import annotations

import http.server
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_api.built import FAULT
from moorage_sandbox.building import git
from moorage_sandbox.building.tools import Interrupted, ToolFailed, Tools

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server that answers with this status and nothing else."""
    status: int = request.param

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/a.git"
    server.shutdown()
    thread.join()
    server.server_close()


def ended(url: str, folder: Path) -> int:
    said: list[str] = []
    status = git.main([url, "main", ".", str(folder / "target")], said.append)
    assert said, "it says why"
    return status


def test_a_git_server_that_is_not_there_is_no_fault_of_the_source(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        assert ended(f"http://127.0.0.1:{taken.getsockname()[1]}/a.git", tmp_path) == git.LOST


@pytest.mark.parametrize(
    ("answering", "status"), [(404, FAULT), (403, FAULT), (400, FAULT), (503, git.LOST)], indirect=["answering"]
)
def test_what_a_git_server_answers_is_final_unless_it_is_away(answering: str, status: int, tmp_path: Path) -> None:
    assert ended(answering, tmp_path) == status


@pytest.mark.parametrize(
    ("said", "status", "fault"),
    [
        ("No solution found when resolving dependencies", 1, ToolFailed),
        ("Failed to fetch: a\n  Caused by: error sending request for url (http://index.example/a)", 2, Interrupted),
        ("it fell silent", 4, Interrupted),
        ("there is no such branch", FAULT, ToolFailed),
    ],
)
def test_a_tool_that_could_not_ask_is_interrupted_and_one_that_was_refused_has_failed(
    said: str, status: int, fault: type[Exception], tmp_path: Path
) -> None:
    tools = Tools({}, time.monotonic() + 60)
    command = [sys.executable, "-c", f"import sys; print({said!r}); sys.exit({status})"]
    with pytest.raises(fault, match="may not reach it; its last lines" if fault is Interrupted else "its last lines"):
        tools.run(command, cwd=tmp_path, what="w", lost=(git.LOST,))
