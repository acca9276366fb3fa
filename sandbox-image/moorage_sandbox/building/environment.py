"""The environment of a source, for this image's Python. Layer: the builder's middle; asks uv, by `uv_commands`.

What is made can be packed: no links, no caches, bytecode that is valid wherever its source lies.
"""

from __future__ import annotations

import sys
from pathlib import Path

from uv import find_uv_bin

from moorage_api import built, platform_wheel, source_tree, uv_commands
from moorage_api.kinds.source import Source
from moorage_sandbox.building.tools import ToolFailed, Tools

# The bytecode names files where they will lie, and is not held against their times, which do not travel. A file that does not compile
# (a template, an old test) is its package's own business: it fails when it is imported.
_COMPILE = """
import compileall, py_compile, sys
place, later = sys.argv[1:]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
compileall.compile_dir(place, quiet=2, force=True, workers=2, invalidation_mode=mode, stripdir=place, prependdir=later)
"""


def python() -> str:
    """The interpreter that environments of this image are for: the one below our own."""
    return str(Path(sys.executable).resolve())


def make(tools: Tools, source: Source, code: Path, folder: Path, *, aside: Path) -> None:
    """Makes the environment of `code` in `folder`; what is needed on the way lies `aside`. Raises ToolFailed, SourceError."""
    version = ".".join(map(str, sys.version_info[:3]))
    if source.python is not None and not f"{version}.".startswith(f"{source.python}."):
        raise ToolFailed(
            f"spec.source.python: the platform's image has Python {version}, not {source.python};"
            " ask for that one, or build an image with yours and name it in spec.image"
        )
    uv, wanted = str(find_uv_bin()), source_tree.requirements(code, source.requirements)
    what = f"the environment for {wanted.named if wanted else 'the SDK'}"
    tools.run([uv, *uv_commands.venv(folder, python())], cwd=code, what="an environment")
    wheel = platform_wheel.build(aside / "wheels")
    arguments = list(wanted.arguments) if wanted else []
    if wanted is not None and wanted.locked:
        exported = aside / "locked.txt"
        tools.run([uv, *uv_commands.export(code, exported)], cwd=code, what=what)
        arguments = ["-r", str(exported)]
    overrides = aside / "overrides.txt"
    overrides.write_text(uv_commands.overrides(wheel.path), "utf-8")
    tools.run([uv, *uv_commands.install(folder, wheel.path, overrides), *arguments], cwd=code, what=what)


def settle(tools: Tools, code: Path, folder: Path) -> None:
    """Makes both folders ready to travel. Raises ToolFailed."""
    for place, later in ((code, built.CODE_AT), (folder, built.ENVIRONMENT_AT)):
        command = [str(folder / "bin" / "python"), "-I", "-c", _COMPILE, str(place), later]
        tools.run(command, cwd=code, what="bytecode")
    for link in [*(folder / "bin").iterdir(), folder / "lib64"]:
        if link.is_symlink():
            link.unlink()  # the interpreter's: made again where it is unpacked
    for note in folder.rglob("*.dist-info/uv_cache.json"):
        note.unlink()  # it holds times, and the same source is to make the same bytes
    (folder / ".lock").unlink(missing_ok=True)
