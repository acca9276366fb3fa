"""Example questions of tools, as a toolbox's manifest has them: what a question is near to beside the tool's own text. Layer: pure.

Where only some tools have examples, these would bury all others: whatever an example adds, a tool without one gets what its own text lets
expect (`instead`), and all of it counts by the share of tools that have one. So a few examples are no harm to the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moorage_gateway.tool_search.asking import Question
from moorage_gateway.tool_search.compounds import Compounds
from moorage_gateway.tool_search.texts import Text, Tool
from moorage_gateway.tool_search.words import prose, stem


@dataclass(frozen=True)
class Example:
    """One. `of`: its tool's number; `stems`: of its words, those of its server left out; `doings`: what it wants done."""

    of: int
    text: str
    stems: tuple[str, ...]
    doings: frozenset[str]


class Examples:
    """Those of a toolbox: `every`, tool by tool. `share`: of the tools that have one, from 0 to 1."""

    def __init__(self, tools: Sequence[Tool], texts: Sequence[Text], compounds: Compounds) -> None:
        self.every: list[Example] = []
        owners, starts = [], []
        for number, (tool, text) in enumerate(zip(tools, texts, strict=True)):
            if tool.examples:
                owners.append(number)
                starts.append(len(self.every))
                self.every += [_example(number, each, text, compounds) for each in tool.examples]
        self._owners, self._starts = np.array(owners, np.int64), np.array(starts, np.int64)
        self.share = len(owners) / max(1, len(tools))

    def best(self, values: np.ndarray, instead: np.ndarray) -> np.ndarray:
        """Of `values`, one an example, each tool's greatest; `instead`, one a tool, for those without."""
        found = np.array(instead, np.float64)
        if len(self._owners):
            found[self._owners] = np.maximum.reduceat(values, self._starts)
        return found


def _example(of: int, text: str, tool: Text, compounds: Compounds) -> Example:
    stems = tuple(word for word in map(stem, compounds.split(prose(text))) if word not in tool.server)
    return Example(of, text, stems, Question.of(text, compounds).doings)
