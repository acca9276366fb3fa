"""What an image is built from, as one name: the same inputs make the same image. Layer: pure but for reading files.

Limits: COPY with plain paths, as the Dockerfiles here have it; no ADD, no patterns.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def key(dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> str:
    """A digest of the Dockerfile, its build arguments, and all files that it copies out of the context."""
    text = dockerfile.read_text()
    digest = hashlib.sha256(f"{sorted(arguments.items())}\n{text}".encode())
    for source in copied(text):
        for file in _files(context / source):
            digest.update(f"\n{file.relative_to(context)} {file.stat().st_mode & 0o777:o}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def copied(text: str) -> Iterator[str]:
    """Paths of the context, in the order of the Dockerfile's text."""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not any(word.startswith("--from=") for word in words):
            yield from (word for word in words[1:-1] if not word.startswith("--"))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, inner, names in os.walk(path):
        inner[:] = sorted(name for name in inner if name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(names))
