"""Each set of requirements gets an environment of its own, made once, with the platform's SDK in it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
import zipfile
from pathlib import Path

import pytest

from moorage_api import platform_wheel
from moorage_gateway import package_index
from moorage_local.environments import AgentEnvironment, BuildError, BuildSettings, Environments

pytestmark = pytest.mark.provider


@pytest.fixture
def wheel(tmp_path: Path) -> platform_wheel.PlatformWheel:
    return platform_wheel.build(tmp_path / "wheels")


@pytest.fixture
def environments(tmp_path: Path, wheel: platform_wheel.PlatformWheel) -> Environments:
    index = package_index.read_settings(os.environ, Path.home())
    return Environments(tmp_path / "envs", wheel, index, BuildSettings(), variables=os.environ)


def source(tmp_path: Path, name: str, **files: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)
    return folder


def fake_package(folder: Path, name: str, version: str) -> Path:
    """A wheel of one module, so that the tests need no index for it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


def run(environment: AgentEnvironment, code: str) -> str:
    return subprocess.run(
        [environment.python, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_the_wheel_is_the_same_for_the_same_files_and_holds_only_the_sdk(tmp_path: Path) -> None:
    one, two = platform_wheel.build(tmp_path / "a"), platform_wheel.build(tmp_path / "b")
    assert one.digest == two.digest
    tops = {name.split("/")[0] for name in zipfile.ZipFile(one.path).namelist()}
    assert {"moorage", "moorage_api"} < tops and not any(t in tops for t in ("moorage_gateway", "moorage_local"))
    assert all("extra" not in line for line in platform_wheel.requirements())


async def test_two_agents_with_conflicting_versions_run_side_by_side(
    tmp_path: Path, environments: Environments
) -> None:
    links = tmp_path / "links"
    old, new = fake_package(links, "parrot", "1.0"), fake_package(links, "parrot", "2.0")
    first = source(tmp_path, "first", requirements__txt=f"parrot @ {old.as_uri()}\n")
    second = source(tmp_path, "second", requirements__txt=f"parrot @ {new.as_uri()}\nmoorage==0.0.1\n")
    one = await environments.of(first, requirements=None, python=None)
    two = await environments.of(second, requirements=None, python=None)
    assert run(one, "import parrot; print(parrot.VERSION)") == "1.0"
    assert run(two, "import parrot, moorage, moorage_api.kinds; print(parrot.VERSION)") == "2.0"
    assert run(two, "import importlib.util as u; print(u.find_spec('moorage_gateway'))") == "None"


async def test_two_lists_in_one_folder_are_two_environments(tmp_path: Path, environments: Environments) -> None:
    links = tmp_path / "links"
    lists = {f"{n}__txt": f"parrot @ {fake_package(links, 'parrot', f'{n[-1]}.0').as_uri()}\n" for n in ("v1", "v2")}
    folder = source(tmp_path, "agent", **lists)
    for name, version in (("v1.txt", "1.0"), ("v2.txt", "2.0")):
        made = await environments.of(folder, requirements=name, python=None)
        assert run(made, "import parrot; print(parrot.VERSION)") == version


async def test_a_second_request_finds_it_made(tmp_path: Path, environments: Environments) -> None:
    folder = source(tmp_path, "agent", host__py="")
    one, two = await asyncio.gather(
        environments.of(folder, requirements=None, python=None), environments.of(folder, requirements=None, python=None)
    )
    assert one == two
    begun = time.monotonic()
    assert await environments.of(folder, requirements=None, python=None) == one
    assert time.monotonic() - begun < 0.5
    assert [p.name for p in one.path.parent.iterdir()] == [one.digest]
    compiled = list(one.path.glob("lib/python*/site-packages/pydantic/__pycache__/main.*.pyc"))
    assert compiled, "bytecode is compiled at build"


async def test_what_cannot_be_resolved_shows_uvs_words_and_leaves_nothing(
    tmp_path: Path, environments: Environments
) -> None:
    missing = (tmp_path / "no-such-1.0-py3-none-any.whl").as_uri()
    folder = source(tmp_path, "agent", requirements__txt=f"no-such @ {missing}\n")
    with pytest.raises(BuildError, match=r"(?s)requirements\.txt.*no-such"):
        await environments.of(folder, requirements=None, python=None)
    assert list((tmp_path / "envs").iterdir()) == []


async def test_a_requirements_file_that_is_not_there_is_named(tmp_path: Path, environments: Environments) -> None:
    folder = source(tmp_path, "agent")
    with pytest.raises(BuildError, match="no file dev.txt"):
        await environments.of(folder, requirements="dev.txt", python=None)


async def test_a_python_that_is_not_there_is_named(tmp_path: Path, environments: Environments) -> None:
    with pytest.raises(BuildError, match=r"Python 3\.99"):
        await environments.of(source(tmp_path, "agent"), requirements=None, python="3.99")
