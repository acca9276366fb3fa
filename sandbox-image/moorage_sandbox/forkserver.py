"""A process that holds the shim's modules and forks a shim in a few milliseconds: `python -m moorage_sandbox.forkserver`.

Layer: roof. Its provider asks over a SOCK_SEQPACKET socket, one JSON object a packet:

    → {"op":"fork","id":n,"config":{…},"fds":["control","status","log"]} + those descriptors   ← {"op":"forked","id":n,"pid":p}
    ← {"op":"exited","pid":p,"status":s,"signal":g}                                     a shim ended; it has been reaped

No thread and no event loop lives here, so a fork is safe. It dies with its provider, and every shim dies with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from moorage_sandbox.clock import SystemClock
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.lifeline import die_with
from moorage_sandbox.main import Status, run

MAX_PACKET = 128 * 1024
MAX_FDS = 4


@dataclass
class Forkserver:
    """The loop. `serve` returns in no child."""

    control: socket.socket

    def serve(self) -> None:
        """Forks on request and reaps, until the provider hangs up."""
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self.control, select.POLLIN)
        poller.register(read, select.POLLIN)
        self._tell({"op": "ready", "pid": os.getpid()})
        while True:
            for fd, _ in poller.poll():
                if fd == read:
                    os.read(read, 4096)
                    self._reap()
                elif not self._take((read, write)):
                    return

    def _take(self, own: tuple[int, int]) -> bool:
        data, fds, _, _ = socket.recv_fds(self.control, MAX_PACKET, MAX_FDS)
        if not data:
            return False
        try:
            request = orjson.loads(data)
            config = ShimConfig.from_dict(request["config"])
            named = dict(zip(request["fds"], fds, strict=True))
            control = named["control"]
        except (ValueError, KeyError, TypeError) as error:
            self._tell({"op": "failed", "id": _number(data), "error": f"not a request: {error}"})
        else:
            pid = os.fork()
            if pid == 0:
                self._forget(own)
                _shim(config, control, named.get("status"), named.get("log"))
            self._tell({"op": "forked", "id": request.get("id", 0), "pid": pid})
        for fd in fds:
            os.close(fd)
        return True

    def _forget(self, own: tuple[int, int]) -> None:
        """In a child: gives up what is the forkserver's."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for fd in own:
            os.close(fd)
        self.control.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSIGNALED(code):
                self._tell({"op": "exited", "pid": pid, "status": None, "signal": os.WTERMSIG(code)})
            else:
                self._tell({"op": "exited", "pid": pid, "status": os.WEXITSTATUS(code), "signal": None})

    def _tell(self, body: dict[str, Any]) -> None:
        self.control.send(orjson.dumps(body))


def _number(data: bytes) -> int:
    try:
        return int(orjson.loads(data)["id"])
    except (ValueError, KeyError, TypeError):
        return 0


def _shim(config: ShimConfig, control: int, status: int | None, log: int | None) -> NoReturn:
    """Becomes a shim; ends the process."""
    code = 1
    try:
        die_with(os.getppid(), signal.SIGKILL)
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in ((0, null), (1, log or null), (2, log or null)):
            os.dup2(source, target)
        os.umask(0o077)
        control_sock = socket.socket(fileno=control)
        code = asyncio.run(run(config, control_sock, Status(status), SystemClock()))
    except BaseException as error:  # the outermost frame of the process
        sys.stderr.write(f"the shim of {config.sandbox} failed: {error!r}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)


def warm_up() -> None:
    """Does once what every shim would do first, then freezes the heap so that children share its pages."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    gc.collect()
    gc.freeze()


def main() -> None:
    """Entry of `python -m moorage_sandbox.forkserver`."""
    parser = argparse.ArgumentParser(prog="moorage_sandbox.forkserver")
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="pid of the provider; the forkserver dies with it")
    given = parser.parse_args()
    die_with(given.parent, signal.SIGKILL)
    control = socket.socket(fileno=given.control_fd)
    control.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the whole group: the provider decides
    warm_up()
    try:
        Forkserver(control).serve()
    except (BrokenPipeError, ConnectionResetError):
        return  # the provider is gone


if __name__ == "__main__":
    main()
