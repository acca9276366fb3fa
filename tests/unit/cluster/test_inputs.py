"""An image is built again when something that it is made of changed, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.node import inputs
from tree import ROOT

pytestmark = pytest.mark.unit

DOCKERFILE = """ARG BASE
FROM ${BASE} AS build
COPY --chmod=0755 one.py two /app/
FROM ${BASE}
COPY --from=build /app /app
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "two" / "__pycache__").mkdir(parents=True)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    for name in ("one.py", "two/a.py", "two/__pycache__/a.pyc", "beside.py"):
        (tmp_path / name).write_text(name)
    return tmp_path


def key(context: Path, base: str = "b:1") -> str:
    return inputs.key(context / "Dockerfile", context, {"BASE": base})


@pytest.mark.parametrize("name", ["one.py", "two/a.py", "Dockerfile"])
def test_a_changed_file_is_another_image(context: Path, name: str) -> None:
    before = key(context)
    with (context / name).open("a") as file:
        file.write("\n# more\n")
    assert key(context) != before


def test_so_is_a_further_file_a_changed_mode_and_another_base(context: Path) -> None:
    keys = [key(context)]
    (context / "two" / "b.py").write_text("")
    keys.append(key(context))
    (context / "one.py").chmod(0o755)
    keys += [key(context), key(context, "b:2")]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["beside.py", "two/__pycache__/a.pyc"])
def test_what_is_not_copied_is_not_its_matter(context: Path, name: str) -> None:
    before = key(context)
    (context / name).write_text("other")
    assert key(context) == before


def test_every_dockerfile_of_ours_is_read() -> None:
    for place in ("gateway", "operator", "sandbox-image", "valkey-image"):
        text = (ROOT / place / "Dockerfile").read_text()
        assert "ADD " not in text and list(inputs.copied(text)), place
        assert all((ROOT / source).exists() for source in inputs.copied(text)), place
