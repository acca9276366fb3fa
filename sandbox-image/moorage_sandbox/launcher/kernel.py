"""The system calls Python 3.11 has no name for, by ctypes; each raises OSError. Layer: floor of the launcher."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2

_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class Kernel:
    """The machine's kernel as one process sees it."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def unshare(self, flags: int) -> None:
        """Leaves the namespaces in `flags` for fresh ones."""
        self._check(self._libc.unshare(ctypes.c_int(flags)), "unshare")

    def mount(self, source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        """mount(2)."""
        encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
        options = None if data is None else data.encode()
        self._check(self._libc.mount(*encoded, ctypes.c_ulong(flags), options), f"mount {source} on {target}")

    def bind(self, source: str, target: str, *, read_only: bool = False) -> None:
        """Binds `source` on `target`; read-only by a remount that keeps the flags a user namespace may not drop."""
        self.mount(source, target, None, MS_BIND)
        if read_only:
            self.mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | self._locked_flags(target))

    def prctl(self, option: int, *arguments: int) -> None:
        """prctl(2), missing arguments zero."""
        padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
        self._check(self._libc.prctl(ctypes.c_int(option), *padded), f"prctl {option}")

    def map_user(self, uid: int, gid: int) -> None:
        """Maps one user and group of the parent namespace to themselves, right after `unshare(CLONE_NEWUSER)`."""
        own = Path("/proc/self")
        (own / "setgroups").write_text("deny")
        (own / "uid_map").write_text(f"{uid} {uid} 1")
        (own / "gid_map").write_text(f"{gid} {gid} 1")

    def raise_loopback(self) -> None:
        """Brings `lo` up in this network namespace."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = struct.pack("16sh14x", b"lo", 0)
            flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))

    def drop_capabilities(self) -> None:
        """Gives up every capability for good: bounding, ambient, inheritable, permitted, effective; and no_new_privs."""
        for capability in range(_LAST_CAPABILITY + 1):
            try:
                self.prctl(PR_CAPBSET_DROP, capability)
            except OSError:  # beyond the last one this kernel knows
                break
        self.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
        self._check(self._libc.capset(header, bytes(24)), "capset")
        self.prctl(PR_SET_NO_NEW_PRIVS, 1)

    def filter_syscalls(self, program: bytes) -> None:
        """Installs a seccomp program (8 bytes an instruction) on this process and all it will fork."""
        instructions = ctypes.create_string_buffer(program, len(program))
        wrapped = _FilterProgram(len(program) // 8, ctypes.addressof(instructions))
        self.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(wrapped))

    def _locked_flags(self, target: str) -> int:
        present = os.statvfs(target).f_flag
        wanted = ((os.ST_NOSUID, MS_NOSUID), (os.ST_NODEV, MS_NODEV), (os.ST_NOEXEC, MS_NOEXEC))
        return sum(mount_flag for seen, mount_flag in wanted if present & seen)

    def _check(self, result: int, what: str) -> None:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")
