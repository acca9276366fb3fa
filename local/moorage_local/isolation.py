"""What this machine can put between sandboxes. Layer: local provider, below `enclosure` and `zygote`.

Two modes: *isolated* (one bubblewrap a revision, namespaces a sandbox) and *plain* (processes only). `Isolation.not_limited` is what to
print at start: sentences about what does not hold here. The real thing is tried once by `probe.detect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from moorage_local import cgroups

Mode = Literal["isolated", "plain"]


class IsolationError(Exception):
    """A zygote cannot be started as asked, and why."""


@dataclass(frozen=True)
class Isolation:
    """What holds on this machine. `limits`: resource → how it is kept; `why_plain`: what `detect` ran into."""

    mode: Mode
    limits: Mapping[str, str]
    not_limited: tuple[str, ...]
    bubblewrap: Path | None = None
    as_root: bool = False
    groups: cgroups.Cgroups | None = field(default=None, repr=False)
    why_plain: str = ""


def describe(
    mode: Mode, groups: cgroups.Cgroups | None, *, as_root: bool, bubblewrap: Path | None = None, why_plain: str = ""
) -> Isolation:
    """The description with its sentences. Pure.

    mode     | control group of memory / cpu / pids | said to be not limited
    ---------|--------------------------------------|--------------------------------------------------------------
    any      | missing one                          | that resource, with the rlimit that stands in for it
    isolated | –                                    | disk (measured, not enforced)
    plain    | –                                    | disk, files, processes, network, user
    """
    have = groups.controllers if groups is not None else frozenset()
    by_group = f"cgroup v{groups.version}" if groups is not None else ""
    limits = {name: by_group for name in cgroups.CONTROLLERS if name in have} | {"files": "rlimit", "core": "rlimit"}
    said: list[str] = []
    if mode == "plain":
        said.append(f"NOT ISOLATED: {why_plain}.")
        said.append("Agents see the files, processes and network of the user that runs the platform, and each other's.")
        if as_root:
            said.append("Agents run as root: start the platform as an ordinary user.")
    else:
        limits |= {"tmp": "tmpfs", "processes": "namespaces", "network": "namespaces"}
    if mode == "plain" and not have:
        said.append("A daemon that an agent detached may outlive a platform that was itself killed with SIGKILL.")
    if "memory" not in have:
        limits["memory"] = "rlimit"
        said.append(
            "Memory is limited for each process, not for a sandbox as a whole (no writable memory control group)."
        )
    if "pids" not in have:
        limits["pids"] = "rlimit"
        own = "a sandbox" if mode == "isolated" else "the user that runs the platform, everything of theirs counted"
        said.append(f"The number of processes is limited by rlimit, for {own} (no writable pids control group).")
    if "cpu" not in have:
        said.append("CPU is not limited (no writable cpu control group).")
    said.append("Disk use of /workspace and $HOME is measured, not enforced by the kernel.")
    if not have:
        said.append("For control groups run under: systemd-run --user --scope -p Delegate=yes …")
    return Isolation(mode, limits, tuple(said), bubblewrap, as_root, groups, why_plain)
