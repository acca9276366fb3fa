"""A question taken apart. Layer: pure."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from moorage_gateway.tool_search import about
from moorage_gateway.tool_search.compounds import Compounds
from moorage_gateway.tool_search.doings import DOINGS, LOOKS, begins, plainly
from moorage_gateway.tool_search.words import prose, stem

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Question:
    """A question (`text`). `plain`: with verbs in place of phrases; `words`: as they stand, no phrases; `joined`: neighbours as one word,
    as names have them; `doings`: what is to be done, `list` or `get` where nothing is said."""

    text: str
    plain: str
    words: tuple[str, ...]
    joined: tuple[str, ...]
    doings: frozenset[str]
    compounds: Compounds

    @classmethod
    def of(cls, text: str, compounds: Compounds) -> Question:
        """Any text, asked of the toolbox of `compounds`."""
        every = _WORD.findall(text.strip().lower())
        plain = plainly(text)
        found = prose(plain)
        said = begins(plain) or frozenset[str]().union(*(DOINGS.get(stem(word), frozenset()) for word in found))
        joined = tuple(
            "".join(every[start : start + count - 1]) + stem(every[start + count - 1])
            for count in (2, 3)
            for start in range(len(every) - count + 1)
        )
        words = tuple(dict.fromkeys(compounds.split(dict.fromkeys(found))))
        return cls(text, plain, words, joined, said or LOOKS, compounds)

    def about(self, servers: Set[str]) -> list[str]:
        """Words of the first thing that it names, but for stems of servers; empty where there is none."""
        return self.compounds.split(about.of_question(self.plain, servers))

    @property
    def stems(self) -> tuple[str, ...]:
        """Of the words, and what is joined."""
        return tuple(dict.fromkeys((*map(stem, self.words), *self.joined)))
