"""What a tool's name and a question are about: the thing that something is done with, apart from where it is. Layer: pure.

`gists_create_comment` is about a comment, `courses_students_list` about students; `leave a comment on a gist` about a comment.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from moorage_gateway.tool_search.doings import DOINGS, FIRST
from moorage_gateway.tool_search.words import COMMON, prose, stem

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SAID = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_SEGMENT = re.compile(r"[_./-]+")
_BESIDE = frozenset(
    "of in from to for on with about into by at that which who whose where used via per across within between against under over onto off "
    "after before behind".split()
)
"""What stands behind one of these is where the thing is, or whose."""
_ENDS = _BESIDE | frozenset("is are has have can and or as was were be".split())
_WHICH = frozenset(
    "all every one new each existing some several available different single specific given particular first my own many more "
    "current".split()
)
_HOW = frozenset({"batch", "async"})
_LAST = 2
"""Words of a name without a verb that are taken for what it is about."""


def of_name(name: str) -> list[str]:
    """Words of a tool's own name, lower case; at least one if it has any."""
    found_in = ([word.lower() for word in _WORD.findall(each)] for each in _SEGMENT.split(name))
    segments = [segment for segment in found_in if segment]
    if not segments:
        return []
    words = [(word, place) for place, segment in enumerate(segments) for word in segment]
    verb = _verb(segments, [word for word, _ in words])
    if verb is None:
        return [word for word, _ in words[:-1]][-_LAST:] or [word for word, _ in words]
    found: list[str] = []
    for word, _ in words[verb + 1 :]:
        if word in _BESIDE:
            break
        if word not in _HOW and word not in COMMON:
            found.append(word)
    before = words[verb][1]
    while not found and before > 0:
        before -= 1
        found = list(segments[before])
    return found or [word for word, _ in words]


def _verb(segments: Sequence[Sequence[str]], words: Sequence[str]) -> int | None:
    """Where the verb is: it begins the last segment of most names, and in others stands before what it is done with."""
    verbs = [place for place, word in enumerate(words) if stem(word) in DOINGS]
    last = len(words) - len(segments[-1])
    between = [place for place in verbs if 0 < place < len(words) - 1]
    if last in verbs and (len(segments[-1]) > 1 or len(segments) == 1 or not between):
        return last
    return next((place for place in verbs if place), verbs[0] if verbs else None)


def of_question(plain: str, servers: Set[str]) -> list[str]:
    """Words of the first thing that a question names, its verb and the `servers` (stems) that it names left out."""
    found: list[str] = []
    passed: list[str] = []
    begins = True
    for word in _SAID.findall(plain.replace("'s", " ")):
        if word in _ENDS:
            if found or passed:
                break
            begins = False
        elif word not in COMMON and len(word) > 1:
            verb, begins = begins and stem(word) in FIRST, False
            if not verb and word not in _WHICH:
                for part in prose(word):  # `add-on` is no verb
                    (passed if stem(part) in servers else found).append(part)
    return found or passed
