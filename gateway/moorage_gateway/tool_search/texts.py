"""What of a tool counts for finding it: its name, the beginning of its description, what it does, and whose it is. Layer: pure.

Words of the server's own name count once, for all of its tools alike, and not again where a description repeats them; so do those of
what it calls itself, by how much they tell it from the other servers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from moorage_gateway.tool_search import about
from moorage_gateway.tool_search.compounds import Compounds
from moorage_gateway.tool_search.doings import DOINGS
from moorage_gateway.tool_search.words import parts, prose, stem

SENTENCES = 2
"""Of a description: what is behind them is the same in too many tools."""
OF_MANY = 3
"""Servers that have a word in what they call themselves: it tells none of them, nor a tool (`Google`)."""
_END = re.compile(r"(?<=[.!?])\s")
_OF_NO_SERVER = frozenset(
    map(
        stem,
        "api apis openapi spec official rest service services server mcp v1 v2 v3 json new data extension platform".split(),
    )
)
"""What many call themselves, whatever they do."""


@dataclass(frozen=True)
class Tool:
    """What is known of a tool. `name`: as agents know it; `own`: as its server does, when that is another; `title`: what its server calls
    itself; `examples`: questions that it answers."""

    server: str
    name: str
    description: str = ""
    own: str = ""
    title: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
    """One tool's words, as they stand. `about`: of its name, what something is done with; `server`: stems of its server's name; `title`:
    and of what that calls itself; `heading`: its name's with its server's; `begin`: of its description."""

    name: tuple[str, ...]
    said: tuple[str, ...]
    about: tuple[str, ...]
    server: frozenset[str]
    title: frozenset[str]
    doings: frozenset[str]
    heading: str
    begin: str

    @classmethod
    def of(cls, tool: Tool, compounds: Compounds) -> Text:
        """Any tool."""
        called = compounds.split(parts(tool.server))
        server = frozenset(map(stem, (*called, *prose(tool.server))))
        title = server | (frozenset(map(stem, prose(tool.title))) - _OF_NO_SERVER)
        begin = beginning(tool)
        own = tool.own or tool.name
        name, said = compounds.split(parts(own)), prose(begin)
        doings = frozenset[str]().union(*(DOINGS.get(stem(word), frozenset()) for word in name))
        if not doings and said:
            doings = DOINGS.get(stem(said[0]), frozenset())
        keep = [tuple(word for word in words if stem(word) not in server) for words in (name, said)]
        thing = tuple(compounds.split(about.of_name(own)))
        return cls(keep[0], keep[1], thing, server, title, doings, " ".join((*called, *name)), begin)


def beginning(tool: Tool) -> str:
    """Of its description, what counts."""
    return " ".join(_END.split(tool.description, maxsplit=SENTENCES)[:SENTENCES])


class Groups:
    """Numbers of the tools that do something, or whose server is called so. `titles`: the same of what servers call themselves, with how
    much a word tells one from the others, from 0 to 1; `of_many`: words that tell none."""

    def __init__(self, texts: Sequence[Text]) -> None:
        self.doings = numbers_of([text.doings for text in texts])
        self.servers = numbers_of([text.server for text in texts])
        titles = {(text.server, text.title) for text in texts}
        counts = Counter(word for _, title in titles for word in title)
        self.titles = {
            word: (numbers, math.log((len(titles) + 0.5) / counts[word]) / math.log(len(titles) + 0.5))
            for word, numbers in numbers_of([text.title for text in texts]).items()
        }
        self.of_many = frozenset(word for word, count in counts.items() if count >= OF_MANY)


def numbers_of(sets: Sequence[Iterable[str]]) -> dict[str, np.ndarray]:
    """Of each word, the numbers of the sets that have it."""
    found: dict[str, list[int]] = {}
    for number, words in enumerate(sets):
        for word in words:
            found.setdefault(word, []).append(number)
    return {word: np.array(numbers) for word, numbers in found.items()}


def rarities(documents: Sequence[Iterable[str]]) -> dict[str, float]:
    """Each word's inverse frequency, as Lucene has it: never negative."""
    counts = Counter(word for document in documents for word in set(document))
    return {word: math.log(1 + (len(documents) - count + 0.5) / (count + 0.5)) for word, count in counts.items()}
