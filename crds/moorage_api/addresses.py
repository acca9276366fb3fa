"""Which addresses a sandbox may reach: the public internet, and nothing that only looks like it. Pure.

Decided on the address that is then connected to, after resolving: what a name looks like proves nothing. IPv6 is a list of
what is allowed (global unicast), not of what is not; every form that carries an IPv4 address inside is refused whole.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Where clouds hand out credentials, whatever else the address is: refused even to hosts of the platform's own settings.
METADATA = _networks(
    "169.254.0.0/16",  # AWS, Azure, GCP and the rest, ECS tasks
    "100.100.100.200/32",  # Alibaba
    "168.63.129.16/32",  # Azure's wire server: a public address
    "192.0.0.192/32",  # Oracle
    "fd00:ec2::/32",  # AWS
    "fd20:ce::/32",  # GCP
)

# Never, for anyone: this machine, this link, nobody, everybody.
NEVER = _networks(
    "0.0.0.0/8",
    "127.0.0.0/8",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",  # unspecified, loopback, IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "::ffff:0:0:0/96",  # IPv4-translated
    "64:ff9b::/96",  # NAT64
    "64:ff9b:1::/48",  # NAT64, local use
    "2001::/32",  # Teredo
    "2002::/16",  # 6to4
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)

# Not for sandboxes, but a package index of the platform's own settings may well live there.
PRIVATE = _networks(
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
)

GLOBAL_V6 = ipaddress.ip_network("2000::/3")
_ISATAP = (0x00005EFE, 0x02005EFE)  # an IPv4 address in the lower half of any IPv6 one


def parse(text: str) -> Address | None:
    """The address of a literal as a resolver gives it; None for anything else, a scope id (`%eth0`) included."""
    if "%" in text:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def refusal(address: Address, *, trusted: bool = False) -> str | None:
    """Why this address is not connected to, None when it is. `trusted`: the host comes from the platform's settings."""
    if _within(address, METADATA):
        return "a metadata or link-local address"
    if _within(address, NEVER):
        return "a loopback, link-local, multicast, reserved or translated address"
    if isinstance(address, ipaddress.IPv6Address):
        if int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
            return "an address that carries an IPv4 address"
        if not trusted and address not in GLOBAL_V6:
            return "not a public address"
    if not trusted and _within(address, PRIVATE):
        return "a private address"
    return None


def usable(answers: Sequence[str], *, trusted: bool) -> tuple[list[str], str | None]:
    """The addresses of a resolver's answer that may be connected to, in order, and why the first other one may not."""
    good: list[str] = []
    reason: str | None = None
    for text in answers:
        address = parse(text)
        why = "no address" if address is None else refusal(address, trusted=trusted)
        if why is None:
            good.append(text)
        else:
            reason = reason or why
    return good, reason


def _within(address: Address, networks: Sequence[_Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
