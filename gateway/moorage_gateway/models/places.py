"""Which servers of models may be connected to. Layer: pure, and one look-up.

An address is judged after resolving, and that very address is connected to. Private ones, this machine's, and plain `http`, only for
hosts that the platform's settings name (`allowed_upstreams`; a laptop: what its own folder names); metadata and link-local addresses
never (`egress/addresses.py`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from moorage_gateway.egress import addresses, rules

Allowed = Callable[[], frozenset[str]]
"""Hosts as `host:port`, lower case."""

MOST = 8  # addresses of one host that are tried


class Forbidden(OSError):
    """The server may not be connected to; `str()` says why, and what to do."""


def authority(url: str) -> tuple[str, int]:
    """Host (lower case, without brackets) and port of a base URL."""
    parts = urlsplit(url)
    return (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def named(host: str, port: int) -> str:
    """How a host stands in `allowed_upstreams`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check(url: str, allowed: frozenset[str]) -> None:
    """What can be told before resolving. Raises Forbidden."""
    try:
        host, port = authority(url)
    except ValueError:
        raise Forbidden("its URL cannot be read") from None
    if "\\" in url or "@" in urlsplit(url).netloc:
        raise Forbidden("its URL names a host that two readers may take for two")
    trusted = named(host, port) in allowed
    if not url.startswith("https://") and not trusted:
        raise Forbidden(
            f"{named(host, port)} is spoken to without TLS: use https, or have the platform name it (allowedUpstreams)"
        )
    if addresses.parse(host) is not None:
        _judge(host, host, port, trusted)
        return
    try:
        rules.parse_host(host)  # whatever else a library below might take for an address, and not ask the resolver for
    except rules.Refused as why:
        raise Forbidden(f"{named(host, port)[:100]!r} is not asked: {why}") from None


def _judge(text: str, host: str, port: int, trusted: bool) -> None:
    address = addresses.parse(text)
    why = "no address" if address is None else addresses.refusal(address, trusted=trusted)
    if why is not None and trusted and address is not None and _loopback(address):
        return
    if why is not None:
        raise Forbidden(
            f"{named(host, port)} leads to {why}: only hosts that the platform names (allowedUpstreams) may be private, and "
            "metadata addresses never"
        )


def _loopback(address: addresses.Address) -> bool:
    return address in ipaddress.ip_network("127.0.0.0/8" if address.version == 4 else "::1/128")


async def found(host: str, port: int, allowed: frozenset[str]) -> list[tuple[int, tuple[str, int]]]:
    """Family and address of each place of a host that may be connected to. Raises OSError: Forbidden where there is none."""
    told = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=socket.AF_UNSPEC)
    trusted, kept, why = named(host, port) in allowed, list[tuple[int, tuple[str, int]]](), None
    for family, _, _, _, place in told[:MOST]:
        text = str(place[0])
        try:
            _judge(text, host, port, trusted)
        except Forbidden as fault:
            why = fault
            continue
        kept.append((family, (text, port)))
    if not kept:
        raise why or Forbidden(f"{named(host, port)} has no address")
    return kept
