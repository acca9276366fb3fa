"""The review engine is an example's own package: it is put on the path here, as `python host.py` does for the agent."""

import io
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "review-agent"
if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))


def _tar_gz(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return packed.getvalue()


def _zip(files: Mapping[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as bundle:
        for name, text in files.items():
            bundle.writestr(name, text)
    return packed.getvalue()


@pytest.fixture
def tar_gz() -> Callable[[Mapping[str, str]], bytes]:
    return _tar_gz


@pytest.fixture
def zipped() -> Callable[[Mapping[str, str]], bytes]:
    return _zip


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Writes files into a named folder and returns it."""

    def write(name: str, files: Mapping[str, str]) -> Path:
        root = tmp_path / name
        for path, text in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        return root

    return write


@pytest.fixture
def published() -> Callable[..., dict[str, Any]]:
    """The pages of an index that holds the given files: project → {file name: content}."""
    import hashlib
    import json

    def publish(
        projects: Mapping[str, Mapping[str, bytes]], base: str = "https://index.test/simple/"
    ) -> dict[str, Any]:
        pages: dict[str, Any] = {}
        for project, files in projects.items():
            rows = []
            for name, content in files.items():
                url = f"https://files.test/{name}"
                pages[url] = ("application/octet-stream", content)
                rows.append({"filename": name, "url": url, "hashes": {"sha256": hashlib.sha256(content).hexdigest()}})
            body = json.dumps({"meta": {"api-version": "1.0"}, "files": rows}).encode()
            pages[f"{base}{project}/"] = ("application/vnd.pypi.simple.v1+json", body)
        return pages

    return publish
