"""The launcher's pure parts and its packets."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage_local import volumes
from moorage_sandbox.launcher import oom, packets, syscalls

pytestmark = pytest.mark.unit

ALLOW = 0x7FFF0000


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


def test_a_packet_brings_its_object_and_its_descriptors(ends: tuple[socket.socket, socket.socket]) -> None:
    read, write = os.pipe()
    packets.send(ends[0], {"op": "hello", "text": "ü"}, [write])
    os.close(write)
    packet = packets.receive(ends[1])
    assert packet is not None and packet.op == "hello" and packet.body["text"] == "ü"
    os.write(packet.fds[0], b"x")
    assert os.read(read, 1) == b"x" and not os.get_inheritable(packet.fds[0])
    packet.close()
    os.close(read)


def test_the_end_of_the_peer_is_none(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].close()
    assert packets.receive(ends[1]) is None


@pytest.mark.parametrize("data", [b"not json", b"[1]", b"\xff", b"{" * 1000, b" " * (packets.MAX_PACKET + 1)])
def test_what_is_no_packet_is_refused_and_its_descriptors_closed(
    ends: tuple[socket.socket, socket.socket], data: bytes
) -> None:
    read, write = os.pipe()
    socket.send_fds(ends[0], [data], [write])
    os.close(write)
    with pytest.raises(packets.PacketError):
        packets.receive(ends[1])
    assert os.read(read, 1) == b"", "nobody holds the other end"
    os.close(read)


def verdict(program: bytes, number: int, *, argument: int = 0, architecture: int = 0xC000003E) -> int:
    """Runs a filter as the kernel would."""
    memory = struct.pack("<IIQQ", number & 0xFFFFFFFF, architecture, 0, argument)
    code = list(struct.iter_unpack("HBBI", program))
    at, register = 0, 0
    while True:
        operation, yes, no, operand = code[at]
        at += 1
        if operation == 0x20:
            register = struct.unpack_from("<I", memory, operand)[0]
        elif operation == 0x15:
            at += yes if register == operand else no
        elif operation == 0x35:
            at += yes if register >= operand else no
        elif operation == 0x06:
            return int(operand)


@pytest.mark.parametrize(("machine", "column", "architecture"), [("x86_64", 0, 0xC000003E), ("aarch64", 1, 0xC00000B7)])
def test_the_filter_refuses_exactly_its_list(machine: str, column: int, architecture: int) -> None:
    program = syscalls.program(machine)
    assert program is not None
    refused = {
        number for number in range(600) if verdict(program, number, argument=1, architecture=architecture) != ALLOW
    }
    assert refused == {numbers[column] for numbers in syscalls.REFUSED.values()}


@pytest.mark.parametrize("family", range(46))
def test_only_known_socket_families_are_let_through(family: int) -> None:
    program = syscalls.program("x86_64")
    assert program is not None
    allowed = verdict(program, syscalls.SOCKET[0], argument=(7 << 32) | family if family == 1 else family) == ALLOW
    assert allowed == (family in syscalls.FAMILIES)


def test_other_call_tables_are_refused_whole() -> None:
    program = syscalls.program("x86_64")
    assert program is not None
    refused = 0x00050000 | errno.ENOSYS
    assert verdict(program, 3, architecture=0x40000003) == refused
    assert verdict(program, 0x40000000 | 3) == refused


def test_an_unknown_machine_has_no_filter() -> None:
    assert syscalls.program("vax") is None


@pytest.mark.parametrize(("text", "count"), [("oom_kill 3\n", 3), ("oom 9\n", 0), ("", 0), ("oom_kill x", 0)])
def test_kills_are_read_from_their_line(text: str, count: int) -> None:
    assert oom.kills(text) == count


def test_a_rise_of_the_counter_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "memory.events"
    file.write_text("oom_kill 1\n")
    with file.open() as opened:
        counter = oom.OomCounter(opened.fileno())
        assert not counter.rose()
        file.write_text("oom_kill 2\n")
        assert counter.rose() and not counter.rose()
    assert not oom.OomCounter(None).rose()


def test_a_volume_gets_its_folders_once_and_keeps_its_files(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volumes.prepare(volume, uid=None, plain=True)
    (volume / "workspace" / "file").write_text("kept")
    (volume / "tmp" / "file").write_text("not kept")
    volumes.prepare(volume, uid=None, plain=True)
    assert (volume / "workspace" / "file").read_text() == "kept"
    assert sorted(path.name for path in volume.iterdir()) == ["home", "tmp", "workspace"]
    assert list((volume / "tmp").iterdir()) == []


def test_a_volume_given_to_another_user_never_through_a_link(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    outside = tmp_path / "outside"
    outside.touch()
    volume = tmp_path / "v"
    volumes.prepare(volume, uid=210_000, plain=False)
    (volume / "workspace" / "link").symlink_to(outside)
    volumes.prepare(volume, uid=210_001, plain=False)
    assert (volume / "workspace" / "link").lstat().st_uid == 210_001
    assert outside.stat().st_uid == 0
