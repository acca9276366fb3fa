"""What a review may ask of others, and how: tools at one MCP URL, and a model for words. Both are optional, and whatever they say is data.

`clients.py` has the real ones. Requests hold nothing but findings: a later attempt asks the same, and is answered what the first one was.
"""

from typing import Any, Protocol

from . import errors, render
from .budget import Budget

LONGEST_WORDS = 1200
ASK = "Say in two sentences, for a busy maintainer, what these findings of a code review mean. Say nothing that is not in them."


class Tools(Protocol):
    """`call` gives what the tool answered. Raises `Refused` for a tool's error, `Unreachable`, `Cancelled`, `OutOfTime`."""

    def call(self, name: str, arguments: dict[str, Any], budget: Budget) -> Any: ...


class Words(Protocol):
    """`say` gives a model's answer to a text. Raises as `Tools` does."""

    def say(self, instructions: str, text: str, budget: Budget) -> str: ...


class ToolLicences:
    """Licences of dependencies by the tools; see `licences.Licences`."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._asked = 0
        self._left_out = 0

    def of(self, name: str, rest: str, budget: Budget) -> str | None:
        """See `Licences`."""
        if self._asked >= budget.limits.licence_lookups:
            self._left_out += 1
            return None
        self._asked += 1
        try:
            found = self._tools.call("package_licence", {"name": name, "requirement": rest}, budget)
        except (errors.Refused, errors.Unreachable):
            self._left_out += 1
            return None
        licence = found.get("licence") if isinstance(found, dict) else None
        return str(licence) if licence else None

    def notes(self) -> list[str]:
        """How many are unknown because nobody could be asked."""
        return [f"{self._left_out} licences were not looked up."] if self._left_out else []


def worded(words: Words, findings: str, budget: Budget) -> str:
    """One paragraph about the findings of a section; of a model that gives none, a line that says so."""
    try:
        said = render.plain(words.say(ASK, findings, budget))
    except (errors.Refused, errors.Unreachable) as fault:
        return f"*No words for this: {render.plain(str(fault))}*\n"
    said = said if len(said) <= LONGEST_WORDS else said[: LONGEST_WORDS - 1] + "…"
    return f"**In words:** {said}\n"
