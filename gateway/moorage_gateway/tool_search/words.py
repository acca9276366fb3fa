"""Words of tools and of questions: split, lower case, without the commonest words and endings.

Layer: pure. Names are split where case or `_` does; prose is not, for `GitHub` is one word there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_WORD = re.compile(r"[^\W_]+")
COMMON = frozenset(
    "a about an and any are as at be been by can could did do does for from had has have he her his how i if in into is it its may me my "
    "no not of on or our please she should so some than that the their them then there these they this those to using via was we were "
    "what when where which while who whom whose will with would you your".split()
)
"""Words that say nothing of a tool."""
_ENDINGS = ("ings", "ing", "ies", "ied", "es", "ed", "s", "e")
_SHORTEST = 3
"""Letters that stay of a word."""
_DOUBLE = frozenset("lsz")
"""Letters that stand twice at a word's end (`call`, `press`)."""


def parts(name: str) -> list[str]:
    """`listRepos_for` is list, repos."""
    return _kept(_PART.findall(name))


def prose(text: str) -> list[str]:
    """`The user's GitHub pages` is user, github, pages."""
    return _kept(_WORD.findall(text))


def _kept(found: Iterable[str]) -> list[str]:
    return [word for each in found if len(word := each.lower()) > 1 and word not in COMMON]


def stem(word: str) -> str:
    """Without its ending, where at least three letters stay."""
    if word.endswith("ves") and len(word) > len("lives"):
        return word[:-3] + "f"
    for ending in _ENDINGS:
        if not word.endswith(ending) or len(word) - len(ending) < _SHORTEST or (ending == "s" and word.endswith("ss")):
            continue
        short = word[: -len(ending)] + ("y" if ending in ("ies", "ied") else "")
        doubled = ending in ("ing", "ed") and len(short) > _SHORTEST and short[-1] == short[-2]
        return short[:-1] if doubled and short[-1] not in _DOUBLE else short
    return word
