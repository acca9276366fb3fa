"""What of a tool counts for finding it: its name, the beginning of its description, what it does, and whose it is. Layer: pure.

Words of the server's own name count once, for all of its tools alike, and not again where a description repeats them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moorage_gateway.tool_search.words import DOINGS, parts, prose, stem

SENTENCES = 2
"""Of a description: what is behind them is the same in too many tools."""
_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True)
class Tool:
    """What is known of a tool. `name`: as agents know it; `own`: as its server does, when that is another."""

    server: str
    name: str
    description: str = ""
    own: str = ""


@dataclass(frozen=True)
class Text:
    """One tool's words, as they stand. `heading`: with its server's; `begin`: of its description."""

    name: tuple[str, ...]
    said: tuple[str, ...]
    server: frozenset[str]
    doings: frozenset[str]
    heading: str
    begin: str

    @classmethod
    def of(cls, tool: Tool) -> Text:
        """Any tool."""
        server = frozenset(map(stem, (*parts(tool.server), *prose(tool.server))))
        begin = " ".join(_END.split(tool.description, maxsplit=SENTENCES)[:SENTENCES])
        name, said = parts(tool.own or tool.name), prose(begin)
        doings = frozenset[str]().union(*(DOINGS.get(stem(word), frozenset()) for word in name))
        if not doings and said:
            doings = DOINGS.get(stem(said[0]), frozenset())
        keep = [tuple(word for word in words if stem(word) not in server) for words in (name, said)]
        heading = " ".join((*parts(tool.server), *name))
        return cls(keep[0], keep[1], server, doings, heading, begin)


class Groups:
    """Numbers of the tools that do something, or whose server is called so."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.doings = _numbers([text.doings for text in texts])
        self.servers = _numbers([text.server for text in texts])


def _numbers(sets: Sequence[Iterable[str]]) -> dict[str, np.ndarray]:
    found: dict[str, list[int]] = {}
    for number, words in enumerate(sets):
        for word in words:
            found.setdefault(word, []).append(number)
    return {word: np.array(numbers) for word, numbers in found.items()}


def rarities(documents: Sequence[Iterable[str]]) -> dict[str, float]:
    """Each word's inverse frequency, as Lucene has it: never negative."""
    counts = Counter(word for document in documents for word in set(document))
    return {word: math.log(1 + (len(documents) - count + 0.5) / (count + 0.5)) for word, count in counts.items()}
