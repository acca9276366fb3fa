"""How uv is asked for an agent's environment: its arguments and its variables. Layer: the floor; pure.

Who runs it decides where it looks for packages; that the platform's own wheel wins over every index is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

FIXED = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_LINK_MODE": "hardlink"}
"""Variables that every call gets."""

# What belongs to this interpreter; with the last two the bytecode would go elsewhere or nowhere.
_NOT_FOR_UV = frozenset(
    {"VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE"}
)


def kept(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of `variables` that uv may see."""
    return {name: value for name, value in variables.items() if name not in _NOT_FOR_UV}


def venv(folder: Path, python: str) -> list[str]:
    """Makes an environment that may be moved. `python`: a version, or a path."""
    return ["venv", "--relocatable", "--allow-existing", "--no-project", "--python", python, str(folder)]


def export(source: Path, target: Path) -> list[str]:
    """Writes uv's lock in `source` as requirements to `target`."""
    flags = ["--frozen", "--no-emit-project", "--no-dev", "--project", str(source), "-q"]
    return ["export", *flags, "-o", str(target)]


def overrides(wheel: Path) -> str:
    """A file of overrides: it wins over whatever version of `moorage` the agent's own files ask for."""
    return f"{_ours(wheel)}\n"


def install(folder: Path, wheel: Path, overridden: Path) -> list[str]:
    """Installs into the environment `folder`; the agent's own requirements are to follow as further arguments."""
    flags = ["--python", str(folder / "bin" / "python"), "--overrides", str(overridden)]
    return ["pip", "install", *flags, _ours(wheel)]


def last_lines(output: bytes, lines: int) -> str:
    """The end of what it said, without credentials that stand in an address."""
    told = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    hidden = re.compile(r"(https?://)[^/\s@]+@")
    return "\n".join(hidden.sub(r"\1", line) for line in told[-lines:])


def _ours(wheel: Path) -> str:
    return f"moorage @ {wheel.as_uri()}"
