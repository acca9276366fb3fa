"""The stock clients behind `helpers`: `mcp` for tools, `openai` for words. Imported only where an agent has one of them."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from . import errors
from .budget import Budget

LOOK_SECONDS = 0.2
LONGEST = 2000


class Toolbox:
    """Tools at one MCP URL; a connection for each call. `url` as `http://127.0.0.1:8099/toolboxes/workshop/mcp`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def call(self, name: str, arguments: dict[str, Any], budget: Budget) -> Any:
        """See `helpers.Tools`."""
        found = _wait(self._call(name, arguments), budget)
        text = found.content[0].text if found.content and found.content[0].type == "text" else ""
        if found.is_error:
            raise errors.Refused(text[:LONGEST] or f"The tool {name} failed.")
        try:
            return json.loads(text)
        except ValueError as fault:
            raise errors.Refused(f"The tool {name} answered with something that is no JSON.") from fault

    async def _call(self, name: str, arguments: dict[str, Any]) -> Any:
        import mcp

        try:
            async with mcp.Client(self._url) as tools:
                return await tools.call_tool(name, arguments)
        except (OSError, mcp.MCPError, ExceptionGroup) as fault:
            raise errors.Unreachable("The toolbox", "it does not answer as one") from fault


class Model:
    """A model by name, at the place that `openai`'s own variables say."""

    def __init__(self, name: str) -> None:
        self._name = name

    def say(self, instructions: str, text: str, budget: Budget) -> str:
        """See `helpers.Words`."""
        said: str = _wait(self._say(instructions, text), budget)
        return said

    async def _say(self, instructions: str, text: str) -> str:
        import openai

        messages: Any = [{"role": "system", "content": instructions}, {"role": "user", "content": text}]
        try:
            async with openai.AsyncOpenAI() as client:
                found = await client.chat.completions.create(model=self._name, messages=messages)
        except openai.APIStatusError as fault:
            raise errors.Refused(f"the model answered with HTTP {fault.status_code}") from fault
        except openai.OpenAIError as fault:
            raise errors.Unreachable("the model", "no connection") from fault
        return (found.choices[0].message.content or "") if found.choices else ""


def _wait(work: Coroutine[Any, Any, Any], budget: Budget) -> Any:
    """Runs it to its end, and looks meanwhile whether anybody still waits for the review. Raises `Cancelled`, `OutOfTime`."""

    async def watched() -> Any:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=budget.seconds(LOOK_SECONDS))
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(watched())
