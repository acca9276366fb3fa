"""The pieces of a text in a vocabulary of BERT (uncased): longest match first, `##` before what goes on. Layer: pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

LONGEST = 100
"""Characters of a word; a longer one is no word."""
_WORD = re.compile(r"\w+|[^\w\s]")


def pieces(text: str, vocabulary: Mapping[str, int]) -> list[int]:
    """Numbers of the pieces; a word that has none in the vocabulary is left out."""
    found: list[int] = []
    for word in _WORD.findall(plain(text)):
        found += _of_word(word, vocabulary)
    return found


def plain(text: str) -> str:
    """Lower case, without accents."""
    apart = unicodedata.normalize("NFD", text.lower())
    return "".join(each for each in apart if unicodedata.category(each) != "Mn")


def _of_word(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    if len(word) > LONGEST:
        return []
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            number = vocabulary.get(("##" if start else "") + word[start:end])
            if number is not None:
                break
        else:
            return []
        found.append(number)
        start = end
    return found
