"""Names that are written as one word: `onetimeproducts`. Layer: pure.

What the words in it are is known from the descriptions of the same toolbox: no list of words of a language would know theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from moorage_gateway.tool_search.doings import DOINGS
from moorage_gateway.tool_search.things import THINGS
from moorage_gateway.tool_search.words import stem

SHORTEST = 3
"""Letters of a part."""
LEAST = 8
"""Letters of a word that may be several."""
OFTEN = 3
"""Descriptions that have a word: fewer may have it by mistake, or because a name is repeated in them."""
MOST = 4
"""Parts of a word."""
LONGEST = 40
"""Letters of a word that is taken apart: the work grows with their square."""


class Compounds:
    """Takes words of one toolbox apart. `known`: whether a word is one of the language."""

    def __init__(self, descriptions: Iterable[Sequence[str]], known: Callable[[str], bool]) -> None:
        counts = Counter(word for words in descriptions for word in {stem(each) for each in words})
        self._often = frozenset(word for word, count in counts.items() if count >= OFTEN and len(word) >= SHORTEST)
        self._known = known

    def split(self, words: Iterable[str]) -> list[str]:
        """The same words, those that are several as their parts."""
        return [part for word in words for part in self._parts(word)]

    def _parts(self, word: str) -> Sequence[str]:
        if not LEAST <= len(word) <= LONGEST or not word.isalpha() or self._is_one(word):
            return (word,)
        best: dict[int, tuple[int, int, tuple[str, ...]]] = {
            0: (0, 0, ())
        }  # the fewest parts, then the most alike in length
        for end in range(SHORTEST, len(word) + 1):
            found = [
                (best[start][0] + 1, best[start][1] + (end - start) ** 2, (*best[start][2], word[start:end]))
                for start in range(end - SHORTEST + 1)
                if start in best and best[start][0] < MOST and stem(word[start:end]) in self._often
            ]
            if found:
                best[end] = min(found)
        return best[len(word)][2] if len(word) in best else (word,)

    def _is_one(self, word: str) -> bool:
        short = stem(word)
        return short in self._often or short in THINGS or short in DOINGS or self._known(word)
