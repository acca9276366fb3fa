"""Tool search: how many questions find no tool that answers them, what a search costs in time, and what it saves in tokens.

The corpus is 1,334 tools of APIs as two packages describe them; figures of quality are of the held-out questions, BM25 alone and vectors
alone beside both fused. Times are of this process, which does nothing else.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import figures
from bench.effort import Effort
from bench.report import Line
from bench.tool_search.questions import (
    Question,
    further_questions,
    key,
    questions,
    recall,
    tools,
    tuning_questions,
    tuning_tools,
)
from moorage_gateway.tool_search import Answers, Index, Table, Tool
from moorage_gateway.tools import meta

FOUND = 5
GOALS = {3: 0.15, 5: 0.08}


def measure(effort: Effort) -> list[Line]:
    """All lines."""
    table, corpus = Table.load(), tools()
    began = time.process_time()
    index = _index(corpus, table)
    made = time.process_time() - began
    lines = _quality(index, [each for each in (*questions(), *further_questions()) if each.held_out])
    lines += _tuned(index, _index(tuning_tools(), table))
    lines.append(Line("tool-search-index", made * 1e3, "ms CPU", note=f"{len(corpus)} tools, once a toolbox version"))
    return [*lines, *_times(index, effort), _tokens(index, table, corpus)]


def _index(corpus: Sequence[dict[str, Any]], table: Table) -> Index:
    return Index.of(
        [Tool(each["server"], key(each), each["description"], each["name"], each["title"]) for each in corpus], table
    )


def _tuned(index: Index, other: Index) -> list[Line]:
    """The same of the questions that the rules were tuned on: how much better than the held-out ones says how far they fit these alone."""
    own = [each for each in (*questions(), *further_questions()) if not each.held_out]
    return [*_missed("-tuned", index, own), *_missed("-tuned-other", other, tuning_questions())]


def _missed(name: str, index: Index, asked: Sequence[Question]) -> list[Line]:
    def find(text: str) -> list[str]:
        return [tool.name for tool in index.search(text, FOUND)]

    note = f"{len(asked)} questions for tuning, {len(index.tools)} tools"
    return [
        Line(f"tool-search-missed-{most}{name}", 1 - recall(asked, find, most), "share", note=note) for most in GOALS
    ]


def _quality(index: Index, asked: Sequence[Question]) -> list[Line]:
    ways: dict[str, Callable[[str], Sequence[str]]] = {
        "": lambda text: [tool.name for tool in index.search(text, FOUND)],
        "-words": lambda text: [index.tools[number].name for number in index.by_words(text)],
        "-vectors": lambda text: [index.tools[number].name for number in index.by_meaning(text)],
    }
    return [
        Line(
            f"tool-search-missed-{most}{way}", 1 - recall(asked, find, most), "share",
            goal=None if way else GOALS[most], note=f"{len(asked)} held-out questions, {len(index.tools)} tools",
        )
        for most, (way, find) in itertools.product(GOALS, ways.items())
    ]  # fmt: skip


def _times(index: Index, effort: Effort) -> list[Line]:
    first: list[float] = []
    again: list[float] = []
    for number in range(effort.repetitions):
        answers = Answers()
        for each in questions():
            for kept in (first, again):
                began = time.perf_counter()
                answers.of(index, "1", f"session-{number}", each.text, FOUND)
                kept.append((time.perf_counter() - began) * 1e3)
    short = f"p50 {figures.short(figures.median(first))}"
    began = time.process_time()
    for each in questions():
        index.search(each.text, FOUND)
    spent = (time.process_time() - began) * 1e3 / len(questions())
    return [
        Line("tool-search-cpu", spent, "ms CPU", note="a search"),
        Line("tool-search-first", figures.percentile(first, 99), "ms p99", goal=20, note=short),
        Line("tool-search-again", figures.percentile(again, 99), "ms p99", goal=2, note="kept: 0 searches"),
    ]


def _tokens(index: Index, table: Table, corpus: Sequence[dict[str, Any]]) -> Line:
    """What a model reads of two meta tools and of the mean answer, by what it reads of all tools."""
    every = {key(each): _definition(each) for each in corpus}

    def cost(definitions: Sequence[dict[str, Any]]) -> int:
        return sum(table.tokens(json.dumps(each)) for each in definitions)

    asked = questions()
    answers = sum(cost([every[tool.name] for tool in index.search(each.text, FOUND)]) for each in asked) / len(asked)
    shown = cost(meta.described("t", sorted({each["server"] for each in corpus})))
    return Line(
        "tool-search-tokens", (shown + answers) / cost(list(every.values())), "of all tools", goal=0.15,
        note=f"two meta tools and {FOUND} found, by {len(corpus)} listed",
    )  # fmt: skip


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    properties = {each: {"type": "string"} for each in tool["parameters"]}
    schema = {"type": "object", "properties": properties}
    return {"name": key(tool), "description": tool["description"], "inputSchema": schema}
