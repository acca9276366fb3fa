"""The shim's end of the control channel to init (PID 1 of the sandbox). Layer: I/O rim; the messages: README.md.

One JSON object a packet on a SOCK_SEQPACKET socket, descriptors beside it. Requests carry an id and may be in flight together;
a reply that nobody waits for any more has its descriptors closed. End of file means that everything in the sandbox is dead.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_sandbox.errors import ControlLost

MAX_PACKET = 128 * 1024
MAX_FDS = 4
PACKETS_A_TURN = 16
"""Packets taken before other work of the loop gets its turn."""
SO_PASSCRED = getattr(socket, "SO_PASSCRED", 16)
SCM_CREDENTIALS = getattr(socket, "SCM_CREDENTIALS", 2)
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True)
class Exited:
    """An agent process ended: by `status`, or by `signal` (0: none)."""

    pid: int
    status: int | None
    signal: int | None
    oom: bool


@dataclass(frozen=True)
class Reply:
    """An answer of init and the descriptors it carried, which the caller owns."""

    body: dict[str, Any]
    fds: list[int]
    host_pid: int = 0

    def close(self) -> None:
        """Closes every descriptor it carried."""
        for fd in self.fds:
            os.close(fd)


class Control:
    """Talks to init. `exited` is told of agent processes, `lost` once when init is gone."""

    def __init__(self, sock: socket.socket, *, exited: Callable[[Exited], None], lost: Callable[[], None]) -> None:
        self._sock = sock
        self._exited = exited
        self._lost = lost
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._next = 0
        self._loop = asyncio.get_running_loop()
        self._hello: asyncio.Future[Reply] = self._loop.create_future()
        self.closed = False
        self.host_pid = 0
        """Init's pid as this machine sees it; 0 until it has spoken after this object was made."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
        self._loop.add_reader(sock.fileno(), self._readable)

    async def hello(self, timeout: float) -> Reply:
        """Init's first message with the agent's door. Raises ControlLost."""
        return await self._within(self._hello, timeout, "hello")

    async def call(self, op: str, timeout: float, **fields: Any) -> Reply:
        """Asks init and waits for its reply. Raises ControlLost: a silent init is as good as none."""
        if self.closed:
            raise ControlLost("init is gone")
        self._next += 1
        number = self._next
        waiter: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[number] = waiter
        try:
            await self._send(orjson.dumps({"op": op, "id": number, **fields}), timeout)
            return await self._within(waiter, timeout, op)
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """Hangs up: init then ends the sandbox."""
        if not self.closed:
            self.closed = True
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            for waiter in (*self._waiting.values(), self._hello):
                if not waiter.done():
                    waiter.cancel()

    async def _within(self, waiter: asyncio.Future[Reply], timeout: float, what: str) -> Reply:
        try:
            async with asyncio.timeout(timeout):
                return await waiter
        except TimeoutError as error:
            raise ControlLost(f"init did not answer {what} within {timeout:g} s") from error
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                waiter.result().close()
            if self.closed:
                raise ControlLost("init is gone") from None
            raise

    async def _send(self, packet: bytes, timeout: float) -> None:
        if len(packet) > MAX_PACKET:
            raise ControlLost(f"a packet of {len(packet)} bytes is over the limit of {MAX_PACKET}")
        deadline = self._loop.time() + timeout
        while True:
            try:
                self._sock.send(packet, socket.MSG_NOSIGNAL)
                return
            except BlockingIOError:
                if self._loop.time() > deadline:
                    raise ControlLost("init does not read") from None
                await asyncio.sleep(0.005)
            except OSError as error:
                raise ControlLost("init is gone") from error

    def _readable(self) -> None:
        for _ in range(PACKETS_A_TURN):
            try:
                reply = self._receive()
            except BlockingIOError:
                return
            except (OSError, ValueError):
                reply = None
            if reply is None:
                self._gone()
                return
            self._dispatch(reply)

    def _receive(self) -> Reply | None:
        room = socket.CMSG_SPACE(MAX_FDS * 4) + socket.CMSG_SPACE(_CREDENTIALS.size)
        data, ancillary, flags, _ = self._sock.recvmsg(MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        host_pid = 0
        for level, kind, payload in ancillary:
            if level != socket.SOL_SOCKET:
                continue
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            elif kind == SCM_CREDENTIALS:
                host_pid = _CREDENTIALS.unpack(payload[: _CREDENTIALS.size])[0]
        if not data and not fds:
            return None
        reply = Reply({}, list(fds), host_pid)
        try:
            body = orjson.loads(data)
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not isinstance(body, dict):
                raise ValueError("not a packet of init")
        except ValueError:
            reply.close()
            raise
        return Reply(body, reply.fds, host_pid)

    def _dispatch(self, reply: Reply) -> None:
        body = reply.body
        self.host_pid = reply.host_pid or self.host_pid
        if body.get("op") == "exited":
            status, signal = body.get("status"), body.get("signal")
            self._exited(Exited(int(body.get("pid", 0)), status, signal or None, bool(body.get("oom"))))
            return
        waiter = self._hello if body.get("op") == "hello" else self._waiting.get(body.get("id", 0))
        if waiter is None or waiter.done():
            reply.close()
        else:
            waiter.set_result(reply)

    def _gone(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for waiter in (*self._waiting.values(), self._hello):
            if not waiter.done():
                waiter.set_exception(ControlLost("init is gone"))
                waiter.exception()  # told to whoever waits; nobody waiting is no error
        self._lost()
