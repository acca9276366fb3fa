"""The launcher's command line: `zygote` and `probe`. Layer: composition of the launcher."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
import types
from pathlib import Path

from . import agent, dwelling, entry, kernel, zygote

STANDARD = 3  # descriptors 0, 1, 2


def main(argv: list[str]) -> int:
    """Runs one of the two commands; in a forked agent process it comes back with the agent's own end."""
    parser = argparse.ArgumentParser(prog="launcher", description="Starts agent processes from a pre-imported server.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("zygote", help="run the entry up to serve(), then fork a sandbox for every request")
    start.add_argument("--control", type=int, required=True, help="descriptor of the provider's socket")
    start.add_argument("--code", type=Path, required=True, help="folder of the agent's code")
    start.add_argument("--entry", required=True, help="file in it, or module:object")
    start.add_argument(
        "--exec", action="store_true", help="do not pre-import: run `python ENTRY` for each agent process"
    )
    start.add_argument("--plain", action="store_true", help="no namespaces")
    start.add_argument(
        "--keep", action="append", default=[], help="folder of the interpreter that a fresh /tmp would cover"
    )
    commands.add_parser("probe", help="try everything an isolated sandbox needs; exit 0 when it works")
    options = parser.parse_args(argv)
    if options.command == "probe":
        return _probe(kernel.Kernel())
    kept = tuple(options.keep)
    return _zygote(
        zygote.Setup(options.control, options.code.resolve(), options.entry, options.exec, options.plain, kept)
    )


def _zygote(setup: zygote.Setup) -> int:
    os.closerange(STANDARD, setup.control)
    os.closerange(setup.control + 1, os.sysconf("SC_OPEN_MAX"))
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path[0] = str(setup.code)  # this folder's place
    one = zygote.Zygote(setup, time.monotonic)
    if setup.program:
        os.chdir(setup.code)
        one.wait()
        agent.run_program(setup.entry)
    fork_point = types.ModuleType("moorage_forkpoint", "Where the platform forks agent processes: call `wait()`.")
    fork_point.wait = one.wait  # type: ignore[attr-defined]
    sys.modules["moorage_forkpoint"] = fork_point
    try:
        entry.run(setup.entry, setup.code)
    except BaseException as fault:
        if one.forked:
            raise
        one.fail(f"{setup.entry} failed before serve(): {type(fault).__name__}: {fault}", traceback.format_exc())
        return 1
    if not one.forked:
        one.fail(f"{setup.entry} ended without calling serve(): end it with HostedAgent(...).serve()", "")
        return 1
    return 0


def _probe(calls: kernel.Kernel) -> int:
    dwelling.leave(calls)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    dwelling.furnish(calls, "probe", 1024 * 1024)
    calls.raise_loopback()
    dwelling.listen(0).close()
    dwelling.lock(calls)
    return 0
