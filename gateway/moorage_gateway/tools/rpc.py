"""What MCP clients say to a toolbox, and how they are answered: one POST, one JSON answer, no session (protocols.md §6). Layer: pure.

2025-11-25 and older   `initialize`, then requests with the header `MCP-Protocol-Version`; we give no session id, so none comes back
2026-07-28             no handshake: version and capabilities in each request's `_meta`, repeated in headers that must agree

Rejected   raised for what is no request of either; holds its answer
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Final

import orjson

from moorage_api.errors import ApiError, Kind
from moorage_api.wire.calls import MAX_BODY
from moorage_gateway.journal.answers import Answer
from moorage_gateway.request import JsonLimits, parse_json

OLD: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NEW: Final = "2026-07-28"
META: Final = "io.modelcontextprotocol/"

PARSE, INVALID, METHOD, PARAMS, INTERNAL = -32700, -32600, -32601, -32602, -32603
MISMATCH, UNSUPPORTED = -32020, -32022
_STATUS = {PARSE: 400, INVALID: 400, PARAMS: 400, MISMATCH: 400, UNSUPPORTED: 400, METHOD: 404}
"""Of an error in the newer era; in the older one an error that has an id is an answer like any other."""
_JSON = (("content-type", "application/json"),)
_MOST_ID = 256
LIMITS = JsonLimits(size=MAX_BODY, depth=128, containers=200_000)
"""Of a message, whoever's: deeper ones cannot be written again."""

Id = str | int


class Rejected(Exception):
    """It is answered so."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class Message:
    """One request."""

    id: Id
    method: str
    params: dict[str, Any]
    modern: bool

    @property
    def meta(self) -> dict[str, Any]:
        """Its `_meta`."""
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}


def read(headers: tuple[tuple[str, str], ...], body: bytes) -> Message | None:
    """The request of a POST; None for a notification, or an answer to nobody. Raises Rejected."""
    try:
        said = parse_json(body, LIMITS)
    except ApiError as fault:
        code = PARSE if fault.kind is Kind.INVALID_JSON else INVALID
        raise Rejected(failure(400, None, code, fault.message)) from None
    if not isinstance(said, dict) or said.get("jsonrpc") != "2.0":
        what = "a list: batches are not part of MCP" if isinstance(said, list) else "no JSON-RPC 2.0 message"
        raise Rejected(failure(400, None, INVALID, f"The body is {what}."))
    method, number = said.get("method"), said.get("id")
    if method is None and ("result" in said or "error" in said):
        return None
    if not isinstance(method, str) or len(method) > _MOST_ID:
        raise Rejected(failure(400, None, INVALID, "The message has no method."))
    if "id" not in said:
        return None
    if isinstance(number, bool) or not isinstance(number, str | int) or len(str(number)) > _MOST_ID:
        raise Rejected(failure(400, None, INVALID, f"An id is a number or a text of at most {_MOST_ID} characters."))
    params = said.get("params", {})
    if not isinstance(params, dict) or not isinstance(params.get("_meta", {}), dict):
        raise Rejected(failure(400, number, PARAMS, "params, and _meta in it, are objects."))
    given = {name.lower(): value.strip(" \t") for name, value in headers}
    message = Message(number, method, params, _modern(given, method, params))
    if message.modern:
        _check_modern(given, message)
    else:
        version = given.get("mcp-protocol-version")
        if version is not None and version not in OLD and method != "initialize":
            raise Rejected(_unsupported(message, version))
    return message


def _modern(headers: dict[str, str], method: str, params: dict[str, Any]) -> bool:
    if f"{META}protocolVersion" in params.get("_meta", {}):
        return True
    return method != "initialize" and headers.get("mcp-protocol-version") == NEW


def _check_modern(headers: dict[str, str], message: Message) -> None:
    version = message.meta.get(f"{META}protocolVersion")
    if not isinstance(version, str) or not isinstance(message.meta.get(f"{META}clientCapabilities"), dict):
        said = f"_meta has {META}protocolVersion and {META}clientCapabilities in every request of {NEW}."
        raise Rejected(failure(400, message.id, PARAMS, said))
    wanted = {"mcp-protocol-version": version, "mcp-method": message.method}
    if message.method == "tools/call":
        wanted["mcp-name"] = str(message.params.get("name", ""))
    for name, value in wanted.items():
        if _decoded(headers.get(name)) != value:
            said = f"The header {name} does not say what the body says."
            raise Rejected(failure(400, message.id, MISMATCH, said))
    if version != NEW:
        raise Rejected(_unsupported(message, version))


def _decoded(value: str | None) -> str | None:
    """A header's text: what is not printable ASCII comes as `=?base64?…?=`."""
    if value is None or not (value.startswith("=?base64?") and value.endswith("?=")):
        return value
    try:
        return base64.b64decode(value[9:-2], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def _unsupported(message: Message, version: str) -> Answer:
    data = {"supported": [NEW, *reversed(OLD)], "requested": version[:64]}
    return failure(400, message.id, UNSUPPORTED, "Unsupported protocol version", data)


def failure(status: int, number: Id | None, code: int, message: str, data: Any = None) -> Answer:
    """A JSON-RPC error that is told and not recorded."""
    error = {"code": code, "message": message} | ({"data": data} if data is not None else {})
    return Answer(status, _JSON, orjson.dumps({"jsonrpc": "2.0", "id": number, "error": error}))


def accepted() -> Answer:
    """To a notification."""
    return Answer(202, (), b"")


def refuse(message: Message, code: int, text: str) -> Answer:
    """An error to this request, told and not recorded."""
    return failure(_STATUS.get(code, 200) if message.modern else 200, message.id, code, text)


# -- what the journal holds of an answer has no id: the attempt that meets it again asked under another one


def result(found: dict[str, Any]) -> Answer:
    """An answer as it is recorded."""
    return Answer(200, _JSON, orjson.dumps({"result": found}))


def error(code: int, text: str) -> Answer:
    """The same, of an error."""
    return Answer(200, _JSON, orjson.dumps({"error": {"code": code, "message": text}}))


def refusal_text(answer: Answer) -> str | None:
    """Of an answer that no toolbox made (a journal that is full, or lost): its words. None for one of ours."""
    if answer.status == 200:
        return None
    try:
        return str(orjson.loads(answer.body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"The platform answered {answer.status}."


def shown(message: Message, recorded: Answer) -> Answer:
    """A recorded answer as this request's client reads it."""
    said = orjson.loads(recorded.body)
    status = 200
    if message.modern and "result" in said:
        said["result"].setdefault("resultType", "complete")
        if message.method != "tools/call":
            said["result"] |= {"ttlMs": 0, "cacheScope": "private"}
    elif message.modern:
        status = _STATUS.get(said["error"]["code"], 200)
    return Answer(status, recorded.headers, orjson.dumps({"jsonrpc": "2.0", "id": message.id, **said}))


def greeting(message: Message, name: str, version: str, instructions: str) -> Answer | None:
    """What is answered without anybody being asked: the handshakes of both eras, and `ping`. None for every other method."""
    who = {"name": f"moorage/{name}", "version": version}
    more = {"instructions": instructions} if instructions else {}
    found: dict[str, Any]
    match message.method, message.modern:
        case "initialize", False:
            asked = message.params.get("protocolVersion")
            chosen = asked if asked in OLD else OLD[-1]
            found = {"protocolVersion": chosen, "capabilities": {"tools": {}}, "serverInfo": who, **more}
        case "ping", False:
            found = {}
        case "server/discover", True:
            found = {"supportedVersions": [NEW, *reversed(OLD)], "capabilities": {"tools": {}}, **more}
            found["_meta"] = {f"{META}serverInfo": who}
        case _:
            return None
    return shown(message, result(found))
