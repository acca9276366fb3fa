"""Agents' code: from what a manifest names to a folder that no longer changes.

Layer: local; called by deployments. A folder is copied (so that saving a file never changes a running sandbox), a bundle unpacked by
its digest, a git source cloned at one commit. Snapshots are kept by digest and shared.

    SourceError   the code cannot be had (`moorage_api.source_tree`)
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from moorage_api import bundles
from moorage_api.kinds.source import Git, Source
from moorage_api.source_tree import SourceError

# Writes the object under a key to a path; False when there is none. The store's `get_file`.
Fetch = Callable[[str, Path], Awaitable[bool]]

_GIT_WITHIN = 300.0
_GIT_LINES = 10


@dataclass(frozen=True)
class SourceTree:
    """A snapshot that never changes: its folder, its digest, and the commit for git sources."""

    path: Path
    digest: str
    commit: str | None = None


async def resolve(source: Source, *, base: Path | None, tenant: str, root: Path, fetch: Fetch | None) -> SourceTree:
    """The snapshot below `root`. `base` is the manifest's folder, `fetch` reads bundles. Raises SourceError."""
    if source.path is not None:
        return await asyncio.to_thread(_from_folder, source.path, base, root)
    if source.bundle is not None:
        return await _from_bundle(source.bundle, tenant, root, fetch)
    if source.git is not None:
        return await _from_git(source.git, root)
    raise SourceError("spec.source: give path, bundle or git")


def _from_folder(path: str, base: Path | None, root: Path) -> SourceTree:
    if base is None:
        raise SourceError("spec.source.path works beside a file on this machine only; `moorage up` uploads the folder")
    folder = (base / path).resolve()
    if not folder.is_dir():
        raise SourceError(f"spec.source.path: there is no folder {folder}")
    try:
        files = bundles.files_of(folder)
        if not files:
            raise SourceError(f"spec.source.path: {folder} has no files")
        digest = bundles.tree_digest(files)
    except bundles.BundleError as error:
        raise SourceError(f"spec.source.path: {error}") from error
    target = root / digest[:32]
    if not target.is_dir():
        _copy(files, target)
        if bundles.tree_digest(bundles.files_of(target)) != digest:
            shutil.rmtree(target, ignore_errors=True)
            raise SourceError(f"{folder} changed while it was copied; it is read again on the next save")
    return SourceTree(target, digest)


def _copy(files: list[bundles.SourceFile], target: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".copying-", dir=target.parent))
    try:
        for file in files:
            place = fresh / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.path, place)
            place.chmod(0o755 if file.executable else 0o644)
        fresh.chmod(0o755)
        try:
            fresh.rename(target)
        except OSError:
            if not target.is_dir():  # else somebody else was faster with the same bytes
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


async def _from_bundle(bundle: str, tenant: str, root: Path, fetch: Fetch | None) -> SourceTree:
    digest = bundle.removeprefix("sha256:")
    target = root / digest[:32]
    if target.is_dir():
        return SourceTree(target, digest)
    if fetch is None:
        raise SourceError("spec.source.bundle: this platform has no object store to read bundles from")
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=root) as folder:
        archive = Path(folder) / "bundle.tar.gz"
        if not await fetch(f"t/{tenant}/bundles/{digest}.tar.gz", archive):
            raise SourceError(f"spec.source.bundle: {bundle[:20]}… was never uploaded; run `moorage up` again")
        try:
            await asyncio.to_thread(_unpack, archive, target, digest)
        except bundles.BundleError as error:
            raise SourceError(f"spec.source.bundle: {error}") from error
    return SourceTree(target, digest)


def _unpack(archive: Path, target: Path, digest: str) -> None:
    with archive.open("rb") as file:
        bundles.unpack(file, target, digest=digest)


async def _from_git(git: Git, root: Path) -> SourceTree:
    if shutil.which("git") is None:
        raise SourceError("spec.source.git: git is not installed on this machine")
    with tempfile.TemporaryDirectory(prefix=".cloning-", dir=root) as folder:
        clone = Path(folder) / "clone"
        await _git("init", "-q", str(clone), what=git.url)
        await _git("-C", str(clone), "remote", "add", "origin", git.url, what=git.url)
        await _git("-C", str(clone), "fetch", "-q", "--depth", "1", "origin", git.ref, what=f"{git.ref} of {git.url}")
        await _git("-C", str(clone), "-c", "core.symlinks=false", "checkout", "-q", "FETCH_HEAD", what=git.ref)
        commit = (await _git("-C", str(clone), "rev-parse", "HEAD", what=git.ref)).strip()
        place = (clone / git.path).resolve()
        if not place.is_relative_to(clone.resolve()) or not place.is_dir():
            raise SourceError(f"spec.source.git.path: there is no folder {git.path} at {commit[:12]}")
        tree = await asyncio.to_thread(_from_folder, ".", place, root)
    return SourceTree(tree.path, tree.digest, commit)


async def _git(*arguments: str, what: str) -> str:
    # No hooks, prompts or other protocols: the URL comes from a manifest.
    variables = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "https:http:ssh:file", "LC_ALL": "C"}
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        env=variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_GIT_WITHIN):
            output, errors = await process.communicate()
    except TimeoutError:
        raise SourceError(f"spec.source.git: no answer for {what} within {_GIT_WITHIN:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = "\n".join(errors.decode("utf-8", "replace").splitlines()[-_GIT_LINES:])
        raise SourceError(f"spec.source.git: cannot get {what}; git says:\n{lines}")
    return output.decode("utf-8", "replace")
