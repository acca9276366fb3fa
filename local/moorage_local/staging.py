"""Enters a control group, shows an unprivileged user what only root can reach, becomes that user, and runs a command. stdlib only.

Layer: a script of the local provider, run as `python -I staging.py JSON`, one for each zygote. With `uid` (the provider is root) it makes
a mount namespace of its own and binds every source to `STAGE/<n>` there: bubblewrap, started as `uid`, could not walk through a closed home
folder to the interpreter. It never touches the mounts of the host.

    {"groups": [files to write 0 to], "uid": null | n, "sources": [paths], "tools": {name: path}, "argv": [...]}
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

STAGE = "/tmp"  # covered by a tmpfs that only this process and its children see
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19


def main(argument: str) -> None:
    """Does what `argument` says and is replaced by its command."""
    wanted = json.loads(argument)
    for file in wanted["groups"]:
        Path(file).write_text("0")
    if wanted["uid"] is not None:
        stage(wanted["sources"], wanted["tools"])
        become(wanted["uid"])
    os.execv(wanted["argv"][0], wanted["argv"])


def stage(sources: list[str], tools: dict[str, str]) -> None:
    """Binds `sources` to STAGE/0, STAGE/1, … and `tools` to STAGE/<name>, in a fresh mount namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    check(libc.unshare(CLONE_NEWNS), "unshare")
    check(libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None), "mount /")
    places = {str(number): source for number, source in enumerate(sources)} | tools
    # Opened first: a source may lie where the stage will cover it.
    opened = {name: os.open(source, os.O_PATH) for name, source in places.items()}
    check(libc.mount(b"tmpfs", STAGE.encode(), b"tmpfs", 0, b"size=1m,mode=755"), f"mount {STAGE}")
    for name, descriptor in opened.items():
        target = Path(STAGE, name)
        source = f"/proc/self/fd/{descriptor}"
        if os.path.isdir(source):
            target.mkdir()
        else:
            target.touch()
        check(libc.mount(source.encode(), str(target).encode(), None, MS_BIND | MS_REC, None), f"bind {places[name]}")
        os.close(descriptor)


def become(uid: int) -> None:
    """Gives up root for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def check(result: int, what: str) -> None:
    """Raises OSError for a failed call."""
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


if __name__ == "__main__":
    main(sys.argv[1])
