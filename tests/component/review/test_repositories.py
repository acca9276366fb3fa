"""Reviews of real git repositories: mounted ones, fetched ones, hostile ones."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from review import conversation, errors, repositories, sample
from review.budget import Budget, Limits
from review.conversation import World
from review.index import Index
from review.licences import RecordedLicences
from review.repositories import Git
from review.transport import MemoryTransport

from fakes.platform import poll

GIT = shutil.which("git")
pytestmark = [pytest.mark.component, pytest.mark.skipif(GIT is None, reason="needs git")]
HEADINGS = ("## Test coverage", "## New dependencies", "## Breaking API changes")


def git(folder: Path, *arguments: str) -> str:
    identity = {
        f"GIT_{who}_{what}": "t@example.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", **identity}
    command = [GIT or "", "-C", str(folder), *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, timeout=60
    ).stdout.strip()


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    for version in sample.VERSIONS:
        write(folder, sample.files(version))
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "-m", version)
        git(folder, "tag", version)
    return folder


@pytest.fixture
def world() -> World:
    return World(Index("https://index.test/simple", MemoryTransport({})), GIT, dict(os.environ))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


@pytest.fixture
def remote(repository: Path) -> Iterator[str]:
    """The repository behind git's own HTTP server program."""

    class Backend(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("Content-Length") or 0)
            environment = {
                **os.environ,
                "GIT_PROJECT_ROOT": str(repository.parent),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(length),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
            }
            done = subprocess.run(
                [GIT or "", "http-backend"], input=self.rfile.read(length), env=environment, capture_output=True, timeout=30
            )  # fmt: skip
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            lines = [line.partition(b": ") for line in head.split(b"\r\n")]
            status = next((int(v.split()[0]) for k, _, v in lines if k.lower() == b"status"), 200)
            self.send_response(status)
            for key, _, value in lines:
                if key.lower() != b"status":
                    self.send_header(key.decode(), value.decode())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/project"
    server.shutdown()
    server.server_close()
    thread.join(10)


def ask(text: str, workspace: Path, world: World) -> str:
    return "".join(conversation.answer(text, workspace, world))


def assert_the_planted_facts(text: str) -> None:
    assert [line for line in text.splitlines() if line.startswith("## ")] == list(HEADINGS)
    assert "**added** `tomlkit>=0.13`" in text
    assert "**dropped** `python-dateutil>=2.9`" in text
    assert "`quayside.Harbour.__init__`: parameter `strict` was removed" in text
    assert "`quayside.tides.height_at` (changed" in text


@pytest.mark.parametrize("ends", ["v1.0.0..v1.1.0", "HEAD~1..HEAD", "v1.0.0..main", "main~1..main"])
def test_two_revisions_of_a_mounted_repository_are_reviewed(repository, workspace, world, ends):
    assert_the_planted_facts(ask(f"Review {repository} {ends}", workspace, world))
    assert sorted(p.name for p in workspace.iterdir()) == ["review.json", "review.md"]


@pytest.mark.parametrize("ends", ["v1.0.0..v1.1.0", "v1.0.0..main", "main~1..HEAD"])
def test_two_revisions_of_a_repository_behind_a_url_are_reviewed(remote, workspace, world, ends):
    assert_the_planted_facts(ask(f"Review {remote} {ends}", workspace, world))


def test_commits_are_reviewed_by_their_full_and_their_short_name(remote, repository, workspace, world):
    old, new = git(repository, "rev-parse", "v1.0.0"), git(repository, "rev-parse", "v1.1.0")
    assert_the_planted_facts(ask(f"Review {remote} {old}..{new}", workspace, world))
    assert_the_planted_facts(ask(f"Review {remote} {old[:9]}..{new[:9]}", workspace, world))


def test_the_fallback_made_with_git_says_the_same_as_the_one_made_of_folders(workspace, world):
    index = Index(
        "https://index.test/simple",
        MemoryTransport({"https://index.test/simple/p/": errors.Unreachable("x", "no answer in time")}),
    )
    with_git = ask("Review pypi:p 1..2", workspace, World(index, GIT, dict(os.environ)))
    without = ask("Review pypi:p 1..2", workspace, World(index, None, {}))
    assert_the_planted_facts(with_git)
    assert with_git.partition("## ")[2] == without.partition("## ")[2]
    assert "commit `" in with_git.partition("## ")[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Review {repo} v1.0.0..v9", "no revision `v9`"),
        ("Review {empty} a..b", "is not a git repository"),
        ("Review {repo}/missing a..b", "There is no folder"),
        ("Review {repo} --output=/tmp/x..main", "is not the name of a revision"),
        ("Review {remote}/nothing a..b", "no such repository"),
        ("Review http://u:p@127.0.0.1:1/r a..b", "takes no credentials"),
        ("Review http://[::1/r a..b", "not a valid URL"),
        ("Review http://127.0.0.1:1/r a..b", "127.0.0.1 is not reachable"),
    ],
)
def test_what_cannot_be_had_is_said_and_leaves_nothing_behind(
    repository, remote, workspace, world, tmp_path, text, words
):
    (tmp_path / "empty").mkdir()
    answer = ask(text.format(repo=repository, empty=tmp_path / "empty", remote=remote), workspace, world)
    assert words in answer
    assert list(workspace.iterdir()) == []


def test_no_program_that_a_repository_names_is_run(repository, workspace, world, tmp_path):
    marker = tmp_path / "ran"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n")
    script.chmod(0o755)
    for key in ("core.fsmonitor", "core.sshCommand", "core.pager", "diff.external", "filter.evil.smudge", "core.editor",
                "uploadpack.packObjectsHook", "remote.origin.uploadpack", "credential.helper", "core.hooksPath"):  # fmt: skip
        git(repository, "config", key, str(script if key != "core.hooksPath" else tmp_path))
    git(repository, "config", "remote.origin.url", f"ext::{script}")
    git(repository, "config", "remote.origin.promisor", "true")
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        shutil.copy(script, repository / ".git" / "hooks" / hook)
    write(repository, {".gitattributes": "*.py filter=evil export-subst\n"})
    assert_the_planted_facts(ask(f"Review {repository} v1.0.0..v1.1.0", workspace, world))
    assert not marker.exists()


def test_the_reviewed_repository_is_left_as_it_was(repository, workspace, world):
    before = {p: p.stat().st_mtime_ns for p in repository.rglob("*")}
    ask(f"Review {repository} v1.0.0..v1.1.0", workspace, world)
    assert {p: p.stat().st_mtime_ns for p in repository.rglob("*")} == before


def test_links_in_a_revision_are_not_followed(repository, workspace, world):
    (repository / "src" / "quayside" / "secret.py").symlink_to("/etc/passwd")
    (repository / "tests" / "loop").symlink_to("..")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "links")
    answer = ask(f"Review {repository} v1.0.0..main", workspace, world)
    assert_the_planted_facts(answer)
    assert "secret" not in answer


def test_a_revision_over_the_caps_is_refused(repository, tmp_path):
    for limits in (Limits(files=2), Limits(unpacked_bytes=100)):
        scratch = tmp_path / f"scratch-{limits.files}"
        runner = Git(GIT or "", os.environ, scratch / "git")
        with pytest.raises(errors.TooLarge):
            repositories.compare(
                runner, str(repository), sample.VERSIONS, RecordedLicences({}), scratch / "r", Budget.start(limits)
            )


def test_a_server_that_hangs_is_left_at_the_deadline_and_no_process_stays(tmp_path):
    scratch = tmp_path / "scratch"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/r.git"
        budget = Budget.start(Limits(review_seconds=1.0))
        with pytest.raises(errors.OutOfTime):
            repositories.compare(
                Git(GIT or "", os.environ, scratch / "git"),
                url,
                ("a", "b"),
                RecordedLicences({}),
                scratch / "r",
                budget,
            )

    # Who is killed ends a moment later.
    def gone() -> bool:
        return not any(url.encode() in _read(p) for p in Path("/proc").glob("[0-9]*/cmdline"))

    poll("the end of every process", gone, within=10)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_terminal_prints_the_report_and_its_exit_code_says_whether_there_is_one(repository, tmp_path, example):
    def run(text: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "review", text, "--workspace", str(tmp_path / "ws")]
        return subprocess.run(command, cwd=example, capture_output=True, text=True, timeout=60)

    good = run(f"Review {repository} v1.0.0..v1.1.0")
    assert (good.returncode, good.stderr) == (0, "")
    assert_the_planted_facts(good.stdout)
    assert run("only the dependencies").stdout.startswith("## New dependencies")
    assert run("hello").returncode == 1
