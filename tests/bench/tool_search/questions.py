"""The fixed questions, and which part each belongs to: tuning sees `tune`, never `held-out`. Pure.

`asked.tsv`: a line is the tool that was drawn (`server/name`, by `sample.py`), a tab, and how an agent's model would ask for it: it knows
its task and names the service, not the tool. All were written before anything was measured, and none was changed after.

`further.tsv` is of the same shape, about other tools of the same corpus, written later by somebody who knew neither the ranker nor what it
finds. A third of its tools, by another digest, is for tuning; that was settled before any of it was searched for.

`tuning.tsv` is of the same shape, about the tools of `tuning.jsonl`, which are of other services: all of it is for tuning.

`examples.tsv` has an example question for each tool of `tools.jsonl`, in its order, written by somebody who saw names, descriptions and
parameters, and neither these questions nor the ranker. It is what a toolbox' author would write; it is no question that is asked here.

What answers a question was fixed with them: the tool drawn, and every `same` one. Half of the tools, by a digest, are held out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_CHANGES = re.compile(r"(update|patch)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A question, with the tools that answer it."""

    text: str
    answers: frozenset[str]
    held_out: bool


def tools(file: str = "tools.jsonl") -> list[dict[str, Any]]:
    """All tools of the corpus: server, name, description, names of parameters, and the `title` of the server."""
    titles = dict(line.split("\t") for line in (_HERE / "titles.tsv").read_text("utf-8").splitlines())
    found = [json.loads(line) for line in (_HERE / file).read_text("utf-8").splitlines()]
    return [tool | {"title": titles[tool["server"]]} for tool in found]


def examples() -> dict[str, str]:
    """An example question of each of `tools`, by `key`."""
    return dict(line.split("\t") for line in (_HERE / "examples.tsv").read_text("utf-8").splitlines())


def tuning_tools() -> list[dict[str, Any]]:
    """Those of the other services."""
    return tools("tuning.jsonl")


def key(tool: dict[str, Any]) -> str:
    """As `asked.tsv` names a tool."""
    return f"{tool['server']}/{tool['name']}"


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether who asks for one is served as well by the other: `update` and `patch` of one thing, and nothing else."""
    if one["server"] != other["server"] or not (_CHANGES.search(one["name"]) and _CHANGES.search(other["name"])):
        return False
    return _CHANGES.sub("", one["name"]) == _CHANGES.sub("", other["name"])


def questions() -> list[Question]:
    """The first ones about `tools`."""
    return _read("asked.tsv", tools(), lambda name: hashlib.sha256(name.encode()).digest()[0] % 2 == 0)


def further_questions() -> list[Question]:
    """All about `tools` that were written later."""
    return _read("further.tsv", tools(), lambda name: hashlib.sha256(name.encode()).digest()[1] % 3 != 0)


def tuning_questions() -> list[Question]:
    """All about `tuning_tools`."""
    return _read("tuning.tsv", tuning_tools(), lambda _: False)


def _read(file: str, corpus: Sequence[dict[str, Any]], held_out: Callable[[str], bool]) -> list[Question]:
    by_key = {key(tool): tool for tool in corpus}
    found = []
    for line in (_HERE / file).read_text("utf-8").splitlines():
        name, _, text = line.partition("\t")
        answers = frozenset({name} | {key(tool) for tool in corpus if same(by_key[name], tool)})
        found.append(Question(text, answers, held_out(name)))
    return found


def recall(asked: Sequence[Question], find: Callable[[str], Sequence[str]], most: int) -> float:
    """The share of questions for which one of the first `most` tools found (by `key`) is an answer."""
    return sum(bool(each.answers & set(find(each.text)[:most])) for each in asked) / len(asked)
