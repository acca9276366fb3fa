"""The command line `moorage` as a user runs it: a process with its environment, its streams and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOORAGE = Path(sys.executable).parent / "moorage"
WITHIN_S = 90.0


@dataclass(frozen=True)
class Said:
    """What a command left."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Commands:
    """Commands against one platform; `home` is where they would keep what they remember."""

    url: str
    key: str
    home: Path

    def environment(self, key: str | None = None) -> dict[str, str]:
        """Of one command."""
        return os.environ | {
            "MOORAGE_URL": self.url,
            "MOORAGE_API_KEY": key or self.key,
            "XDG_CONFIG_HOME": str(self.home),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def run(
        self, *words: str, said: str = "", key: str | None = None, fails: bool | None = False, within: float = WITHIN_S
    ) -> Said:
        """One command with `said` on its stdin. `fails`: whether it must (None: either)."""
        done = subprocess.run(
            [str(MOORAGE), *words],
            input=said,
            capture_output=True,
            text=True,
            env=self.environment(key),
            timeout=within,
            check=False,
        )
        found = Said(done.returncode, done.stdout, done.stderr)
        assert "\nTraceback" not in f"\n{found.err}", found.err  # an agent's own, shown to its author, is indented
        assert fails is None or (found.code != 0) is fails, found
        return found

    def json(self, *words: str, said: str = "") -> Any:
        """The one JSON document that the command prints with --json."""
        return json.loads(self.run(*words, "--json", said=said).out)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on; its owner ends it."""
        return subprocess.Popen(
            [str(MOORAGE), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )
