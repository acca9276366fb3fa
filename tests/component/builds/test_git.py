"""The files of one commit, out of a real server: refs as git reads them, and nothing written but that folder's own files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.git_server import GitServer, git_server
from moorage_api.unpacking import Limits
from moorage_sandbox.building import git

pytestmark = pytest.mark.component


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitServer]:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "repositories"
    root.mkdir()
    with git_server(root) as served:
        yield served


def fetched(server: GitServer, ref: str, target: Path, path: str = ".", limits: Limits | None = None) -> str:
    return git.fetch(server.url("one"), ref, path, target, limits=limits or Limits())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_a_branch_a_tag_head_and_a_commit_are_resolved(server: GitServer, tmp_path: Path) -> None:
    first = server.commit("one", {"host.py": "1"}, tag="v1")
    second = server.commit("one", {"host.py": "2"}, branch="topic/a")
    third = server.commit("one", {"host.py": "3"})
    wanted = {"v1": first, "topic/a": second, "HEAD": third, "main": third, "refs/heads/main": third, third: third}
    for number, (ref, commit) in enumerate(wanted.items()):
        assert fetched(server, ref, tmp_path / str(number)) == commit, ref
    assert (tmp_path / "0" / "host.py").read_text() == "1" and (tmp_path / "2" / "host.py").read_text() == "3"


def test_only_the_files_of_one_folder_come_and_links_lead_nowhere(server: GitServer, tmp_path: Path) -> None:
    server.commit(
        "one", {"agent/host.py": "1", "agent/run.sh": "#!/bin/sh\n", "agent/.gitattributes": "* filter=x\n", "o": "1"}
    )
    work = tmp_path / "repositories" / "one.work"
    (work / "agent" / "link").symlink_to("/etc/passwd")
    (work / "agent" / "run.sh").chmod(0o755)
    server.commit("one", {})
    target = tmp_path / "target"
    fetched(server, "main", target, "agent")
    assert names(target) == [".gitattributes", "host.py", "link", "run.sh"]
    assert not (target / "link").is_symlink() and (target / "link").read_text() == "/etc/passwd"
    assert os.access(target / "run.sh", os.X_OK) and not os.access(target / "host.py", os.X_OK)


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "."])
def test_a_tree_that_names_another_place_is_refused(server: GitServer, tmp_path: Path, name: str) -> None:
    server.commit("one", {"host.py": "1"})
    bare = tmp_path / "repositories" / "one.git"

    def made(*words: str, given: str = "") -> str:
        done = subprocess.run(
            ["git", "-C", str(bare), "-c", "user.name=t", "-c", "user.email=t@t.test", *words],
            input=given, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    blob = made("hash-object", "-w", "--stdin", given="escaped")
    inner = made("mktree", given=f"100644 blob {blob}\tescaped\n")
    raw = b"40000 " + name.encode() + b"\0" + bytes.fromhex(inner)
    tree = subprocess.run(
        ["git", "-C", str(bare), "hash-object", "-w", "--literally", "-t", "tree", "--stdin"],
        input=raw, capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    made("update-ref", "refs/heads/evil", made("commit-tree", tree, "-m", "evil"))
    with pytest.raises(git.NotHad):
        fetched(server, "evil", tmp_path / "target")
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "target").exists()


def test_what_is_not_there_is_said(server: GitServer, tmp_path: Path) -> None:
    commit = server.commit("one", {"host.py": "1"})
    for ref, path, said in (
        ("nowhere", ".", "no branch or tag nowhere"),
        (commit[:8], ".", "all of its digits"),
        ("main", "absent", "no folder absent"),
        ("main", "host.py", "no folder host.py"),
    ):
        with pytest.raises(git.NotHad, match=said):
            fetched(server, ref, tmp_path / "target", path)
    with pytest.raises(git.NotHad, match="no repository"):
        git.fetch(server.url("absent"), "main", ".", tmp_path / "target", limits=Limits())
    with pytest.raises(git.NotHad, match="more than"):
        fetched(server, "main", tmp_path / "large", limits=Limits(octets=0))
