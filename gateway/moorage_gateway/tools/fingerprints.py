"""What makes a tool call the same one in another attempt. Layer: pure.

A call is its toolbox, the name that agents know the tool by, its arguments, and what else stands in its parameters. Left out is what
clients vary without meaning it, and nothing else:

    the id of the message                   counted anew by each client
    order of keys, whitespace, escapes      compared as JSON; no `arguments` are empty ones
    all headers                             versions, routing, trace context
    of `_meta`: `PASSING`                   progress tokens, trace context, and what the protocol says of client and version

Both eras of the protocol make the same fingerprint: a client that is updated between two attempts meets its calls again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from moorage_gateway.tools.rpc import META

LENGTH = 40  # hex digits: 160 bits
PASSING = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})


def of_call(toolbox: str, params: dict[str, Any]) -> str:
    """Hex, of a `tools/call`."""
    said = {name: value for name, value in params.items() if name != "_meta"}
    said["arguments"] = params.get("arguments") or {}
    meta = lasting(params.get("_meta"))
    return _digest([toolbox, "tools/call", said, meta])


def of_list(toolbox: str, *, searching: bool = False) -> str:
    """Hex, of a `tools/list`: there is one page, and another one for whoever searches. One attempt may read both, in any order."""
    return _digest([toolbox, "tools/list", *(["searching"] if searching else [])])


def lasting(meta: Any) -> dict[str, Any]:
    """What of a `_meta` has a meaning for the tool."""
    found = meta if isinstance(meta, dict) else {}
    return {name: value for name, value in found.items() if name not in PASSING and not name.startswith(META)}


def _digest(said: Any) -> str:
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:LENGTH]
