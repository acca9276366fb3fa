"""A sandbox's namespaces and mounts, made by its own init inside the zygote's bubblewrap. Layer: floor of the launcher.

What it relies on: the caller is single-threaded, and bubblewrap has made `/workspace`, `/home/agent`, `/tmp`, `/dev/shm`, `/dev/pts` as
places to mount on, everything else read-only, and the volumes of this agent at `VOLUMES`.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from . import kernel, syscalls

VOLUMES = "/volumes"
WORKSPACE = "/workspace"
HOME = "/home/agent"
KEPT = "/run/moorage/kept"
TMP = "/tmp"  # a fresh one in each sandbox

_APART = (
    kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
_PLAIN_FILES = kernel.MS_NOSUID | kernel.MS_NODEV
_READ_ONLY_PROC = ("sys", "irq", "bus", "fs", "sysrq-trigger")
_HIDDEN_PROC = ("keys", "key-users", "kcore", "timer_list", "latency_stats", "sched_debug", "kallsyms", "modules")


def leave(calls: kernel.Kernel) -> None:
    """Enters a user namespace of its own and, owned by that, all the others; the next fork is PID 1 there."""
    uid, gid = os.getuid(), os.getgid()
    calls.unshare(kernel.CLONE_NEWUSER)
    calls.map_user(uid, gid)
    calls.unshare(_APART)


def furnish(calls: kernel.Kernel, volume: str, tmp_bytes: int) -> None:
    """Mounts what the session owns and covers what it does not. `volume` is the volume's name in `VOLUMES`."""
    if "/" in volume or volume in {"", ".", ".."}:
        raise ValueError(f"{volume!r} names no volume")
    calls.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    calls.bind(f"{VOLUMES}/{volume}/workspace", WORKSPACE)
    calls.bind(f"{VOLUMES}/{volume}/home", HOME)
    # The sessions beside this one: covered, and nobody inside can uncover them. Not unmounted, since a mount taken over from an outer
    # user namespace may only be covered.
    calls.mount("tmpfs", VOLUMES, "tmpfs", _PLAIN_FILES | kernel.MS_NOEXEC | kernel.MS_RDONLY, "size=4k,mode=555")
    calls.mount("tmpfs", TMP, "tmpfs", _PLAIN_FILES, f"size={tmp_bytes},mode=1777")
    calls.mount("tmpfs", "/dev/shm", "tmpfs", _PLAIN_FILES, f"size={tmp_bytes},mode=1777")
    calls.mount(
        "devpts", "/dev/pts", "devpts", kernel.MS_NOSUID | kernel.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"
    )
    calls.mount("proc", "/proc", "proc", _PLAIN_FILES | kernel.MS_NOEXEC)
    # No further user namespaces: with one, a process would hold capabilities again, if only over itself.
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    for name in _READ_ONLY_PROC:
        if os.path.exists(f"/proc/{name}"):
            calls.bind(f"/proc/{name}", f"/proc/{name}", read_only=True)
    for name in _HIDDEN_PROC:
        if os.path.exists(f"/proc/{name}"):
            calls.bind("/dev/null", f"/proc/{name}")


def restore(calls: kernel.Kernel, folders: tuple[str, ...]) -> None:
    """Shows what the fresh mounts have covered and the interpreter needs; `KEPT` has the n-th of `folders` as n."""
    for number, folder in enumerate(folders):
        os.makedirs(folder, exist_ok=True)
        calls.bind(f"{KEPT}/{number}", folder)


def lock(calls: kernel.Kernel) -> bool:
    """Gives up what the steps above needed, for this process and all it forks. False: no syscall filter for this machine."""
    calls.drop_capabilities()
    program = syscalls.program(os.uname().machine)
    if program is not None:
        calls.filter_syscalls(program)
    # Its memory and descriptors are closed to the agent, which runs under the same user.
    calls.prctl(kernel.PR_SET_DUMPABLE, 0)
    return program is not None


def listen(port: int) -> socket.socket:
    """The door of the shim: a listener on loopback; port 0 takes a free one."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(128)
    listener.setblocking(False)
    return listener
