"""Where servers of models, tools and people's alerts may be, as far as a URL says it before its host is resolved. Pure. Layer: the floor.

Private addresses, this machine's, and plain `http`, only for hosts that the platform's settings name (`allowedUpstreams`); metadata and
link-local addresses never (`addresses`).
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from moorage_api import addresses

ALLOWED = re.compile(r"([a-z0-9_.-]+|\[[0-9a-f:.]+\]):[1-9][0-9]{0,4}")
"""A host as `allowedUpstreams` names it, whole."""


class Forbidden(OSError):
    """The server may not be connected to. `str()` says where, why, and what to do; `why` is the same without a word of the URL, which
    may be a secret."""

    def __init__(self, why: str, where: str = "") -> None:
        super().__init__(f"{where} {why}" if where else why)
        self.why = why


def authority(url: str) -> tuple[str, int]:
    """Host (lower case, without brackets) and port of a base URL. Raises ValueError."""
    parts = urlsplit(url)
    return (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def named(host: str, port: int) -> str:
    """How a host stands in `allowedUpstreams`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check(url: str, allowed: frozenset[str]) -> tuple[str, int]:
    """Host and port of a URL that may be used as far as can be told here. Raises Forbidden."""
    try:
        host, port = authority(url)
    except ValueError:
        raise Forbidden("its URL cannot be read") from None
    if not url.startswith(("https://", "http://")) or not host:
        raise Forbidden("its URL does not begin with https:// and a host")
    if "\\" in url or "@" in urlsplit(url).netloc:
        raise Forbidden("its URL names a host that two readers may take for two")
    trusted = named(host, port) in allowed
    if not url.startswith("https://") and not trusted:
        why = "is spoken to without TLS: use https, or have the platform name it (allowedUpstreams)"
        raise Forbidden(why, named(host, port))
    if addresses.parse(host) is not None:
        judge(host, host, port, trusted=trusted)
    return host, port


def judge(text: str, host: str, port: int, *, trusted: bool) -> None:
    """Whether `text`, an address of this host, may be connected to. Raises Forbidden."""
    address = addresses.parse(text)
    why = "no address" if address is None else addresses.refusal(address, trusted=trusted)
    if why is not None and trusted and address is not None and _loopback(address):
        return
    if why is not None:
        told = f"leads to {why}: only hosts that the platform names (allowedUpstreams) may be private, and metadata addresses never"
        raise Forbidden(told, named(host, port))


def _loopback(address: addresses.Address) -> bool:
    return address in ipaddress.ip_network("127.0.0.0/8" if address.version == 4 else "::1/128")
