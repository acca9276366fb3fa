"""Ports for programs that must be told theirs before they start.

Between the look and the program's own bind a port is anybody's, and the system deals out those of its ephemeral range all the time: to each
connection, and to each server that asks for port 0. So they are drawn below that range, where none is had by chance.
"""

from __future__ import annotations

import contextlib
import random
import socket

# Below Linux's ephemeral ports (ip_local_port_range, from 32768) and Kubernetes' node ports (from 30000).
DRAWN = range(20_000, 30_000)
TRIES = 200


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago. AssertionError where nearly all are taken."""
    dice = random.SystemRandom()  # a seeded test of two workers draws the same from `random`
    held: list[socket.socket] = []
    with contextlib.ExitStack() as closing:
        for port in dice.sample(DRAWN, TRIES):
            with contextlib.suppress(OSError):
                held.append(closing.enter_context(socket.create_server(("127.0.0.1", port))))
            if len(held) == count:
                return [int(one.getsockname()[1]) for one in held]
    raise AssertionError(f"no {count} ports of {DRAWN.start} to {DRAWN.stop} are free")


def free_port() -> int:
    """One of them."""
    return free_ports(1)[0]
