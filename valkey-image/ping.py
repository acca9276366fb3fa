#!/usr/bin/env python3
"""Whether the Valkey of this container answers: exit 0 on PONG, 1 on anything else. Its readiness probe.

valkey-ping PORT PASSWORD_FILE; a server that still reads its append-only file is alive and says LOADING, which is not ready.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

SECONDS = 3.0


def answer(port: int, password: str) -> bytes:
    """The last line of the server's answer to AUTH and PING. Raises OSError, also when it says nothing for three seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        secret = password.encode()
        connection.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n*1\r\n$4\r\nPING\r\n" % (len(secret), secret))
        with connection.makefile("rb") as lines:
            lines.readline(256)
            return lines.readline(256).strip()


def main(arguments: list[str]) -> int:
    """The exit status."""
    port, password_file = arguments
    try:
        return 0 if answer(int(port), Path(password_file).read_text(encoding="utf-8").strip()) == b"+PONG" else 1
    except OSError as fault:
        sys.stderr.write(f"valkey-ping: {fault}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
