"""The conformance suite of MCP (npm `@modelcontextprotocol/conformance`) in an environment that a lock pins. Layer: I/O rim.

Installed once by `npm ci` from `conformance/`, kept in the cache under the lock's digest; no script of a package is run. It speaks to the
given URL and asks nobody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from cluster.node import plan

LOCKED = Path(__file__).with_name("conformance")
INSTALL_SECONDS = 300.0
RUN_SECONDS = 240.0
_LINE = re.compile(r"^(✓|✗) ([a-z0-9-]+): (\d+) passed, (\d+) failed", re.MULTILINE)
_UNSCORED = re.compile(r"^  [✓✗] ([a-z0-9-]+) \(", re.MULTILINE)


class NoSuite(Exception):
    """It cannot be had here; the message says why."""


def installed() -> Path:
    """The folder with its `node_modules`; made if the cache has none. Raises NoSuite."""
    digest = hashlib.sha256((LOCKED / "package-lock.json").read_bytes()).hexdigest()[:16]
    kept = plan.cache().parent / "mcp-conformance" / digest
    if not kept.exists():
        _install(kept)
    _bun(kept)
    return kept


def _install(kept: Path) -> None:
    if shutil.which("npm") is None:
        raise NoSuite("there is no npm on PATH")
    kept.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=kept.parent))
    try:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCKED / name, fresh / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=fresh, check=True, capture_output=True, timeout=INSTALL_SECONDS)
        if not kept.exists():
            os.replace(fresh, kept)
    except (OSError, subprocess.SubprocessError) as why:
        if not kept.exists():  # else another process was first
            raise NoSuite(f"npm gave no environment: {type(why).__name__}") from why
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _bun(folder: Path) -> Path:
    """The program that fits this machine: its package's own script, which would choose, is not run. Raises NoSuite."""
    for found in sorted((folder / "node_modules" / "@oven").glob("*/bin/bun")):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run([found, "--version"], check=True, capture_output=True, timeout=30)
            return found
    raise NoSuite("no program of bun runs on this machine")


def run(folder: Path, url: str, revision: str) -> dict[str, bool]:
    """Every scenario that counts for this revision of the protocol, by whether it passed."""
    suite = folder / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    command = [_bun(folder), suite, "server", "--url", url, "--requirements", revision]
    with tempfile.TemporaryDirectory(prefix="moorage-conformance-") as home:
        env = {"PATH": os.environ.get("PATH", ""), "HOME": home, "TMPDIR": home}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RUN_SECONDS, env=env, cwd=home, check=False
        )
    _, _, summary = done.stdout.partition("=== SUMMARY ===")
    scored, _, rest = summary.partition("Total:")
    unscored = set(_UNSCORED.findall(rest))
    found = {name: mark == "✓" for mark, name, _, _ in _LINE.findall(scored) if name not in unscored}
    assert found, f"the suite told nothing: {done.stdout[-500:]}{done.stderr[-500:]}"
    return found
