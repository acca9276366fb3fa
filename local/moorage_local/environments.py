"""Agents' environments: one a set of requirements, resolved by uv, never the platform's own packages.

Layer: local; called by deployments. Kept by hash in the state folder, so that a second start finds them made and two agents with
conflicting versions run side by side. Built in a folder of its own and renamed, so that there is no half-made one.

    BuildError   uv refused; the message has its last lines
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from moorage_gateway import package_index
from moorage_local.platform_wheel import PlatformWheel

_OUTPUT_LINES = 20
_OUTPUT_LIMIT = 1 << 20
_LOCAL_REQUIREMENT = re.compile(r"^\s*(-e\b|--editable\b|\.|[\w.-]+\s*@\s*file:|file:)", re.MULTILINE)

# What belongs to this interpreter; with the last two the bytecode would go elsewhere or nowhere.
_NOT_FOR_UV = {
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONPYCACHEPREFIX",
    "PYTHONDONTWRITEBYTECODE",
}

# What is looked for in a source that names no requirements, in this order.
FOUND = ("uv.lock", "pylock.toml", "requirements.lock", "requirements.txt", "pyproject.toml")


class BuildError(RuntimeError):
    """An environment cannot be made; the message says which file asked for it and what uv answered."""


@dataclass(frozen=True)
class BuildSettings:
    """Bounds of one build, in seconds. `offline`: whether uv's cache is tried before the network."""

    offline_within: float = 120.0
    online_within: float = 900.0
    offline: bool = True


@dataclass(frozen=True)
class AgentEnvironment:
    """A finished environment: its folder, its interpreter, and the hash that names it."""

    path: Path
    digest: str

    @property
    def python(self) -> Path:
        """The interpreter inside."""
        return self.path / "bin" / "python"


@dataclass(frozen=True)
class _Wanted:
    arguments: tuple[str, ...]
    named: str
    locked: bool = False


class Environments:
    """Makes and keeps environments below `root`. Equal requests at one time share one build."""

    def __init__(
        self,
        root: Path,
        wheel: PlatformWheel,
        index: package_index.Settings,
        settings: BuildSettings,
        *,
        variables: Mapping[str, str],
    ) -> None:
        self._root = root
        self._wheel = wheel
        self._settings = settings
        self._uv = _uv()
        self._variables = _variables(variables, index)
        self._building: dict[str, asyncio.Lock] = {}

    def digest(self, source: Path, *, requirements: str | None, python: str | None) -> str:
        """The hash that will name the environment of this code, before it is made. Raises BuildError."""
        return self._digest(source, _wanted(source, requirements), python)

    async def of(self, source: Path, *, requirements: str | None, python: str | None) -> AgentEnvironment:
        """The environment for the code in `source`; made if it is not there yet. Raises BuildError."""
        wanted = _wanted(source, requirements)
        digest = self._digest(source, wanted, python)
        path = self._root / digest
        lock = self._building.setdefault(digest, asyncio.Lock())
        async with lock:
            if not (path / "ready").is_file():
                await self._build(source, wanted, python, path)
        os.utime(path / "ready")
        return AgentEnvironment(path, digest)

    def remove_unused(self, used: set[str], *, now: float, unused_for: float) -> list[str]:
        """Removes environments that nothing uses and nobody asked for since `unused_for` seconds; returns their hashes."""
        removed = []
        for path in self._root.iterdir():
            marker = path / "ready"
            idle = now - (marker.stat().st_mtime if marker.is_file() else path.stat().st_mtime)
            if path.name not in used and idle > unused_for and path.name not in self._building:
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path.name)
        return removed

    def _digest(self, source: Path, wanted: _Wanted | None, python: str | None) -> str:
        whole = hashlib.sha256()
        parts = [sys.version, sys.platform, os.uname().machine, python or sys.executable, self._wheel.digest]
        for part in parts:
            whole.update(part.encode() + b"\0")
        for name, content in _inputs(source, wanted):
            whole.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        return whole.hexdigest()[:24]

    async def _build(self, source: Path, wanted: _Wanted | None, python: str | None, path: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".building-", dir=self._root))
        try:
            await self._venv(fresh, python)
            if self._settings.offline:
                try:
                    await self._install(source, wanted, fresh, offline=True)
                except BuildError:
                    await self._install(source, wanted, fresh, offline=False)
            else:
                await self._install(source, wanted, fresh, offline=False)
            await asyncio.to_thread(_put_in_place, fresh, path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    async def _venv(self, folder: Path, python: str | None) -> None:
        command = ["venv", "--relocatable", "--allow-existing", "--no-project", "--python", python or sys.executable]
        await self._run([*command, str(folder)], folder, within=60.0, what=f"Python {python or 'of the platform'}")

    async def _install(self, source: Path, wanted: _Wanted | None, folder: Path, *, offline: bool) -> None:
        within = self._settings.offline_within if offline else self._settings.online_within
        flags = ["--offline"] if offline else []
        what = wanted.named if wanted else "the SDK's own requirements"
        arguments = list(wanted.arguments) if wanted else []
        if wanted is not None and wanted.locked:
            exported = folder / "locked.txt"
            export = ["export", "--frozen", "--no-emit-project", "--no-dev", "--project", str(source), "-q"]
            await self._run([*export, *flags, "-o", str(exported)], source, within=within, what=what)
            arguments = ["-r", str(exported)]
        # The override wins over whatever version of `moorage` the agent's own files ask for.
        override = folder / "overrides.txt"
        await asyncio.to_thread(override.write_text, f"moorage @ {self._wheel.path.as_uri()}\n", "utf-8")
        command = ["pip", "install", "--python", str(folder / "bin" / "python"), "--compile-bytecode", "--overrides"]
        command += [str(override), *flags, *arguments, f"moorage @ {self._wheel.path.as_uri()}"]
        await self._run(command, source, within=within, what=what)

    async def _run(self, command: Sequence[str], cwd: Path, *, within: float, what: str) -> None:
        process = await asyncio.create_subprocess_exec(
            self._uv,
            *command,
            cwd=cwd,
            env=self._variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(within):
                output = await _bounded(process)
                code = await process.wait()
        except TimeoutError:
            raise BuildError(f"the environment for {what} was not made within {within:g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if code != 0:
            raise BuildError(f"the environment for {what} cannot be made; uv says:\n{_last_lines(output)}")


def _put_in_place(fresh: Path, path: Path) -> None:
    fresh.chmod(0o755)
    (fresh / "ready").touch()
    shutil.rmtree(path, ignore_errors=True)  # a broken one of an earlier version, never a ready one
    fresh.rename(path)


def _wanted(source: Path, requirements: str | None) -> _Wanted | None:
    if requirements is not None:
        if not (source / requirements).is_file():
            raise BuildError(f"spec.source.requirements: there is no file {requirements} in the source")
        return _of_file(requirements)
    for name in FOUND:
        if (source / name).is_file() and (name != "uv.lock" or (source / "pyproject.toml").is_file()):
            return _of_file(name)
    return None


def _of_file(name: str) -> _Wanted:
    if Path(name).name == "uv.lock":
        return _Wanted((), name, locked=True)
    return _Wanted(("-r", name), name)


def _inputs(source: Path, wanted: _Wanted | None) -> list[tuple[str, bytes]]:
    """Every file that can change what is installed: those beside the named one that it may include, or the whole tree."""
    if wanted is None:
        return []
    main = (source / wanted.named).read_bytes()
    if _LOCAL_REQUIREMENT.search(main.decode("utf-8", "replace")) and wanted.named.endswith((".txt", ".lock", ".in")):
        paths = [p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    else:
        folder = (source / wanted.named).parent
        patterns = ("*.txt", "*.in", "*.lock", "*.toml")
        paths = [p for pattern in patterns for p in folder.glob(pattern) if p.is_file()]
    return [(p.relative_to(source).as_posix(), p.read_bytes()) for p in sorted(set(paths))]


def _variables(environment: Mapping[str, str], index: package_index.Settings) -> dict[str, str]:
    """The environment of uv: this machine's own, with the index, links and CA file that its pip is set to."""
    kept = {name: value for name, value in environment.items() if name not in _NOT_FOR_UV}
    fixed = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_LINK_MODE": "hardlink"}
    given = {"UV_DEFAULT_INDEX": index.index} if index.index else {}
    if index.extra:
        given["UV_INDEX"] = " ".join(index.extra)
    if index.ca_file is not None:
        given["SSL_CERT_FILE"] = str(index.ca_file)
    links = [link for link in environment.get("PIP_FIND_LINKS", "").split() if "://" in link or Path(link).is_dir()]
    if links and "UV_FIND_LINKS" not in environment:
        given["UV_FIND_LINKS"] = ",".join(links)
    return {**kept, **given, **fixed}


async def _bounded(process: asyncio.subprocess.Process) -> bytes:
    """All output, of which only the end is kept."""
    kept = b""
    if process.stdout is None:
        return kept
    while chunk := await process.stdout.read(1 << 16):
        kept = (kept + chunk)[-_OUTPUT_LIMIT:]
    return kept


def _last_lines(output: bytes) -> str:
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    hidden = re.compile(r"(https?://)[^/\s@]+@")
    return "\n".join(hidden.sub(r"\1", line) for line in lines[-_OUTPUT_LINES:])


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
