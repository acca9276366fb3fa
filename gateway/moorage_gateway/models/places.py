"""Which servers of models may be connected to. Layer: pure, and one look-up.

What a URL says of that: `moorage_api.upstream_places`. An address is judged after resolving, and that very address is connected to.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from moorage_api import addresses, upstream_places
from moorage_api.upstream_places import Forbidden, judge, named
from moorage_gateway.egress import rules

Allowed = Callable[[], frozenset[str]]
"""Hosts as `host:port`, lower case."""

MOST = 8  # addresses of one host that are tried


def check(url: str, allowed: frozenset[str]) -> None:
    """What can be told before resolving. Raises Forbidden."""
    host, port = upstream_places.check(url, allowed)
    if addresses.parse(host) is not None:
        return
    try:
        rules.parse_host(host)  # whatever else a library below might take for an address, and not ask the resolver for
    except rules.Refused as why:
        raise Forbidden(f"is not asked: {why}", repr(named(host, port)[:100])) from None


async def found(host: str, port: int, allowed: frozenset[str]) -> list[tuple[int, tuple[str, int]]]:
    """Family and address of each place of a host that may be connected to. Raises OSError: Forbidden where there is none."""
    told = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
    trusted, kept, why = named(host, port) in allowed, list[tuple[int, tuple[str, int]]](), None
    for family, _, _, _, place in told[:MOST]:
        text = str(place[0])
        try:
            judge(text, host, port, trusted=trusted)
        except Forbidden as fault:
            why = fault
            continue
        kept.append((family, (text, port)))
    if not kept:
        raise why or Forbidden("has no address", named(host, port))
    return kept
