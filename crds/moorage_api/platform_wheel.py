"""The platform's own wheel for agents' environments: `moorage` and `moorage_api`, built from the files this process runs.

Layer: the floor; stdlib only. Never from an index: an agent's SDK is always the one its platform speaks. Written byte for byte the
same for the same files, so its hash can name environments.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("moorage", "moorage_api")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class PlatformWheel:
    """A finished wheel: its file and the sha256 (hex) of its bytes."""

    path: Path
    digest: str


def build(folder: Path) -> PlatformWheel:
    """Writes the wheel below `folder`/DIGEST; an equal one that is there already is kept."""
    version = importlib.metadata.version("moorage")
    name = f"moorage-{version}-py3-none-any.whl"
    data = _wheel(version)
    digest = hashlib.sha256(data).hexdigest()
    path = folder / digest[:16] / name
    if not path.is_file():
        _put(path, data)
    return PlatformWheel(path, digest)


def requirements() -> list[str]:
    """What the SDK itself needs: the base dependencies, without those of the extras."""
    listed = importlib.metadata.requires("moorage") or []
    return [line for line in listed if "extra ==" not in line.replace("extra==", "extra ==")]


def _wheel(version: str) -> bytes:
    info = f"moorage-{version}.dist-info"
    files: list[tuple[str, bytes]] = []
    for package in PACKAGES:
        root = _root(package)
        paths = (p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.suffix != ".pyc")
        files += [(f"{package}/{p.relative_to(root).as_posix()}", p.read_bytes()) for p in paths]
    needs = "".join(f"Requires-Dist: {line}\n" for line in requirements())
    metadata = f"Metadata-Version: 2.3\nName: moorage\nVersion: {version}\nRequires-Python: >=3.11\n{needs}"
    files.append((f"{info}/METADATA", metadata.encode()))
    wheel = "Wheel-Version: 1.0\nGenerator: moorage\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files.append((f"{info}/WHEEL", wheel.encode()))
    files.sort()
    record = "".join(f"{name},sha256={_b64(data)},{len(data)}\n" for name, data in files)
    files.append((f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return out.getvalue()


def _put(path: Path, data: bytes) -> None:
    """A whole file or none: others may be writing the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(fresh, path)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not installed beside the platform")
    return Path(next(iter(spec.submodule_search_locations)))
