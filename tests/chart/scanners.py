"""checkov and kubernetes-validate for tests of the chart: in an environment of their own, since their pins are not ours. Layer: I/O rim.

The environment is made once by uv from `scanners.lock` and kept in the cache under the lock's digest. A scan reads the given files and
asks nobody: every way out leads to a closed port of this machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from cluster.node import plan
from moorage_api import uv_commands

LOCK = Path(__file__).with_name("scanners.lock")
INSTALL_SECONDS = 300.0
SCAN_SECONDS = 180.0
NOWHERE = "http://127.0.0.1:9"
NO_REASON = "No comment provided"
"""What checkov says in place of a reason that is missing, or that holds a second `=`."""


class NoScanners(Exception):
    """The scanners cannot be had here; the message says why."""


class Broken(Exception):
    """A scanner gave no answer; the message holds its last lines."""


@dataclass(frozen=True)
class Check:
    """One check of one object. `object`: kind, namespace and name with dots between; `word`: passed, failed or skipped.

    `reason`: of what is skipped, "" when it has none.
    """

    file: str
    object: str
    id: str
    word: str
    reason: str = ""


def python() -> Path:
    """The interpreter of the scanners' environment; made if the cache has none. Raises NoScanners."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    kept = plan.cache().parent / "scanners" / f"{digest}-{sys.implementation.cache_tag}"
    found = kept / "bin" / "python"
    try:
        if not found.exists():  # or made by a Python that is gone
            shutil.rmtree(kept, ignore_errors=True)
            _make(kept)
        subprocess.run(
            [found, "-c", "import checkov, kubernetes_validate"], check=True, capture_output=True, timeout=60
        )
        return found
    except subprocess.CalledProcessError as why:
        raise NoScanners(f"{LOCK.name} gave no environment: {_said(why.stderr, 1)}") from why
    except (OSError, subprocess.TimeoutExpired) as why:
        raise NoScanners(f"{LOCK.name} gave no environment: {type(why).__name__}") from why


def checkov(interpreter: Path, folder: Path) -> list[Check]:
    """Every check of every object in the manifests of `folder`. Raises Broken, also for a file that it cannot read."""
    flags = ["--framework", "kubernetes", "--skip-download", "--skip-results-upload", "--output", "json"]
    done = _run(interpreter, ["checkov.main", "--directory", str(folder), *flags])
    try:
        found = json.loads(done.stdout)
        unread = found["results"]["parsing_errors"]
    except (ValueError, KeyError, TypeError) as why:
        raise Broken(f"checkov ended with {done.returncode}: {_said(done.stderr)}") from why
    if unread:
        raise Broken(f"checkov could not read {unread}")
    return [_check(one) for word in ("passed", "failed", "skipped") for one in found["results"][f"{word}_checks"]]


def validate(interpreter: Path, files: Sequence[Path], versions: Iterable[str]) -> list[str]:
    """What kubernetes-validate complains of, a line each, against the API of each version, unknown fields included. Raises Broken."""
    asked = [word for version in versions for word in ("--kubernetes-version", version)]
    done = _run(interpreter, ["kubernetes_validate", "--strict", "--quiet", *asked, *map(str, files)])
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 1) or any(not line.startswith(("WARN ", "ERROR ")) for line in lines):
        raise Broken(f"kubernetes-validate ended with {done.returncode}: {_said(done.stdout + done.stderr)}")
    return lines


def _check(found: dict[str, Any]) -> Check:
    result = found["check_result"]
    reason = str(result.get("suppress_comment") or "").strip()
    return Check(
        Path(found["file_path"]).name,
        found["resource"],
        found["check_id"],
        result["result"].lower(),
        "" if reason == NO_REASON else reason,
    )


def _run(interpreter: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """One module of the environment, with no settings of this machine's and no way out."""
    with tempfile.TemporaryDirectory(prefix="moorage-scan-") as home:
        env = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": home,
            "TMPDIR": home,
            "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true",
            **{
                name: NOWHERE for scheme in ("http", "https") for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
            },
        }
        command = [str(interpreter), "-m", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SCAN_SECONDS, env=env, cwd=home, check=False
        )


def _make(target: Path) -> None:
    """Beside its place, then moved there: who comes second finds it whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="new-", dir=target.parent))
    environment = uv_commands.kept(os.environ) | uv_commands.FIXED
    try:
        pinned = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(LOCK)]
        install = ["pip", "install", "--python", str(fresh / "bin" / "python"), *pinned]
        for words in (uv_commands.venv(fresh, sys.executable), install):
            command = [find_uv_bin(), *words]
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_SECONDS, env=environment)
        if not target.exists():
            os.replace(fresh, target)
    except OSError:
        if not target.exists():  # else another process was first
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _said(output: str | bytes, lines: int = 4) -> str:
    """Its last lines, no address among them."""
    raw = output.encode() if isinstance(output, str) else output
    return re.sub(r"https?://\S+", "…", uv_commands.last_lines(raw, lines))
