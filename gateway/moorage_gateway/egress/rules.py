"""From the bytes of a proxy request to a decision: which host and port, and whether the agent's manifest lists them. Pure.

The target is parsed once; what is decided on is what is resolved and connected to. A host is a plain name of ASCII labels:
no literal address in any notation, no user part, no trailing dot, nothing that two parsers could read in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import idna

DEFAULT_PORTS = frozenset({443, 80})
MAX_HOST = 253

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_NUMBER = re.compile(r"[0-9]+\Z|0x[0-9a-f]*\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


class Refused(Exception):
    """The target is not one that any manifest could list; the message says what is wrong with it."""


@dataclass(frozen=True)
class Target:
    """A host by name, lower case, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Rule:
    """One entry of `spec.egress`. `suffix` starts with a dot for a wildcard, and is the whole host otherwise."""

    suffix: str
    ports: frozenset[int]

    def matches(self, target: Target) -> bool:
        """Whether the entry lists the target; `*.example.com` does not list `example.com`."""
        if target.port not in self.ports:
            return False
        if self.suffix.startswith("."):
            return target.host.endswith(self.suffix) and len(target.host) > len(self.suffix)
        return target.host == self.suffix


@dataclass(frozen=True)
class Decision:
    """`trusted`: the host is of the platform's own settings, so it may have a private address."""

    allowed: bool
    trusted: bool
    reason: str = ""


def parse_host(text: str) -> str:
    """The host as a plain lower-case ASCII name. Raises Refused."""
    host = text.lower()
    if not host.isascii() or not host.isprintable() or len(host) > MAX_HOST:
        raise Refused("a host is a plain ASCII name; write an international one in its xn-- form")
    if "@" in host:
        raise Refused("a target has no user part")
    if host.startswith("[") or ":" in host:
        raise Refused("addresses are not reached by number: name the host")
    labels = host.split(".")
    if labels[-1] == "":
        raise Refused("a host has no trailing dot and is not empty")
    if _NUMBER.match(labels[-1]):
        raise Refused("addresses are not reached by number: name the host")
    if not all(_LABEL.match(label) for label in labels):
        raise Refused("not a host name")
    for label in labels:
        if label.startswith("xn--"):
            try:
                idna.ulabel(label)
            except idna.IDNAError:
                raise Refused("not a valid international host name") from None
    return host


def parse_authority(text: str, *, default_port: int | None = None) -> Target:
    """`host:port` of a CONNECT line, or of a URL with its scheme's port. Raises Refused."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        if default_port is None:
            raise Refused("a target is HOST:PORT")
        return Target(parse_host(text), default_port)
    if not _PORT.match(port) or int(port) > 65535:
        raise Refused("not a port")
    return Target(parse_host(host), int(port))


def parse_rule(entry: str) -> Rule | None:
    """A `host[:port]` entry; None for one that cannot be read (the manifest's own check says why)."""
    host, colon, port = entry.strip().partition(":")
    if colon and not (_PORT.match(port) and int(port) <= 65535):
        return None
    wildcard = host.startswith("*.")
    try:
        name = parse_host(_ascii(host[2:] if wildcard else host))
    except Refused:
        return None
    return Rule(f".{name}" if wildcard else name, frozenset({int(port)}) if colon else DEFAULT_PORTS)


def decide(entries: Iterable[str], named: Mapping[str, frozenset[Target]], target: Target, agent: str) -> Decision:
    """Whether an agent with these `spec.egress` entries reaches the target; `named` are sets of the platform's hosts."""
    for entry in entries:
        hosts = named.get(entry)
        if hosts is not None:
            if target in hosts:
                return Decision(allowed=True, trusted=True)
            continue
        rule = parse_rule(entry)
        if rule is not None and rule.matches(target):
            return Decision(allowed=True, trusted=False)
    wanted = target.host if target.port in DEFAULT_PORTS else str(target)
    return Decision(
        allowed=False,
        trusted=False,
        reason=f"{target} is not in spec.egress of agent '{agent}': add '{wanted}' to that list in its manifest",
    )


def _ascii(host: str) -> str:
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        raise Refused("not a valid international host name") from None
