"""Words of tools and of questions: split, lower case, without the commonest words and endings; what doings and things are called.

Layer: pure. Names are split where case or `_` does; prose is not, for `GitHub` is one word there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_WORD = re.compile(r"[^\W_]+")
_COMMON = frozenset(
    "a about an and any are as at be been by can could did do does for from had has have he her his how i if in into is it its may me my "
    "no not of on or our please she should so some than that the their them then there these they this those to using via was we were "
    "what when where which while who whom whose will with would you your".split()
)
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
    return [word for each in found if len(word := each.lower()) > 1 and word not in _COMMON]


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


# What people and API names call the same doing; a word may be of several.
_DOINGS = (
    "create insert add new make open start register compose post upload publish schedule generate write begin",
    "delete remove erase drop destroy clear purge trash cancel revoke discard unset detach wipe empty unsubscribe",
    "list all show search find query index browse lookup enumerate every see",
    "get read fetch retrieve return view download load detail info information describe check status show see summary",
    "update patch edit change modify set replace rename configure adjust alter move",
    "enable activate allow",
    "disable deactivate",
    "send submit deliver",
    "copy duplicate clone fork",
    "stop end terminate",
    "watch subscribe notify notification",
    "approve accept",
    "decline reject deny",
    "close finish complete",
    "lock",
    "merge join",
    "archive",
    "pause suspend",
    "resume continue unpause",
    "run execute trigger invoke dispatch",
    "assign enroll",
    "restart reboot",
    "restore recover undelete untrash",
    "export convert",
    "acknowledge confirm",
    "invite",
)
# Things that have several names. A row is not one thing everywhere: another name of it counts less.
_THINGS = (
    "course class",
    "meeting event appointment",
    "volume book",
    "shelf bookshelf",
    "folder directory",
    "member person people user participant somebody someone",
    "spreadsheet sheet",
    "presentation deck",
    "mail email message",
    "repository repo",
    "pull pr",
    "document doc",
    "permission access right share acl iam policy",
    "organization org",
    "configuration config setting",
    "picture image photo",
    "comment reply",
    "query search",
    "coursework assignment homework",
    "task todo",
    "identifier id",
    "authenticated own myself",
    "bin trash",
    "film video",
    "branch ref",
    "conversation thread",
    "subtitle caption",
    "parent guardian",
    "version revision history",
    "file object",
    "label tag",
    "team group",
    "key token secret credential",
    "log activity history",
    "bill invoice",
    "ticket issue bug",
    "customer client",
    "link url",
    "database db",
    "country region",
    "language locale",
    "statistic metric analytics insight",
    "star favorite bookmark",
    "text string",
    "mail gmail inbox mailbox",
)
# How questions say a doing without its verb.
_PHRASES = tuple(
    (re.compile(pattern), f" {doing} ")
    for pattern, doing in (
        (r"\bun(subscribe|follow|star|pin|like|share|archive)(s|d)?\b", r"remove \1"),
        (r"\b(different|new|another) name\b", "rename"),
        (r"\b(set|sets|setting) up\b", "create"),
        (r"\b(turn|switch)(s|ed|ing)? (it )?off\b", "disable"),
        (r"\b(turn|switch)(s|ed|ing)? (it )?on\b", "enable"),
        (r"\blook(s|ing)? (up|at)\b", "get"),
        (r"\bno longer\b", "remove"),
        (r"\b(take|takes|taking) (?:(a|an|the|my) \w+ )?(off|down|away|out)\b", "remove"),
        (r"\bget rid of\b", "delete"),
        (r"\b(give|gives) (back|up)\b", "release"),
        (r"\bput (in|into|on)\b", "add"),
        (r"^(what|which|who|whose|all|every|my)\b", "list"),
        (r"\b(see|show|list|display|view)( me)? (all|every|the|my|existing|available)\b", "list"),
        (r"^(how much|how many|is|are|does|details|detail|information|info|status|statistics|summary)\b", "get"),
        (r"\bsome(one|body)('s)?\b", "user"),
    )
)


def _doings() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for row in map(str.split, _DOINGS):
        for word in map(stem, row):
            found[word] = found.get(word, frozenset()) | {row[0]}
    return found


def _things() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for row in _THINGS:
        stems = frozenset(map(stem, row.split()))
        for word in stems:
            found[word] = (found.get(word, frozenset()) | stems) - {word}
    return found


DOINGS = _doings()
"""Stem of a verb → doings it may mean."""
THINGS = _things()
"""Stem → stems of what else the thing is called."""


@dataclass(frozen=True)
class Question:
    """A question (`text`) taken apart. `words`: as they stand, no phrases; `joined`: neighbours as one word, as names have them;
    `doings`: what is to be done, `list` or `get` where nothing is said."""

    text: str
    words: tuple[str, ...]
    joined: tuple[str, ...]
    doings: frozenset[str]

    @classmethod
    def of(cls, text: str) -> Question:
        """Any text."""
        plain = text.strip().lower()
        every = _WORD.findall(plain)
        for pattern, doing in _PHRASES:
            plain = pattern.sub(doing, plain)
        found = tuple(dict.fromkeys(prose(plain)))
        doings = frozenset[str]().union(*(DOINGS.get(stem(word), frozenset()) for word in found))
        joined = tuple(
            "".join(every[start : start + count - 1]) + stem(every[start + count - 1])
            for count in (2, 3)
            for start in range(len(every) - count + 1)
        )
        return cls(text, found, joined, doings or frozenset({"list", "get"}))

    @property
    def stems(self) -> tuple[str, ...]:
        """Of the words, and what is joined."""
        return tuple(dict.fromkeys((*map(stem, self.words), *self.joined)))
