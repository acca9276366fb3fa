"""A bundle is built through a gateway, fetched as a pod fetches it, and runs; what a source cannot be is an outcome."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from component.builds.conftest import KEY, World
from fakes.bundling import packed
from moorage_api import built, tokens
from moorage_api.built import Built, Failed
from moorage_api.kinds.source import Git, Source
from moorage_gateway import package_index
from moorage_sandbox.building.build import build
from moorage_sandbox.building.config import BuildConfig
from moorage_sandbox.building.tools import Interrupted
from moorage_sandbox.fetching import Unfit, fetch, fetch_index
from moorage_sandbox.platform import Refused

pytestmark = [pytest.mark.component, pytest.mark.timeout(300)]
WITHIN = 200.0


async def built_of(world: World, folder: Path, name: str, **source: Any) -> built.Outcome:
    """Uploads a folder and builds it."""
    data = packed(folder)
    digest = hashlib.sha256(data).hexdigest()
    await world.uploaded(data, digest)
    return await outcome(world, name, Source(bundle=f"sha256:{digest}", **source), source=digest)


async def outcome(world: World, name: str, wanted: Source, *, reach: tuple[str, ...] = (), **who: str) -> built.Outcome:
    """A build in a folder of this name, which may reach the package index and these hosts."""
    said = world.build(reach=("package-index", *reach), **who)
    config = BuildConfig(
        world.url, world.egress, tokens.sign_build(said, KEY), world.pod_token(f"{said.job}-abcde"), wanted, "auto", "", WITHIN,
    )  # fmt: skip
    work = world.folder / name
    work.mkdir()
    return await asyncio.to_thread(build, config, work, os.environ, until=time.monotonic() + WITHIN)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "agent"
    (made / "inner").mkdir(parents=True)
    (made / "host.py").write_text("import inner.word\nfrom moorage import HostedAgent\nprint(inner.word.WORD)\n")
    (made / "inner" / "word.py").write_text("WORD = 'parrot'\n")
    return made


async def test_a_bundle_is_built_fetched_and_run(world: World, folder: Path, tmp_path: Path) -> None:
    made = await built_of(world, folder, "work")
    assert isinstance(made, Built), made
    assert (made.entry, made.contract, made.commit) == ("host.py", "moorage", "")
    place, python = tmp_path / "pod", Path(sys.executable).resolve()
    place.mkdir()
    platform = world.platform(world.sandbox_proof())
    await asyncio.to_thread(fetch, platform, made.digest, place, python, sys.version_info[:2])
    assert sorted(path.name for path in place.iterdir()) == ["code", "env"]
    asked = "import moorage, moorage_api, pydantic, sys; print(sys.prefix, moorage.__file__)"
    said = await asyncio.to_thread(run, place, "-I", "-c", asked)
    assert said.split()[0] == str(place / "env") and said.split()[1].startswith(str(place / "env" / "lib"))
    assert run(place, "host.py").strip() == "parrot"
    (bytecode,) = (place / "code" / "inner" / "__pycache__").iterdir()
    assert bytecode.read_bytes()[4:8] == b"\x01\0\0\0", "valid whatever the times of its source are"
    links = [path for path in place.rglob("*") if path.is_symlink()]
    assert {link.name for link in links} == {"python", "python3"}


def run(place: Path, *words: str) -> str:
    command = [str(place / "env" / "bin" / "python"), *words]
    done = subprocess.run(command, cwd=place / "code", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_a_source_cannot_be_is_said(world: World, folder: Path) -> None:
    (folder / "requirements.txt").write_text("./nothing-1.0-py3-none-any.whl\n")
    lost = await built_of(world, folder, "unresolved")
    assert isinstance(lost, Failed) and lost.reason == "EnvironmentFailed" and "nothing-1.0" in lost.message
    (folder / "requirements.txt").unlink()
    other = await built_of(world, folder, "version", python="3.99")
    assert isinstance(other, Failed) and "spec.source.python" in other.message
    (folder / "host.py").unlink()
    none = await built_of(world, folder, "nothing")
    assert isinstance(none, Failed) and none.reason == "SourceRefused" and "host.py" in none.message
    (folder / "host.py").write_text("")
    long = await built_of(world, folder, "long", entrypoint="host:o" + "\u00e9" * 600)
    assert isinstance(long, Failed) and long.reason == "SourceRefused" and "spec.source.entrypoint" in long.message


async def test_a_repository_that_may_not_be_reached_is_refused_and_one_that_is_away_is_tried_again(
    world: World,
) -> None:
    source = Source(git=Git(url="https://git.invalid/a.git"))
    refused = await outcome(world, "refused", source)
    assert isinstance(refused, Failed) and refused.reason == "SourceRefused" and "builds.hosts" in refused.message
    with pytest.raises(Interrupted, match="spec.source.git"):
        await outcome(world, "away", source, reach=("git.invalid:443",))


async def test_a_build_for_another_python_is_refused_where_it_is_fetched(world: World, folder: Path) -> None:
    (folder / "code").mkdir()
    (folder / "code" / "host.py").write_text("")
    digest, archive = bundle(folder)
    platform = world.platform(world.build_proof())
    file = world.folder / "archive"
    file.write_bytes(archive)
    await asyncio.to_thread(platform.keep, digest, file)
    with pytest.raises(Unfit, match="another Python"):
        await asyncio.to_thread(
            fetch, world.platform(world.sandbox_proof()), digest, folder, Path(sys.executable), (3, 11)
        )


def bundle(folder: Path) -> tuple[str, bytes]:
    from moorage_api import bundles

    out = io.BytesIO()
    return bundles.pack(folder, out, everything=True).digest, out.getvalue()


async def test_who_may_store_and_read_what(world: World, tmp_path: Path) -> None:
    data, file = b"anything", tmp_path / "file"
    file.write_bytes(data)
    digest, other = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"else").hexdigest()
    await world.uploaded(data, digest)

    async def said(call: Any, *words: Any) -> str:
        try:
            await asyncio.to_thread(call, *words)
        except (Refused, Exception) as why:
            return f"{type(why).__name__} {why}"
        return ""

    build_, sandbox = world.platform(world.build_proof(source=digest)), world.platform(world.sandbox_proof(), within=0)
    assert await said(build_.source, tmp_path / "source") == "" and (tmp_path / "source").read_bytes() == data
    assert "422" in await said(build_.keep, other, file), "stored under its own digest only"
    assert await said(build_.keep, digest, file) == "" == await said(build_.keep, digest, file)
    assert await said(sandbox.built, digest, tmp_path / "built") == "" and (tmp_path / "built").read_bytes() == data
    assert "404" in await said(world.platform(world.sandbox_proof("b"), within=0).built, digest, tmp_path / "b")
    assert "404" in await said(world.platform(world.build_proof()).source, tmp_path / "none"), "names no bundle"
    for refused in (
        lambda: sandbox.keep(digest, file),
        lambda: sandbox.source(tmp_path / "no"),
        world.platform(world.build_proof(pod="sb-0123456789abcdef"), within=0).index,
        world.platform(world.build_proof(tenant="others"), within=0).index,
        world.platform(world.build_proof(account="another"), within=0).index,
        lambda: world.platform(world.build_proof(), within=0).built(digest, tmp_path / "no"),
    ):
        assert "401" in await said(refused)
    assert "env" in await asyncio.to_thread(build_.index) and "env" in await asyncio.to_thread(sandbox.index)


async def test_a_sandbox_learns_how_the_index_is_reached(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    authorities = tmp_path / "authorities.pem"
    authorities.write_text("-- authorities --")
    monkeypatch.setattr(
        world.index, "_settings", package_index.Settings("https://index.example/simple", (), authorities)
    )
    sandbox = world.platform(world.sandbox_proof())
    (tmp_path / "one").mkdir()
    for _ in range(2):  # an init container may run again
        await asyncio.to_thread(fetch_index, sandbox, tmp_path / "one")
    place = tmp_path / "one" / "index"
    assert (place / "ca.pem").read_text() == "-- authorities --"
    found = json.loads((place / "variables.json").read_bytes())
    assert found["PIP_INDEX_URL"] == "https://index.example/simple" and found["PIP_CERT"] == "/opt/moorage-index/ca.pem"

    monkeypatch.setattr(world.index, "_settings", package_index.Settings(""))
    monkeypatch.setattr(world.index, "_known", None)
    (tmp_path / "two").mkdir()
    await asyncio.to_thread(fetch_index, sandbox, tmp_path / "two")
    assert json.loads((tmp_path / "two" / "index" / "variables.json").read_bytes()) == {}
    assert "builds.packageIndex.url" in capsys.readouterr().err


async def test_a_gateway_without_an_index_says_so(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an image whose Python has no pip to learn one from."""
    monkeypatch.setattr(world.index, "_settings", package_index.Settings(""))
    made = await built_of(world, folder, "no-index")
    assert isinstance(made, Failed) and made.reason == "EnvironmentFailed"
    assert "builds.packageIndex.url" in made.message
