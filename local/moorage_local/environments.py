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

from moorage_api import source_tree, uv_commands
from moorage_api.platform_wheel import PlatformWheel
from moorage_api.source_tree import Requirements, SourceError
from moorage_gateway import package_index

_OUTPUT_LINES = 20
_OUTPUT_LIMIT = 1 << 20
_LOCAL_REQUIREMENT = re.compile(r"^\s*(-e\b|--editable\b|\.|[\w.-]+\s*@\s*file:|file:)", re.MULTILINE)


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
        return self._digest(source, _requirements(source, requirements), python)

    async def of(self, source: Path, *, requirements: str | None, python: str | None) -> AgentEnvironment:
        """The environment for the code in `source`; made if it is not there yet. Raises BuildError."""
        wanted = _requirements(source, requirements)
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

    def _digest(self, source: Path, wanted: Requirements | None, python: str | None) -> str:
        whole = hashlib.sha256()
        named = wanted.named if wanted else ""  # of several lists in one folder
        parts = [sys.version, sys.platform, os.uname().machine, python or sys.executable, self._wheel.digest, named]
        for part in parts:
            whole.update(part.encode() + b"\0")
        for name, content in _inputs(source, wanted):
            whole.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        return whole.hexdigest()[:24]

    async def _build(self, source: Path, wanted: Requirements | None, python: str | None, path: Path) -> None:
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
        command = uv_commands.venv(folder, python or sys.executable)
        await self._run(command, folder, within=60.0, what=f"Python {python or 'of the platform'}")

    async def _install(self, source: Path, wanted: Requirements | None, folder: Path, *, offline: bool) -> None:
        within = self._settings.offline_within if offline else self._settings.online_within
        flags = ["--offline"] if offline else []
        what = wanted.named if wanted else "the SDK's own requirements"
        arguments = list(wanted.arguments) if wanted else []
        if wanted is not None and wanted.locked:
            exported = folder / "locked.txt"
            await self._run([*uv_commands.export(source, exported), *flags], source, within=within, what=what)
            arguments = ["-r", str(exported)]
        override = folder / "overrides.txt"
        await asyncio.to_thread(override.write_text, uv_commands.overrides(self._wheel.path), "utf-8")
        command = [*uv_commands.install(folder, self._wheel.path, override), "--compile-bytecode", *flags, *arguments]
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
            raise BuildError(
                f"the environment for {what} cannot be made; uv says:\n{uv_commands.last_lines(output, _OUTPUT_LINES)}"
            )


def _put_in_place(fresh: Path, path: Path) -> None:
    fresh.chmod(0o755)
    (fresh / "ready").touch()
    shutil.rmtree(path, ignore_errors=True)  # a broken one of an earlier version, never a ready one
    fresh.rename(path)


def _requirements(source: Path, named: str | None) -> Requirements | None:
    try:
        return source_tree.requirements(source, named)
    except SourceError as error:
        raise BuildError(str(error)) from error


def _inputs(source: Path, wanted: Requirements | None) -> list[tuple[str, bytes]]:
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
    given = {"UV_DEFAULT_INDEX": index.index} if index.index else {}
    if index.extra:
        given["UV_INDEX"] = " ".join(index.extra)
    if index.ca_file is not None:
        given["SSL_CERT_FILE"] = str(index.ca_file)
    links = [link for link in environment.get("PIP_FIND_LINKS", "").split() if "://" in link or Path(link).is_dir()]
    if links and "UV_FIND_LINKS" not in environment:
        given["UV_FIND_LINKS"] = ",".join(links)
    return {**uv_commands.kept(environment), **given, **uv_commands.FIXED}


async def _bounded(process: asyncio.subprocess.Process) -> bytes:
    """All output, of which only the end is kept."""
    kept = b""
    if process.stdout is None:
        return kept
    while chunk := await process.stdout.read(1 << 16):
        kept = (kept + chunk)[-_OUTPUT_LIMIT:]
    return kept


def _uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())
