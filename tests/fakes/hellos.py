"""What TLS clients say first: ClientHellos of Python's own TLS, and altered ones."""

from __future__ import annotations

import contextlib
import ssl


def client_hello(name: str | None) -> bytes:
    """As it is sent for that server name; None: for an address, without one."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    said = ssl.MemoryBIO()
    link = context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        link.do_handshake()
    return said.read()


def with_extension(hello: bytes, kind: int, value: bytes) -> bytes:
    """One record's ClientHello with a further extension at its end."""
    more = kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    body = hello[9:]
    at = 34 + 1 + body[34]
    at += 2 + int.from_bytes(body[at : at + 2], "big")
    at += 1 + body[at]
    extensions = body[at + 2 :] + more
    return record(body[:at] + len(extensions).to_bytes(2, "big") + extensions)


def with_hidden_name(hello: bytes) -> bytes:
    """With an Encrypted Client Hello (type outer), as its draft has it."""
    return with_extension(hello, 0xFE0D, bytes((0, 0, 1, 0, 1, 7, 0, 4)) + b"abcd" + bytes((0, 8)) + b"sealed!!")


def record(body: bytes, size: int = 16 * 1024) -> bytes:
    """A ClientHello of that body, in records of at most so many bytes."""
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(each).to_bytes(2, "big") + each for each in pieces)
