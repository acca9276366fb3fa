"""Agents' code becomes a snapshot that no longer changes, and tells how it is spoken to."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from moorage_api import bundles, source_tree
from moorage_api.kinds import parse
from moorage_api.kinds.agent import HostedAgentSpec
from moorage_api.kinds.source import Source
from moorage_api.provider.revisions import revision_of
from moorage_api.source_tree import SourceError
from moorage_local import sources
from moorage_local.sources import SourceTree

pytestmark = pytest.mark.unit


def spec(**fields: object) -> HostedAgentSpec:
    head = {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": "a"}}
    return parse({**head, "spec": {"source": {"path": "."}, **fields}}).spec


def resolve(source: Source, base: Path | None, root: Path, fetch: sources.Fetch | None = None) -> SourceTree:
    root.mkdir(exist_ok=True)
    return asyncio.run(sources.resolve(source, base=base, tenant="dev", root=root, fetch=fetch))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "agent"
    path.mkdir()
    (path / "host.py").write_text("from moorage import HostedAgent\n")
    return path


def test_a_folder_is_copied_so_that_a_later_save_changes_nothing(folder: Path, tmp_path: Path) -> None:
    first = resolve(Source(path="."), folder, tmp_path / "root")
    (folder / "host.py").write_text("changed\n")
    second = resolve(Source(path="."), folder, tmp_path / "root")
    assert first.digest != second.digest
    assert (first.path / "host.py").read_text() == "from moorage import HostedAgent\n"
    assert resolve(Source(path="."), folder, tmp_path / "root") == second


def test_a_bundle_is_fetched_by_digest_and_checked(folder: Path, tmp_path: Path) -> None:
    out = io.BytesIO()
    packed = bundles.pack(folder, out)
    asked: list[str] = []

    async def fetch(key: str, path: Path) -> bool:
        asked.append(key)
        path.write_bytes(out.getvalue())
        return True

    tree = resolve(Source(bundle=packed.digest), None, tmp_path / "root", fetch)
    assert asked == [f"t/dev/bundles/{packed.digest}.tar.gz"] and (tree.path / "host.py").is_file()
    resolve(Source(bundle=packed.digest), None, tmp_path / "root", fetch)
    assert len(asked) == 1
    with pytest.raises(SourceError, match="digest"):
        resolve(Source(bundle=hashlib.sha256(b"x").hexdigest()), None, tmp_path / "root", fetch)


def test_a_bundle_that_was_never_uploaded_is_named(tmp_path: Path) -> None:
    async def fetch(key: str, path: Path) -> bool:
        return False

    with pytest.raises(SourceError, match="never uploaded; run `moorage up` again"):
        resolve(Source(bundle="a" * 64), None, tmp_path / "root", fetch)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_git_source_is_taken_at_a_commit(folder: Path, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        options = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
        return subprocess.run(
            ["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=30
        ).stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    commit = git("rev-parse", "HEAD")
    source = Source.model_validate({"git": {"url": f"file://{folder}"}})
    tree = resolve(source, None, tmp_path / "root")
    assert tree.commit == commit and [f.name for f in bundles.files_of(tree.path)] == ["host.py"]
    missing = Source.model_validate({"git": {"url": f"file://{folder}", "ref": "nowhere"}})
    with pytest.raises(SourceError, match="cannot get nowhere"):
        resolve(missing, None, tmp_path / "root")


def test_the_entrypoint_is_found_or_asked_for(folder: Path) -> None:
    assert source_tree.entrypoint(folder, None) == "host.py"
    assert source_tree.entrypoint(folder, "pkg.mod:agent") == "pkg.mod:agent"
    with pytest.raises(SourceError, match=r"no file other\.py"):
        source_tree.entrypoint(folder, "other.py")
    (folder / "host.py").rename(folder / "x.py")
    with pytest.raises(SourceError, match="name the program"):
        source_tree.entrypoint(folder, None)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from moorage import HostedAgent\n", "moorage"),
        ("from azure.ai.agentserver.responses import ResponsesAgentServerHost\n", "foundry"),
        ("from bedrock_agentcore import BedrockAgentCoreApp\n", "agentcore"),
        ("import json\n", "moorage"),
        ("# from azure.ai.agentserver import x\n", "moorage"),
    ],
)
def test_the_contract_is_told_from_what_the_program_imports(folder: Path, text: str, found: str) -> None:
    (folder / "host.py").write_text(text)
    assert source_tree.contract(folder, "host.py", spec().contract) == found
    assert source_tree.contract(folder, "host.py", spec(contract="foundry").contract) == "foundry"


def test_a_revision_changes_with_code_environment_and_what_runs_in_a_sandbox_only() -> None:
    one = revision_of(spec(), "tree", "env")
    assert revision_of(spec(), "tree", "env") == one
    assert revision_of(spec(pool={"min": 3}, rollout={"weight": 10}), "tree", "env") == one
    others = [
        revision_of(spec(turn={"durableState": False}), "tree", "env"),
        revision_of(spec(), "other", "env"),
        revision_of(spec(), "tree", "other"),
        revision_of(spec(resources={"memory": "1Gi"}), "tree", "env"),
        revision_of(spec(env=[{"name": "A", "value": "1"}]), "tree", "env"),
    ]
    assert len({one, *others}) == 6
