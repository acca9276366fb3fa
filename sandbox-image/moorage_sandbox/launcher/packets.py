"""One JSON object a packet, file descriptors beside it, over a SOCK_SEQPACKET unix socket. Layer: floor of the launcher."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_PACKET = 128 * 1024  # below the kernel's default send buffer, so a packet is never refused for its size
MAX_FDS = 8
SEND_SECONDS = 10.0


class PacketError(Exception):
    """A packet that is no JSON object or is over the limit."""


@dataclass(frozen=True)
class Packet:
    """One message and the descriptors it carried; whoever takes it owns them."""

    body: dict[str, Any]
    fds: tuple[int, ...]

    @property
    def op(self) -> str:
        """What the packet asks or tells."""
        return str(self.body.get("op", ""))

    def close(self) -> None:
        """Closes every descriptor it carried."""
        for fd in self.fds:
            os.close(fd)


def send(sock: socket.socket, body: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Sends one packet. Raises OSError when the peer is gone or has not read for `SEND_SECONDS` (socket timeout)."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
    sock.sendmsg([json.dumps(body, separators=(",", ":")).encode()], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> Packet | None:
    """Takes one packet; None when the peer is gone. Raises PacketError for what is no packet, its descriptors closed."""
    room = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)
    try:
        data, ancillary, flags, _ = sock.recvmsg(MAX_PACKET, room, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data and not fds:
        return None
    packet = Packet({}, tuple(fds))
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError(f"over {MAX_PACKET} bytes or {MAX_FDS} descriptors")
        body = decode(data)
    except (ValueError, PacketError) as fault:
        packet.close()
        raise PacketError(f"bad packet: {fault}") from fault
    return Packet(body, packet.fds)


def decode(data: bytes) -> dict[str, Any]:
    """The object in `data`. Raises PacketError."""
    try:
        body = json.loads(data)
    except ValueError as fault:
        raise PacketError(f"not JSON: {fault}") from fault
    if not isinstance(body, dict):
        raise PacketError("not an object")
    return body
