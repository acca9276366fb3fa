"""JSON-RPC with a program, of both eras of MCP. Layer: pure.

2025-11-25 and older   `initialize` and `notifications/initialized` once, then requests
2026-07-28             no handshake: version and capabilities in each request's `_meta`

The older handshake is tried first: every server of today knows it, and some of the older era end when they hear anything else first.
"""

from __future__ import annotations

import json
from typing import Any, Final

OLD: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NEW: Final = "2026-07-28"
META: Final = "io.modelcontextprotocol/"
METHOD_NOT_FOUND: Final = -32601


def request(number: int, method: str, params: dict[str, Any], *, modern: bool, client: dict[str, str]) -> bytes:
    """A line that asks. Raises ValueError for what JSON has no form for."""
    if modern:
        own = {"protocolVersion": NEW, "clientCapabilities": {}, "clientInfo": client}
        params = {**params, "_meta": {**(params.get("_meta") or {}), **{META + name: own[name] for name in own}}}
    return _line({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def notification(method: str, params: dict[str, Any]) -> bytes:
    """A line that is not answered."""
    return _line({"jsonrpc": "2.0", "method": method, "params": params})


def reply(asked: dict[str, Any]) -> bytes:
    """What a program is told that asks itself: a ping is answered, and of all else there is nothing here."""
    if asked.get("method") == "ping":
        return _line({"jsonrpc": "2.0", "id": asked["id"], "result": {}})
    error = {"code": METHOD_NOT_FOUND, "message": "This client has tools to call, and nothing to be asked for."}
    return _line({"jsonrpc": "2.0", "id": asked["id"], "error": error})


def initialize(client: dict[str, str]) -> dict[str, Any]:
    """The parameters of the older handshake."""
    return {"protocolVersion": OLD[-1], "capabilities": {}, "clientInfo": client}


def read(line: bytes) -> dict[str, Any] | None:
    """The message of a line; None for what is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("jsonrpc") == "2.0" else None


def answers(message: dict[str, Any]) -> int | None:
    """The id of the request that it answers; None for a request or a notification of the program's own."""
    number = message.get("id")
    mine = isinstance(number, int) and not isinstance(number, bool) and "method" not in message
    return number if mine and ("result" in message or "error" in message) else None


def is_request(message: dict[str, Any]) -> bool:
    """Whether the program waits for an answer."""
    return isinstance(message.get("method"), str) and isinstance(message.get("id"), str | int)


def speaks_old(message: dict[str, Any]) -> bool:
    """Whether an answer to `initialize` is a yes."""
    result = message.get("result")
    return isinstance(result, dict) and result.get("protocolVersion") in OLD


def speaks_new(message: dict[str, Any]) -> bool:
    """The same, of `server/discover`."""
    result = message.get("result")
    versions = result.get("supportedVersions") if isinstance(result, dict) else None
    return isinstance(versions, list) and NEW in versions


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
