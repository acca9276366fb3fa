"""The door of the launcher: makes its own folder a package, whatever the agent's environment holds, and runs it."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

PACKAGE = "moorage_launcher"


def load() -> None:
    """Registers this folder as `moorage_launcher`: the agent's own modules may have any other name."""
    here = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{here} is not a launcher folder")
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    load()
    sys.exit(importlib.import_module(f"{PACKAGE}.command").main(sys.argv[1:]))
