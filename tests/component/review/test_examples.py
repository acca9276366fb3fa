"""Every example serves by itself, with `python host.py` and nothing else of the platform."""

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.component
EXAMPLES = Path(__file__).parents[3] / "examples"
START_SECONDS = 60


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts an example on a free port and gives its address; its processes end with the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(name: str, **variables: str) -> str:
        environment = {
            **os.environ,
            "PORT": "0",
            "HOME": str(tmp_path),
            "MOORAGE_WORKSPACE": str(tmp_path / "workspace"),
            "PYTHONUNBUFFERED": "1",
            **variables,
        }
        process = subprocess.Popen(
            [sys.executable, "host.py"], cwd=EXAMPLES / name, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        processes.append(process)
        return _address(process)

    yield start
    for process in processes:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    deadline, seen = time.monotonic() + START_SECONDS, ""
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline and process.poll() is None:
            if ready.select(0.1):
                seen += os.read(process.stdout.fileno(), 4096).decode()
            found = re.search(r"serves at (http://[\d.]+:\d+) ", seen)
            if found and _is_ready(found.group(1)):
                return found.group(1)
    raise AssertionError(f"the example does not serve: {seen}")


def _is_ready(address: str) -> bool:
    """The line is printed when the port is taken, a moment before the server listens on it."""
    try:
        with urllib.request.urlopen(f"{address}/readiness", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def call(url: str, body: bytes, method: str = "POST", content_type: str = "application/json"):
    request = urllib.request.Request(url, body, {"content-type": content_type}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers, answer.read()


def ask(address: str, text: str) -> str:
    _, body = call(f"{address}/responses", json.dumps({"input": text}).encode())
    answer = json.loads(body)
    assert answer["status"] == "completed", answer
    return answer["output"][0]["content"][0]["text"]


def deltas(address: str, text: str) -> list[str]:
    _, body = call(f"{address}/responses", json.dumps({"input": text, "stream": True}).encode())
    rows = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")]
    return [event["delta"] for event in map(json.loads, rows) if event["type"] == "response.output_text.delta"]


def test_hello_greets_a_word_at_a_time(serve):
    address = serve("hello")
    assert ask(address, "ada and bob") == "Hello ada and bob!"
    assert "".join(deltas(address, "ada")) == "Hello ada!"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
def test_invocations_echoes_any_method_path_and_content_type(serve, method):
    address = serve("invocations")
    headers, body = call(f"{address}/invocations/any/where", b"\x00\xffraw", method, "application/x-own")
    assert body == b"\x00\xffraw"
    assert (headers["content-type"], headers["x-method"], headers["x-path"]) == (
        "application/x-own",
        method,
        "/any/where",
    )


def test_invocations_streams_in_capitals_and_speaks_responses_as_well(serve):
    address = serve("invocations")
    assert call(f"{address}/invocations/upper", "straße ".encode() * 50_000)[1] == b"STRA\xc3\x9fE " * 50_000
    assert ask(address, "one two") == "ONE TWO (0 earlier items)"


def test_review_agent_streams_a_review_and_answers_a_follow_up_from_its_workspace(serve, tmp_path):
    address = serve("review-agent", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    pieces = deltas(address, "Review pypi:httpx 0.27.2..0.28.1")
    text = "".join(pieces)
    assert len(pieces) > 20
    assert "> Package index not reachable (connection refused)" in text
    assert re.findall(r"^## .*$", text, re.M) == ["## Test coverage", "## New dependencies", "## Breaking API changes"]
    assert text.startswith((tmp_path / "workspace" / "review.md").read_text())
    assert re.findall(r"^## .*$", ask(address, "only the API part, shorter"), re.M) == ["## Breaking API changes"]
