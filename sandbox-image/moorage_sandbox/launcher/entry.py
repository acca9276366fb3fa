"""Runs the agent's entry up to the fork point. Layer: middle of the launcher; what it runs is the agent author's code."""

from __future__ import annotations

import importlib
import os
import runpy
import sys
from pathlib import Path


class EntryError(Exception):
    """The entry cannot be run as the manifest names it."""


USUAL = ("host.py", "agent.py", "main.py")  # moorage_api.kinds.source.ENTRYPOINTS; the launcher imports nothing of ours


def usual(code: Path) -> str | None:
    """The entry of a folder that nobody named one for, or None."""
    return next((name for name in USUAL if (code / name).is_file()), None)


def run(entry: str, code: Path) -> None:
    """Runs `entry`, a file in `code` or `module:object`, as the program it is; comes back only when that program has ended."""
    os.chdir(code)
    module, colon, name = entry.partition(":")
    if colon:
        sys.argv = [module]
        _serve_object(module, name)
        return
    path = code / entry
    if not path.is_file():
        raise EntryError(f"source.entrypoint names {entry!r}, and there is no such file in the code folder")
    sys.argv = [str(path)]
    runpy.run_path(str(path), run_name="__main__")


def _serve_object(module: str, name: str) -> None:
    loaded = importlib.import_module(module)
    target = loaded
    for part in name.split("."):
        if not hasattr(target, part):
            raise EntryError(f"source.entrypoint names {module}:{name}, and {part!r} is not in it")
        target = getattr(target, part)
    hosted_agent = importlib.import_module("moorage").HostedAgent
    hosted = target if isinstance(target, hosted_agent) else hosted_agent(target)
    hosted.serve()
