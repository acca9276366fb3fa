"""A stand-in for PID 1 of a sandbox: the control channel of the launcher without any isolation, in the test's own loop.

Limits: processes are started by exec, not fork; `killall` sees the processes whose environment carries this fake's mark (so
daemons that escaped their process group are found too), and nothing else; never tells of out-of-memory kills unless
`next_exit_is_oom`; sends `listener` from 127.0.0.1 of the machine; no limits, no users, no file systems.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from pathlib import Path

from fakes.ports import free_port

AGENT = Path(__file__).with_name("scripted_agent.py")


class FakeInit:
    """`theirs` is the shim's end. `calls` records every op in order; `deaf` ops are not answered."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.env = env or {}
        self.mark = secrets.token_hex(8)
        self.calls: list[str] = []
        self.deaf: set[str] = set()
        self.next_exit_is_oom = False
        self.unkillable = 0
        self.hung_up = asyncio.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self._born: list[subprocess.Popen[bytes]] = []
        self._watchers: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.ours.fileno(), self._readable)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.door_port = self.listener.getsockname()[1]

    def hello(self) -> None:
        self._tell({"op": "hello", "pid": 1, "listener": True}, [self.listener.fileno()])
        self.listener.close()

    async def close(self) -> None:
        if self.ours.fileno() >= 0:
            self._loop.remove_reader(self.ours.fileno())
            self.ours.close()
        self.listener.close()
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*self._watchers, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.theirs.close()

    def alive(self) -> list[int]:
        """Every living process of this sandbox. Those born here count before their environment can be read, which an exec sets last."""
        found = [one.pid for one in self._born if one.poll() is None]
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in found:
                with contextlib.suppress(OSError):
                    if f"SANDBOX_MARK={self.mark}".encode() in Path(f"/proc/{entry}/environ").read_bytes():
                        found.append(int(entry))
        return found

    def _readable(self) -> None:
        try:
            data = self.ours.recv(131072)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.hung_up.set()
            self._loop.remove_reader(self.ours.fileno())
            return
        call = json.loads(data)
        self.calls.append(call["op"])
        if call["op"] not in self.deaf:
            getattr(self, f"_{call['op']}")(call)

    def _spawn(self, call: dict) -> None:
        port = free_port()
        env = {**os.environ, **call["env"], **self.env, "PORT": str(port), "SANDBOX_MARK": self.mark}
        read, write = os.pipe2(os.O_CLOEXEC)
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-u", str(AGENT)], env=env, stdout=write, stderr=write, start_new_session=True
        )
        self._born.append(self.process)
        os.close(write)
        self._tell({"op": "spawned", "id": call["id"], "pid": self.process.pid, "port": port}, [read])
        os.close(read)
        self._watch(self.process)

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        async def wait() -> None:
            while process.poll() is None:
                await asyncio.sleep(0.005)
            code = process.returncode
            self._tell(
                {
                    "op": "exited",
                    "pid": process.pid,
                    "status": code if code >= 0 else None,
                    "signal": -code if code < 0 else None,
                    "oom": self.next_exit_is_oom,
                }
            )

        task = self._loop.create_task(wait())
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _connect(self, call: dict) -> None:
        sock = socket.socket()
        try:
            sock.connect(("127.0.0.1", call["port"]))
        except OSError as error:
            self._tell({"op": "refused", "id": call["id"], "error": str(error)})
        else:
            self._tell({"op": "connected", "id": call["id"]}, [sock.fileno()])
        finally:
            sock.close()

    def _killall(self, call: dict) -> None:
        async def kill() -> None:
            while self.alive():
                for pid in self.alive():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.005)
            self._tell({"op": "killed", "id": call["id"], "alive": self.unkillable})

        task = self._loop.create_task(kill())
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)

    def _term(self, call: dict) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        self._tell({"op": "termed", "id": call["id"], "pids": []})

    def _tell(self, body: dict, fds: list[int] | None = None) -> None:
        with contextlib.suppress(OSError):
            socket.send_fds(self.ours, [json.dumps(body).encode()], fds or [])
