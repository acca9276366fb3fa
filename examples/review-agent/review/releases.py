"""Two releases of a package from the index: the sdist for its tests, the wheel where the sdist does not say enough."""

import hashlib
from pathlib import Path

from . import archives, dependencies, errors, layout, licences, model
from .budget import Budget
from .index import Index, ReleaseFile, release
from .snapshots import Pair, Snapshot


def fetch(index: Index, project: str, versions: tuple[str, str], scratch: Path, budget: Budget) -> Pair:
    """Raises `NotFound`, `Unreachable`, `Hostile`, `TooLarge`."""
    files = index.files(project, budget)
    wanted = [release(files, project, version) for version in versions]
    old, new = (
        _Release(index, found, version, scratch / side, budget).snapshot()
        for version, found, side in zip(versions, wanted, ("old", "new"), strict=True)
    )
    return Pair(f"{project} {versions[0]}..{versions[1]}", old, new, licences.IndexLicences(index, scratch))


class _Release:
    """The files of one release, fetched as far as they are needed."""

    def __init__(self, index: Index, files: list[ReleaseFile], version: str, folder: Path, budget: Budget) -> None:
        self._index = index
        self._sdist = next((f for f in files if not f.is_wheel), None)
        self._wheel = next((f for f in files if f.is_wheel), None)
        self._version = version
        self._folder = folder
        self._budget = budget
        self._read: list[str] = []
        self._notes: list[str] = []

    def snapshot(self) -> Snapshot:
        source = self._unpacked(self._sdist) if self._sdist else None
        tree = layout.examine(_top(source)) if source else None
        wheel: Path | None = None
        if self._wheel and (tree is None or not tree.packages):
            wheel = self._unpacked(self._wheel)
            code = layout.examine(wheel, wheel=True)
        elif tree is not None:
            code = tree
        else:
            raise errors.NotFound(f"Release {self._version} has no file that a review can read.")
        declared = self._declared(source, wheel)
        tests, root = (tree.tests, tree.root) if tree is not None else (code.tests, code.root)
        side = model.Side(self._version, ", ".join(self._read))
        return Snapshot(side, code, tests, root, declared, tuple(self._notes))

    def _unpacked(self, file: ReleaseFile) -> Path:
        archive = self._index.download(file, self._folder, self._budget)
        size, digest = archive.stat().st_size, hashlib.sha256(archive.read_bytes()).hexdigest()
        into = self._folder / ("wheel" if file.is_wheel else "sdist")
        unpacked = archives.unpack(archive, into, self._budget)
        archive.unlink()
        self._read.append(f"`{file.name}` ({_size(size)}, sha256 `{digest[:12]}…`, verified)")
        if unpacked.oversized:
            self._notes.append(f"{len(unpacked.oversized)} files of `{file.name}` are too large to be read as source.")
        return unpacked.root

    def _declared(self, source: Path | None, wheel: Path | None) -> dependencies.Declared:
        """An sdist's own list where it is binding, else the wheel's, else what can be had."""
        own = licences.metadata_in(source, wheel=False) if source else None
        if own is not None and dependencies.is_reliable(own):
            return dependencies.from_metadata(own, "`PKG-INFO`")
        if self._wheel is not None:
            text = licences.metadata_in(wheel, wheel=True) if wheel else self._index.metadata(self._wheel, self._budget)
            if text is None:
                text = licences.metadata_in(self._unpacked(self._wheel), wheel=True)
            if text is not None:
                return dependencies.from_metadata(text, "the wheel's `METADATA`")
        if own is not None and b"\nRequires-Dist:" in own:
            return dependencies.from_metadata(own, "`PKG-INFO`")
        if source is None:
            return dependencies.Declared("no metadata", {}, notes=("The release has no metadata that can be read.",))
        return dependencies.from_tree(_top(source))


def _top(unpacked: Path) -> Path:
    """An sdist has one folder at its top; where it has not, the whole is the tree."""
    entries = sorted(unpacked.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked


def _size(count: int) -> str:
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"
