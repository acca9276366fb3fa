"""What a sentence asks for. Pure: no model, a few rules that the help text spells out."""

import re
from dataclasses import dataclass

SECTIONS = ("coverage", "dependencies", "api")
LONGEST = 4000

_RANGE = re.compile(
    r"(?P<place>[^\s`'\"]+?)[:,]?\s+(?:from\s+|between\s+)?"
    r"(?:(?P<old>[^\s`'\"]+?)\.{2,3}(?P<new>[^\s`'\"]+)"
    r"|(?P<from>v?\d[\w.+!-]*)\s+(?:to|and|->|→)\s+(?P<to>v?\d[\w.+!-]*))"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WORDS = {
    "api": re.compile(r"\b(apis?|break\w*|broke\w*|signatures?|parameters?)\b", re.I),
    "dependencies": re.compile(r"\b(dep|deps|depend\w*|licen[cs]\w*|requirements?)\b", re.I),
    "coverage": re.compile(r"\b(tests?|tested|untested|cover\w*)\b", re.I),
}
_SHORTER = re.compile(r"\b(short\w*|brief\w*|summar\w*|tl;?dr|concise|less|compact)\b", re.I)
_LONGER = re.compile(r"\b(full\w*|detail\w*|long\w*|more|complete\w*|entire|every\w*|list|all)\b", re.I)
_AGAIN = re.compile(r"\b(again|repeat|show|report|review|result\w*)\b", re.I)
_WHY = re.compile(r"\b(why|how|method\w*|explain\w*|sure|trust)\b", re.I)
_SYMBOL = re.compile(r"[A-Za-z_][\w-]*(?:\.\w+)*")


@dataclass(frozen=True)
class Review:
    """`kind` is "pypi", "git" or "tools"; `place` a package name, a URL or a path, or what the tools call a repository."""

    kind: str
    place: str
    old: str
    new: str


@dataclass(frozen=True)
class FollowUp:
    """`level` is "short", "normal" or "full"; `words` may name symbols of the report; `why` asks for the method."""

    sections: tuple[str, ...]
    level: str
    why: bool
    words: tuple[str, ...]


@dataclass(frozen=True)
class Unclear:
    """Nothing that the rules know. `words` may still name something in the report."""

    words: tuple[str, ...]


def parse(text: str) -> Review | FollowUp | Unclear:
    """A range anywhere in the text is a new review; otherwise the words decide."""
    text = text.strip()[:LONGEST]
    for match in _RANGE.finditer(text):
        review = _review(match)
        if review is not None:
            return review
    sections = tuple(name for name in SECTIONS if _WORDS[name].search(text))
    level = "short" if _SHORTER.search(text) else "full" if _LONGER.search(text) else "normal"
    why = bool(_WHY.search(text))
    words = tuple(dict.fromkeys(_SYMBOL.findall(text)))
    if sections or level != "normal" or why or _AGAIN.search(text):
        return FollowUp(sections or SECTIONS, level, why, words)
    return Unclear(words)


def _review(match: re.Match[str]) -> Review | None:
    place = match["place"].strip("()<>")
    old = (match["old"] or match["from"]).strip("()<>,")
    new = (match["new"] or match["to"]).strip("()<>").rstrip(".,;:!?")
    if not old or not new:
        return None
    if place.lower().startswith("pypi:"):
        return Review("pypi", place[5:], old, new)
    if place.lower().startswith("tools:"):
        return Review("tools", place[6:], old, new)
    if "://" in place:
        return Review("git", place, old, new) if place.startswith(("https://", "http://")) else None
    if place.startswith(("/", "./", "../")):
        return Review("git", place, old, new)
    return Review("pypi", place, old, new) if _NAME.fullmatch(place) else None
