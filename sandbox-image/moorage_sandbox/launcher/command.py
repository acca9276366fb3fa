"""The launcher's command line: `zygote`, `pod` and `probe`. Layer: composition of the launcher."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path

from . import agent, dwelling, entry, kernel, oom, pod, zygote

STANDARD = 3  # descriptors 0, 1, 2


def main(argv: list[str]) -> int:
    """Runs one of the commands; in a forked agent process it comes back with the agent's own end."""
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
    _add_pod(commands)
    commands.add_parser("probe", help="try everything an isolated sandbox needs; exit 0 when it works")
    options = parser.parse_args(argv)
    if options.command == "probe":
        return _probe(kernel.Kernel())
    if options.command == "pod":
        return _pod(options)
    kept = tuple(options.keep)
    return _zygote(
        zygote.Setup(options.control, options.code.resolve(), options.entry, options.exec, options.plain, kept)
    )


def _add_pod(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command of an agent's container."""
    start = commands.add_parser("pod", help="run the entry up to serve(), then be the one sandbox of this container")
    start.add_argument("--socket", type=Path, required=True, help="where the shim comes to")
    start.add_argument("--code", type=Path, required=True, help="folder of the agent's code")
    start.add_argument("--entry", help=f"file in it, or module:object; default: the first of {', '.join(entry.USUAL)}")
    start.add_argument(
        "--exec", action="store_true", help="do not pre-import: run `python ENTRY` for each agent process"
    )
    start.add_argument(
        "--variables", type=Path, help="a JSON object of variables that the container's own environment lacks"
    )
    start.add_argument("--sandbox", required=True, help="the sandbox's id")
    start.add_argument("--home", default=dwelling.HOME)
    start.add_argument("--workspace", default=dwelling.WORKSPACE)
    start.add_argument("--shim-port", type=int, default=8099, help="the agent's door to the shim, on loopback")
    start.add_argument("--wait", type=float, default=120.0, help="seconds for the shim to come")
    start.add_argument(
        "--memory",
        type=Path,
        action="append",
        help="the control group's file that counts kills; default: the container's",
    )


def _pod(options: argparse.Namespace) -> int:
    name = options.entry or entry.usual(options.code)
    if name is None:
        sys.stderr.write(
            f"moorage: {options.code.resolve()} has none of {', '.join(entry.USUAL)};"
            " the image's working directory must be the agent's folder\n"
        )
        return 1
    if options.variables is not None:
        for variable, text in json.loads(options.variables.read_bytes()).items():
            os.environ.setdefault(variable, text)
    one = pod.Pod(
        pod.Setup(
            options.socket, options.code.resolve(), name, options.exec, options.sandbox, options.home,
            options.workspace, options.shim_port, options.wait, tuple(options.memory or oom.OWN),
        ),
        os.environ,
    )  # fmt: skip
    _settle(options.code.resolve())
    _offer(one.wait)
    try:
        if options.exec:
            one.wait()
            agent.run_program(name)
        entry.run(name, options.code.resolve())
    except pod.NoShim as fault:
        sys.stderr.write(f"moorage: {fault}\n")
        return 1
    if not one.forked:
        sys.stderr.write(f"moorage: {name} ended without calling serve(): end it with HostedAgent(...).serve()\n")
        return 1
    return 0


def _settle(code: Path) -> None:
    """The agent's own folder takes this folder's place on the path, and is where its program runs."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.path[0] = str(code)
    os.chdir(code)


def _offer(wait: Callable[[], None]) -> None:
    """The module by which `serve()` finds its fork point."""
    fork_point = types.ModuleType("moorage_forkpoint", "Where the platform forks agent processes: call `wait()`.")
    fork_point.wait = wait  # type: ignore[attr-defined]
    sys.modules["moorage_forkpoint"] = fork_point


def _zygote(setup: zygote.Setup) -> int:
    os.closerange(STANDARD, setup.control)
    os.closerange(setup.control + 1, os.sysconf("SC_OPEN_MAX"))
    _settle(setup.code)
    one = zygote.Zygote(setup, time.monotonic)
    if setup.program:
        one.wait()
        agent.run_program(setup.entry)
    _offer(one.wait)
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
