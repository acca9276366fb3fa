"""An index of tools, made once a toolbox version: BM25 and vectors, fused by reciprocal rank. Layer: pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moorage_gateway.tool_search.asking import Question
from moorage_gateway.tool_search.compounds import Compounds
from moorage_gateway.tool_search.examples import Examples
from moorage_gateway.tool_search.lexical import Lexical
from moorage_gateway.tool_search.meaning import Meaning
from moorage_gateway.tool_search.table import Table
from moorage_gateway.tool_search.texts import Groups, Text, Tool, beginning
from moorage_gateway.tool_search.words import prose

DEEP = 100
"""Ranks of each list that count."""
FLAT = 3.0
"""Added to each rank: how little the first places stand out."""
SHARES = (1.0, 2.0)
"""What a place among the words counts, and one among the vectors."""
MOST_QUERY = 2000
"""Characters of a question; what is behind them does not count."""
MOST_WORDS = 64
"""Of a question, the same."""


class Index:
    """Finds the tools of one toolbox version."""

    def __init__(self, tools: Sequence[Tool], compounds: Compounds, lexical: Lexical, meaning: Meaning) -> None:
        self.tools = tuple(tools)
        self._compounds, self._lexical, self._meaning = compounds, lexical, meaning

    @classmethod
    def of(cls, tools: Sequence[Tool], table: Table) -> Index:
        """The index of these tools; under 1 ms a tool."""
        compounds = Compounds((prose(beginning(tool)) for tool in tools), table.knows)
        texts = [Text.of(tool, compounds) for tool in tools]
        groups = Groups(texts)
        examples = Examples(tools, texts, compounds)
        return cls(tools, compounds, Lexical(texts, groups, examples), Meaning(texts, groups, examples, table))

    def search(self, query: str, most: int) -> list[Tool]:
        """The tools that fit the question best, best first."""
        lists = (self.by_words(query), self.by_meaning(query))
        return [self.tools[number] for number in fused(lists, SHARES)[:most]]

    def by_words(self, query: str) -> list[int]:
        """Numbers of the tools that share a word with it, best first."""
        return _best(self._lexical.scores(self._question(query)), -np.inf)

    def by_meaning(self, query: str) -> list[int]:
        """Numbers of the tools that are nearest to it, nearest first; none when it has no known word."""
        return _best(self._meaning.scores(self._question(query)), 0.0)

    def _question(self, query: str) -> Question:
        return Question.of(" ".join(query[:MOST_QUERY].split()[:MOST_WORDS]), self._compounds)


def fused(lists: Sequence[Sequence[int]], shares: Sequence[float]) -> list[int]:
    """One order from several: each place counts its list's share / (FLAT + rank)."""
    scores: dict[int, float] = {}
    for each, share in zip(lists, shares, strict=True):
        for rank, number in enumerate(each, 1):
            scores[number] = scores.get(number, 0.0) + share / (FLAT + rank)
    return sorted(scores, key=lambda number: (-scores[number], number))


def _best(scores: np.ndarray, none: float) -> list[int]:
    """Best first; equal ones in their order."""
    order = np.argsort(-scores, kind="stable")[:DEEP]
    return [int(number) for number in order if scores[number] > none]
