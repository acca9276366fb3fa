"""What servers say of their tools: checked, bounded, and told to agents under the names of the manifest. Layer: pure.

A definition that is none is left out and named; the rest of the list counts. Hints about effects are the manifest's: a server's own
annotations say what it likes (faults.md T16).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_gateway.tools.names import Names, Upstream
from moorage_gateway.tools.pins import held_back

MOST_TOOLS = 512
"""Of one upstream."""
MOST_BYTES = 64 * 1024
"""Of one definition."""
MOST_LIST = 4 * 2**20
"""Of all definitions of a toolbox."""
NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}\Z")
_TEXTS = ("title", "description")


def checked(found: Any) -> dict[str, Any] | None:
    """A definition with what agents need of it; None for one that is none."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or NAME.match(found["name"]) is None:
        return None
    schema = found.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return None
    kept: dict[str, Any] = {"name": found["name"], "inputSchema": schema}
    for each in _TEXTS:
        if found.get(each) is not None:
            if not isinstance(found[each], str):
                return None
            kept[each] = found[each]
    output = found.get("outputSchema")
    if output is not None:
        if not isinstance(output, dict):
            return None
        kept["outputSchema"] = output
    return kept if len(orjson.dumps(kept)) <= MOST_BYTES else None


@dataclass(frozen=True)
class Told:
    """The tools of one server as agents are told of them. `wrong`: definitions left out because they are none. `held`: names of tools, as
    agents know them, whose definition is not the one that was approved. `title`: what the server calls itself."""

    tools: list[dict[str, Any]]
    wrong: int
    held: list[str]
    title: str = ""


def named(names: Names, upstream: Upstream, found: list[Any]) -> Told:
    """What agents are told of one server's list."""
    tools: dict[str, dict[str, Any]] = {}
    wrong, held = max(0, len(found) - MOST_TOOLS), []
    for each in found[:MOST_TOOLS]:
        tool = checked(each)
        if tool is None:
            wrong += 1
            continue
        own = tool["name"]
        shown = names.shown(upstream, own)
        if shown is None:
            continue
        if shown in tools or shown in held:
            wrong += 1
            continue
        if held_back(upstream, each):
            held.append(shown)
            continue
        hints = {"readOnlyHint": upstream.reads(own), "idempotentHint": upstream.repeats(own) or upstream.reads(own)}
        tools[shown] = tool | {"name": shown, "annotations": hints}
    return Told(list(tools.values()), wrong, held)
