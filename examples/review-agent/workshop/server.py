"""The shelf as an MCP server, and a log with a line as each call begins and one as it ends."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from review import errors

from .repositories import Shelf

SHOWN = 60
Note = Callable[[dict[str, Any]], Awaitable[None]]


def served(shelf: Shelf, note: Note, *, slow: float = 0.0) -> MCPServer:
    """The server. `note` is awaited with each line of the log; every call takes `slow` seconds longer than it would."""
    server = MCPServer("workshop", instructions="Git repositories and packages, for reviews.")
    numbers = itertools.count(1)

    async def run(tool: str, ctx: Context[Any, Any], work: Callable[..., dict[str, Any]], **arguments: Any) -> str:
        number = next(numbers)
        shown = {name: value[:SHOWN] if isinstance(value, str) else value for name, value in arguments.items()}
        call = (ctx.request_context.meta or {}).get("dev.moorage/callId")
        await note({"began": number, "tool": tool, "arguments": shown, "id": call})
        await asyncio.sleep(slow)
        try:
            return json.dumps(await asyncio.to_thread(work, **arguments))
        except errors.ReviewError as fault:
            raise ToolError(str(fault)) from fault
        finally:
            await note({"ended": number})

    @server.tool(structured_output=False)
    async def git_commit(repository: str, revision: str, ctx: Context[Any, Any]) -> str:
        """The full hash of a branch, a tag or a commit."""
        return await run("git_commit", ctx, shelf.commit, repository=repository, revision=revision)

    @server.tool(structured_output=False)
    async def git_files(repository: str, commit: str, ctx: Context[Any, Any], first: int = 0) -> str:
        """Source files of a commit from number `first` on, a page at a time: `files`, `next`, `oversized`."""
        return await run("git_files", ctx, shelf.files, repository=repository, commit=commit, first=max(first, 0))

    @server.tool(structured_output=False)
    async def git_note(repository: str, commit: str, text: str, ctx: Context[Any, Any]) -> str:
        """Attaches a review to a commit, behind those that are there: `reviews` says how many they are now."""
        return await run("git_note", ctx, shelf.note, repository=repository, commit=commit, text=text)

    @server.tool(structured_output=False)
    async def package_licence(name: str, requirement: str, ctx: Context[Any, Any]) -> str:
        """The licence of the newest release of a package that a requirement like `>=2` allows."""
        return await run("package_licence", ctx, shelf.licence, name=name, requirement=requirement)

    return server
