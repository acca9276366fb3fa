"""Messages of MCP as servers send them: counted, without their own credential, and checked. Layer: pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from moorage_api.errors import ApiError
from moorage_gateway.request import parse_json
from moorage_gateway.tools import rpc
from moorage_gateway.tools.opening import Opening
from moorage_gateway.tools.results import MOST_TEXT
from moorage_gateway.tools.servers import MOST_TITLE, ToolFault, ToolRefusal

MOST_PAGES = 32


class Events:
    """The events of a stream of them, out of its pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def of(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Name and data of each event that this piece ends."""
        looked = max(0, len(self._held) - 1)
        self._held += piece.replace(b"\r", b"")
        while (end := self._held.find(b"\n\n", looked)) >= 0:
            event, looked = bytes(self._held[:end]), 0
            del self._held[: end + 2]
            name, data = b"message", []
            for line in event.split(b"\n"):
                field, _, value = line.partition(b":")
                if field == b"event":
                    name = value.removeprefix(b" ")
                elif field == b"data":
                    data.append(value.removeprefix(b" "))
            if data:
                yield name[:64].decode("latin-1"), b"\n".join(data)


class Reading:
    """What one server says within one call: at most `most` bytes of it."""

    def __init__(self, opening: Opening, most: int) -> None:
        self._opening = opening
        self._most = most
        self._taken = 0

    def begin(self) -> None:
        """What was said until now was of a handshake."""
        self._taken = 0

    def take(self, piece: bytes) -> None:
        """Counts it, over all pages of a list. Raises ToolFault."""
        self._taken += len(piece)
        if self._taken > self._most:
            raise ToolFault(f"its answer is longer than {self._most} bytes", sent=True, large=True)

    def parsed(self, data: bytes) -> dict[str, Any] | None:
        """A message. A server that says its own credential does not get it past here."""
        try:
            found = parse_json(self._opening.concealed(data), rpc.LIMITS)
        except ApiError:
            return None
        return found if isinstance(found, dict) else None


def result_of(message: dict[str, Any] | None, number: int, status: int) -> dict[str, Any]:
    """The result under that id; `status` of HTTP. Raises ToolFault, ToolRefusal."""
    if message is None or message.get("jsonrpc") != "2.0" or not _is_to(message, number):
        if status != 200:
            raise ToolFault(f"it answered {status}", sent=True, status=status)
        raise ToolFault("its answer is no answer of MCP", sent=True)
    error = message.get("error")
    if isinstance(error, dict):
        code, text = error.get("code"), error.get("message")
        code = code if isinstance(code, int) else rpc.INTERNAL
        raise ToolRefusal(code, str(text)[:MOST_TEXT], status=status, named=message.get("id") == number)
    result = message.get("result")
    if not isinstance(result, dict):
        raise ToolFault("its answer has no result", sent=True)
    return result


def answers(message: dict[str, Any] | None, number: int) -> bool:
    """Whether it is what that request waits for, among all that comes over a stream."""
    return message is not None and message.get("id") == number and "method" not in message


async def listed(ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]) -> list[Any]:
    """All pages of a list of tools, `ask`ed for by their parameters. Raises ToolFault, and what `ask` raises."""
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        answer = await ask({} if cursor is None else {"cursor": cursor})
        tools, following = answer.get("tools"), answer.get("nextCursor")
        if not isinstance(tools, list):
            raise ToolFault("its list of tools is none", sent=True)
        found += tools
        if not isinstance(following, str):
            return found
        cursor = following
    raise ToolFault(f"its list of tools has more than {MOST_PAGES} pages", sent=True)


def _is_to(message: dict[str, Any], number: int) -> bool:
    """Whether it answers that request: an error to what could not be read has no id."""
    return message.get("id") == number or isinstance(message.get("error"), dict)


def title_of(greeted: dict[str, Any]) -> str:
    """What a server calls itself in its answer to either handshake, cut; empty where it does not say."""
    meta = greeted.get("_meta")
    who = greeted.get("serverInfo") or (meta.get(f"{rpc.META}serverInfo") if isinstance(meta, dict) else None)
    if not isinstance(who, dict):
        return ""
    title = who.get("title") or who.get("name")
    return title[:MOST_TITLE] if isinstance(title, str) else ""
