"""Whose tool a name is, what may be called, and what is an effect: all of it from the manifest alone. Layer: pure.

A tool's name as agents know it is the upstream's prefix and the tool's own name, or the one that `rename` gives it. The upstream with the
longest prefix that fits has the name; so a call needs no list of tools, and a server that changes its list cannot take another's name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from moorage_api.kinds.toolbox import prefix_of
from moorage_api.ledger.journal import Permits


class Patterns:
    """Some patterns, `*` standing for any run of characters: no regular expressions, whose cost a manifest could choose."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._parts = [each.split("*") for each in patterns]

    def __bool__(self) -> bool:
        return bool(self._parts)

    def match(self, text: str) -> bool:
        """Whether one of them is the text."""
        return any(_fits(parts, text) for parts in self._parts)


@dataclass(frozen=True)
class Upstream:
    """One upstream of a toolbox as its manifest has it."""

    spec: dict[str, Any]
    prefix: str
    allow: Patterns
    deny: Patterns
    read_only: Patterns
    idempotent: Patterns
    require_approval: Patterns

    @property
    def name(self) -> str:
        """Its name in the manifest."""
        return str(self.spec["name"])

    def may(self, tool: str) -> bool:
        """Whether agents may know of this tool of its."""
        return not self.deny.match(tool) and (not self.allow or self.allow.match(tool))

    def reads(self, tool: str) -> bool:
        """Whether the manifest says that it changes nothing."""
        return self.read_only.match(tool)

    def asks(self, tool: str) -> bool:
        """Whether a person must approve each call of it."""
        return self.require_approval.match(tool)

    def repeats(self, tool: str) -> bool:
        """Whether the manifest says that it may be run twice."""
        return self.idempotent.match(tool)

    def examples(self, tool: str) -> tuple[str, ...]:
        """Questions that the manifest says this tool of its answers."""
        return tuple((self.spec.get("examples") or {}).get(tool, ()))

    def permits(self, tool: str) -> Permits:
        """`once`: an effect, as everything is of which the manifest says nothing; `joins`: one that may be asked for again, since it is
        the agent's same turn then."""
        if self.reads(tool) or self.repeats(tool):
            return "again"
        return "once" if self.spec.get("agent") is None else "joins"


class Names:
    """The names of one toolbox."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        alone = len(spec["upstreams"]) == 1
        self.upstreams = tuple(_upstream(each, alone) for each in spec["upstreams"])
        self._longest = sorted(self.upstreams, key=lambda each: len(each.prefix), reverse=True)

    def find(self, name: str) -> tuple[Upstream, str] | None:
        """Whose tool this is, and what it is called there; None for a name that agents may not use."""
        for upstream in self._longest:
            if name.startswith(upstream.prefix):
                tool = _original(upstream, name[len(upstream.prefix) :])
                return (upstream, tool) if tool and upstream.may(tool) else None
        return None

    def shown(self, upstream: Upstream, tool: str) -> str | None:
        """What agents call this tool; None for one that they may not, or whose name leads elsewhere."""
        name = upstream.prefix + str(upstream.spec["rename"].get(tool, tool))
        return name if self.find(name) == (upstream, tool) else None


def place_of(spec: dict[str, Any]) -> str:
    """Where an upstream is: a server's one URL, an API's base, which program, or which agent."""
    if spec.get("mcp"):
        return str(spec["mcp"]["url"])
    if spec.get("stdio"):
        return " ".join(("stdio", spec["stdio"]["command"], *spec["stdio"]["args"]))
    return str(spec["openapi"]["server"]) if spec.get("openapi") else f"agent {spec['agent']['name']}"


def _original(upstream: Upstream, name: str) -> str:
    """The server's own name; empty for one that it has given away."""
    renamed: dict[str, str] = upstream.spec["rename"]
    for own, given in renamed.items():
        if given == name:
            return own
    return "" if name in renamed else name


def _upstream(spec: dict[str, Any], alone: bool) -> Upstream:
    return Upstream(
        spec,
        prefix_of(spec["name"], spec.get("prefix"), alone=alone and spec.get("agent") is None),
        *(Patterns(spec.get(each) or ()) for each in ("allow", "deny", "readOnly", "idempotent", "requireApproval")),
    )


def _fits(parts: list[str], text: str) -> bool:
    """Each part where it is met first, but for the last one, which ends the text."""
    first, *middle, last = parts if len(parts) > 1 else (parts[0], "")
    if len(parts) == 1:
        return text == first
    if not text.startswith(first) or len(text) < len(first) + len(last) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
