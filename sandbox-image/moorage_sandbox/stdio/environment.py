"""How a program gets its environment. Layer: I/O, without a loop.

What stands around a program (on a laptop its staging and bubblewrap) is begun with an environment of its own, and reads the program's
from a descriptor, as bubblewrap's `--args`: variables by which the C library loads code (`LD_…`, ld.so(8)) then count inside of the
program's namespaces alone, and a secret stands in no command line and in no environment but the program's.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outer:
    """What is begun around a program. `env`: its whole environment; `descriptor`: the word for the number in the command line."""

    env: Mapping[str, str]
    descriptor: str


@dataclass(frozen=True)
class Begun:
    """With what a process is begun. `kept`: descriptors that it inherits."""

    argv: list[str]
    env: dict[str, str] = field(repr=False)
    kept: tuple[int, ...] = ()


@contextlib.contextmanager
def begun(argv: Sequence[str], env: Mapping[str, str], outer: Outer | None) -> Iterator[Begun]:
    """For as long as the process is being begun. Raises OSError, also for a NUL, which would end one option and begin another."""
    if any("\0" in text for pair in env.items() for text in pair):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    if outer is None:
        yield Begun(list(argv), dict(env))
        return
    file = os.memfd_create("environment")
    try:
        with open(file, "wb", closefd=False) as writing:
            writing.write(options(env))
        os.lseek(file, 0, os.SEEK_SET)
        yield Begun([word.replace(outer.descriptor, str(file)) for word in argv], dict(outer.env), (file,))
    finally:
        os.close(file)


def options(env: Mapping[str, str]) -> bytes:
    """As bubblewrap reads them: nothing of what is around the program, and these."""
    words = ["--clearenv", *(word for name, value in env.items() for word in ("--setenv", name, value))]
    return b"".join(os.fsencode(word) + b"\0" for word in words)
