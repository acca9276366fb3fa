"""Tool search: how many questions find no tool that answers them, what a search costs in time, and what it saves in tokens.

The corpus is 1,334 tools of APIs as two packages describe them; figures of quality are of the held-out questions, BM25 alone and vectors
alone beside both fused; all of it without example questions of the tools, and with one each (`-examples`). Times are of this process,
which does nothing else.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import figures
from bench.effort import Effort
from bench.report import Line
from bench.tool_search.questions import (
    Question,
    examples,
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
    lines, index = _all("", corpus, table, {}, effort)
    lines += _missed("-tuned-other", _index(tuning_tools(), table, {}), tuning_questions())
    lines.append(_tokens(index, table, corpus))
    return lines + _all("-examples", corpus, table, examples(), effort)[0]


def _all(
    end: str, corpus: Sequence[dict[str, Any]], table: Table, asked: Mapping[str, str], effort: Effort
) -> tuple[list[Line], Index]:
    """Quality and times with these examples, and the index."""
    began = time.process_time()
    index = _index(corpus, table, asked)
    made = time.process_time() - began
    every = [*questions(), *further_questions()]
    lines = _quality(index, end, [each for each in every if each.held_out])
    # Rules were tuned on these: how much better than the held-out ones says how far they fit these alone.
    lines += _missed(f"{end}-tuned", index, [each for each in every if not each.held_out])
    note = f"{len(corpus)} tools, once a toolbox version"
    lines.append(Line(f"tool-search-index{end}", made * 1e3, "ms CPU", note=note))
    return lines + _times(index, end, effort), index


def _index(corpus: Sequence[dict[str, Any]], table: Table, asked: Mapping[str, str]) -> Index:
    """`asked`: example questions by `key`."""
    made = [
        Tool(
            each["server"], key(each), each["description"], each["name"], each["title"],
            (asked[key(each)],) if key(each) in asked else (),
        )
        for each in corpus
    ]  # fmt: skip
    return Index.of(made, table)


def _missed(name: str, index: Index, asked: Sequence[Question]) -> list[Line]:
    def find(text: str) -> list[str]:
        return [tool.name for tool in index.search(text, FOUND)]

    note = f"{len(asked)} questions for tuning, {len(index.tools)} tools"
    return [
        Line(f"tool-search-missed-{most}{name}", 1 - recall(asked, find, most), "share", note=note) for most in GOALS
    ]


def _quality(index: Index, end: str, asked: Sequence[Question]) -> list[Line]:
    ways: dict[str, Callable[[str], Sequence[str]]] = {
        "": lambda text: [tool.name for tool in index.search(text, FOUND)],
        "-words": lambda text: [index.tools[number].name for number in index.by_words(text)],
        "-vectors": lambda text: [index.tools[number].name for number in index.by_meaning(text)],
    }
    return [
        Line(
            f"tool-search-missed-{most}{end}{way}", 1 - recall(asked, find, most), "share",
            goal=None if way else GOALS[most], note=f"{len(asked)} held-out questions, {len(index.tools)} tools",
        )
        for most, (way, find) in itertools.product(GOALS, ways.items())
    ]  # fmt: skip


def _times(index: Index, end: str, effort: Effort) -> list[Line]:
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
        Line(f"tool-search-cpu{end}", spent, "ms CPU", note="a search"),
        Line(f"tool-search-first{end}", figures.percentile(first, 99), "ms p99", goal=20, note=short),
        Line(f"tool-search-again{end}", figures.percentile(again, 99), "ms p99", goal=2, note="kept: 0 searches"),
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
