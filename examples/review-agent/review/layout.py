"""Where things lie in a source tree: its import packages, their modules, its tests. Reads names only."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

NEVER_PACKAGES = frozenset(
    "tests test testing docs doc example examples benchmark benchmarks bench script scripts tool tools utils "
    "requirements ci build dist setup conftest noxfile tasks fabfile versioneer ez_setup".split()
)
NAMESPACE_DEPTH = 3


@dataclass(frozen=True)
class Module:
    """One file of an import package: its dotted name and its path under the tree."""

    name: str
    path: Path
    shown: str
    is_package: bool


@dataclass(frozen=True)
class Layout:
    """`search` is the folder to put on a search path; `packages` are dotted import names."""

    root: Path
    search: Path
    packages: tuple[str, ...]
    modules: tuple[Module, ...]
    tests: tuple[Path, ...]

    @property
    def source_bytes(self) -> int:
        """Size of all modules."""
        return sum(module.path.stat().st_size for module in self.modules)


def is_test(path: PurePosixPath) -> bool:
    """Whether a file belongs to the tests, by the names that pytest and unittest projects use."""
    name = path.name
    if name == "conftest.py" or (name.startswith("test_") and name.endswith(".py")) or name.endswith("_test.py"):
        return True
    return "tests" in path.parts[:-1] or path.parts[0] in ("test", "testing")


def examine(root: Path, wheel: bool = False) -> Layout:
    """The layout of an unpacked sdist, wheel or revision. `packages` is empty if nothing importable was found."""
    files = sorted(_sources(root))
    tests = tuple(root / f for f in files if f.suffix == ".py" and is_test(f))
    bases = [PurePosixPath(".")] if wheel else [PurePosixPath(b) for b in ("src", "lib", "python", ".")]
    for base in bases:
        names = _packages(files, base)
        if names:
            search = root / base
            modules = tuple(_modules(root, files, base, names))
            return Layout(root, search, names, modules, tests)
    return Layout(root, root, (), (), tests)


def _sources(root: Path) -> Iterator[PurePosixPath]:
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".")]
        here = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from (here / name for name in names if name.endswith((".py", ".pyi")))


def _packages(files: list[PurePosixPath], base: PurePosixPath) -> tuple[str, ...]:
    """Folders with an `__init__`, the outermost only, also inside namespace folders; else single modules."""
    found: set[tuple[str, ...]] = set()
    singles: set[str] = set()
    for file in files:
        if not file.is_relative_to(base):
            continue
        parts = file.relative_to(base).parts
        if parts[0].removesuffix(".py") in NEVER_PACKAGES or not all(_identifier(p) for p in parts[:-1]):
            continue
        if len(parts) == 1 and file.suffix == ".py" and _identifier(file.stem) and not is_test(file):
            singles.add(file.stem)
        elif parts[-1] in ("__init__.py", "__init__.pyi") and 2 <= len(parts) <= NAMESPACE_DEPTH + 1:
            found.add(parts[:-1])
    if base.parts and not found:
        return tuple(sorted(singles))
    outer = [p for p in found if not any(p[:n] in found for n in range(1, len(p)))]
    if base == PurePosixPath("."):
        outer = [p for p in outer if p[0] not in ("src", "lib", "python")] or outer
    return tuple(sorted(".".join(p) for p in outer)) or tuple(sorted(singles))


def _modules(
    root: Path, files: list[PurePosixPath], base: PurePosixPath, packages: tuple[str, ...]
) -> Iterator[Module]:
    for file in files:
        if file.suffix != ".py" or is_test(file) or not file.is_relative_to(base):
            continue
        parts = file.relative_to(base).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if any(name == p or name.startswith(p + ".") for p in packages):
            yield Module(name, root / file, file.as_posix(), is_package)


def _identifier(text: str) -> bool:
    return text.isidentifier()
