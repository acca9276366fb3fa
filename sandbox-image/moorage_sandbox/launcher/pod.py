"""The launcher as the first process of a container: one sandbox, whose namespaces and limits are the container's.

Layer: top of the launcher, beside `zygote`. Runs the entry up to the fork point, then waits for the shim, which lies in another container
of the pod, on a socket in a folder that both see; from there it is the sandbox's init. One shim, once: when it hangs up, everything in the
container is killed and the container ends.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import agent, dwelling, init, kernel, oom, packets, zygote


class NoShim(Exception):
    """Nobody came to the control socket in time."""


@dataclass(frozen=True)
class Setup:
    """How the container was asked for. `socket`: where init listens for the shim. `wait`: seconds. `memory`: see `oom.OWN`."""

    socket: Path
    code: Path
    entry: str
    program: bool
    sandbox: str
    home: str
    workspace: str
    shim_port: int
    wait: float
    memory: tuple[Path, ...] = oom.OWN


class Pod:
    """One fork point of one sandbox. `wait` is what `moorage_forkpoint.wait` calls."""

    def __init__(self, setup: Setup, environ: Mapping[str, str]) -> None:
        self.forked = False
        self._setup = setup
        self._environ = dict(environ)
        self._calls = kernel.Kernel()

    def wait(self) -> None:
        """The fork point: returns only in a forked agent process, and at once when called there again."""
        if self.forked:
            return
        if zygote.loop_runs():
            raise RuntimeError(zygote.INSIDE_A_LOOP)
        start = self._serve()
        self.forked = True
        agent.become(start, self._calls)

    def _serve(self) -> agent.Start:
        # Orphans come to a container's first process anyway; in a pod that shares its process namespace we are not that.
        watch, _ = zygote.before_forks(self._calls, reaps=os.getpid() != 1)
        gc.disable()
        control = self._meet()
        one = init.Init(control, watch, self._calls, self._home())
        one.count_oom(oom.first(self._setup.memory))
        one.hello(dwelling.listen(self._setup.shim_port))
        return one.run()

    def _meet(self) -> socket.socket:
        """The shim's connection. The socket is gone before any agent process exists: nobody else can be the shim."""
        path = self._setup.socket
        path.unlink(missing_ok=True)  # a former container's
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            path.chmod(0o660)
            listener.listen(1)
            listener.settimeout(self._setup.wait)
            try:
                control, _ = listener.accept()
            except TimeoutError as fault:
                raise NoShim(f"no shim came to {path} within {self._setup.wait:g} s") from fault
            finally:
                path.unlink(missing_ok=True)
        control.settimeout(packets.SEND_SECONDS)
        return control

    def _home(self) -> init.Home:
        setup = self._setup
        fixed = {
            "HOME": setup.home,
            "MOORAGE_WORKSPACE": setup.workspace,
            "TMPDIR": dwelling.TMP,
            "MOORAGE_SANDBOX": setup.sandbox,
        }
        return init.Home(os.getpid() != 1, self._environ, fixed, {})
