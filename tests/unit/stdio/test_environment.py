"""How a program gets its environment: by its own process, or by what stands around it and reads a descriptor."""

from __future__ import annotations

import os

import pytest

from moorage_local.enclosure import bubblewrap_arguments
from moorage_sandbox.stdio.environment import Outer, begun, options

pytestmark = pytest.mark.unit


def test_what_stands_around_a_program_has_its_own_environment_and_reads_the_programs() -> None:
    outer, env = Outer({"PATH": "/bin"}, "word"), {"LD_PRELOAD": "x.so", "TOKEN": "canary"}
    with begun(["stage", '["--args", "word", "python"]'], env, outer) as made:
        (file,) = made.kept
        assert made.argv == ["stage", f'["--args", "{file}", "python"]'] and made.env == {"PATH": "/bin"}
        with os.fdopen(os.dup(file), "rb") as reading:
            assert reading.read() == b"--clearenv\0--setenv\0LD_PRELOAD\0x.so\0--setenv\0TOKEN\0canary\0"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
    assert options({}) == b"--clearenv\0"


def test_a_program_with_nothing_around_it_has_its_environment_itself() -> None:
    with begun(["python", "word"], {"A": "1"}, None) as made:
        assert (made.argv, made.env, made.kept) == (["python", "word"], {"A": "1"}, ())


def test_a_value_cannot_become_an_option() -> None:
    for env in ({"A": "x\0--bind\0/\0/"}, {"A\0B": "x"}):
        with pytest.raises(OSError, match="Invalid argument"), begun(["python"], env, Outer({}, "word")):
            pass


def test_bubblewrap_is_told_the_descriptor_and_clears_what_it_was_begun_with() -> None:
    arguments = bubblewrap_arguments([], [], "word")
    assert arguments[arguments.index("--args") + 1] == "word" and "--setenv" not in arguments
