"""What servers say of their tools: checked, bounded, and told to agents under the names of the manifest. Layer: pure.

A definition that is none is left out and named; the rest of the list counts. Hints about effects are the manifest's: a server's own
annotations say what it likes (faults.md T16).
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from moorage_gateway.tools.names import Names, Upstream

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


def named(names: Names, upstream: Upstream, found: list[Any]) -> tuple[list[dict[str, Any]], int]:
    """The tools of one server as agents are told of them, and how many definitions were left out because they are none."""
    tools: dict[str, dict[str, Any]] = {}
    wrong = max(0, len(found) - MOST_TOOLS)
    for each in found[:MOST_TOOLS]:
        tool = checked(each)
        if tool is None:
            wrong += 1
            continue
        own = tool["name"]
        shown = names.shown(upstream, own)
        if shown is None:
            continue
        if shown in tools:
            wrong += 1
            continue
        hints = {"readOnlyHint": upstream.reads(own), "idempotentHint": upstream.repeats(own) or upstream.reads(own)}
        tools[shown] = tool | {"name": shown, "annotations": hints}
    return list(tools.values()), wrong
