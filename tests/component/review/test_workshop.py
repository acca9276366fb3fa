"""The example's tool server as a program, and the engine beside it: `python -m workshop`, `python -m review --tools`."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster.reviewed import PLANTED
from fakes.platform import poll
from fakes.ports import free_port

pytestmark = pytest.mark.component
EXAMPLE = Path(__file__).parents[3] / "examples" / "review-agent"


def git(folder, *arguments):
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def serve(tmp_path):
    """Starts the server; its URL. It ends with the test."""
    processes = []

    def start(*options):
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "workshop",
            "--port",
            str(port),
            "--log",
            str(tmp_path / "tools.jsonl"),
            *options,
        ]
        with (tmp_path / "server.log").open("wb") as log:
            processes.append(subprocess.Popen(command, cwd=EXAMPLE, stdout=log, stderr=subprocess.STDOUT))
        url = f"http://127.0.0.1:{port}/mcp"

        def answers():
            assert processes[-1].poll() is None, (tmp_path / "server.log").read_text()
            try:
                urllib.request.urlopen(url, timeout=5)
            except urllib.error.HTTPError:
                return True
            except OSError:
                return False
            return True

        poll("the tools are there", answers, within=60)
        return url

    yield start
    for process in processes:
        process.terminate()
        process.wait(15)


def review(url, text):
    command = [sys.executable, "-m", "review", text, "--tools", url]
    return subprocess.run(
        command, cwd=EXAMPLE, capture_output=True, text=True, timeout=120, check=False, env=os.environ
    )


def test_the_sample_is_reviewed_by_the_tools_and_each_call_stands_in_the_log(serve, tmp_path):
    url = serve()
    done = review(url, "Review tools:quayside v1.0.0..v1.1.0")
    assert done.returncode == 0, done.stderr
    assert [fact for fact in PLANTED[1:] if fact not in done.stdout] == []
    assert "as review 1 of it" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "tools.jsonl").read_text().splitlines()]
    assert [line["tool"] for line in lines if "began" in line] == [
        "git_commit", "git_commit", "git_files", "git_files", "package_licence", "git_note",
    ]  # fmt: skip
    assert [line["ended"] for line in lines if "ended" in line] == list(range(1, 7))
    refused = review(url, "Review tools:elsewhere v1.0.0..v1.1.0")
    assert refused.returncode == 1 and "There is no repository `elsewhere`; there are: quayside." in refused.stdout


def test_a_repository_of_ones_own_gets_the_review_as_a_note_of_the_commit(serve, tmp_path):
    mine = tmp_path / "repositories" / "mine"
    (mine / "mine").mkdir(parents=True)
    git(mine, "init", "--quiet", ".")
    for n, parameters in enumerate(("a, b", "a")):
        (mine / "mine" / "__init__.py").write_text(f"def f({parameters}):\n    return a\n# " + "x" * 300_000 + "\n")
        (mine / "other.py").write_text("y = 1\n")
        git(mine, "add", "--all")
        git(mine, "-c", "user.name=A", "-c", "user.email=a@example.invalid", "commit", "--quiet", "-m", f"c{n}")
    done = review(serve("--repositories", str(mine.parent)), "Review tools:mine HEAD~1..HEAD")
    assert done.returncode == 0, done.stderr
    assert "parameter `b` was removed" in done.stdout, "the larger file is a page of its own"
    note = git(mine, "notes", "--ref=review", "show", "HEAD")
    assert note.startswith("# Review of mine HEAD~1..HEAD") and "parameter `b` was removed" in note
