"""What verbs of names and of questions mean to have done. Layer: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from moorage_gateway.tool_search.words import stem

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
    "import load ingest",
    "retry rerun redo repeat",
    "revert undo discard rollback",
    "block ban",
    "transfer relocate",
)
# Verbs that say a doing where a question begins with them; elsewhere, and in names, most of them are things (`release`, `file`).
_FIRST = (
    "create leave report file issue record store save put launch spin draft log introduce build provision attach connect link hook grant "
    "give raise request propose define establish form place book reserve mint ask reply respond answer author initiate contribute tag "
    "label pin star follow react vote push deploy release enqueue queue mark flag plan commission found stage hire onboard sign note jot "
    "arrange produce prepare draw type pen mount plug integrate nominate enlist host ship bring "
    "subscribe join share invite assign comment appoint append recommend suggest",
    "delete throw kick tear disconnect release dismiss eliminate scrap unlink withdraw take expel ban strip abandon forget undo cut lose "
    "unassign unpublish uninstall unenroll dissolve ditch axe bin trash nuke disband evict oust deregister unregister decommission "
    "deprovision disassociate retract rid unshare untag unlabel unmount unfollow unstar unsave void prune sweep tidy clean flush leave "
    "abort kill halt call stop unpin unhide reset end close",
    "update correct fix tweak amend switch extend widen promote mark decide let grant give turn make put swap reorder rearrange rewrite "
    "reword shift transfer convert relabel toggle limit restrict apply narrow shorten overwrite override revise customize customise "
    "reset resize rotate bump raise lower increase decrease flag point reassign retitle redefine refresh renew sync tune force hand demote "
    "lengthen reschedule postpone push style format close reopen resolve choose "
    "select pick sort rank reject",
    "get tell pull grab peek count inspect examine open determine verify test compute calculate know has is was were are am do does did "
    "may can could should when where how whether learn measure track look save export prove validate "
    "download watch monitor find",
    "list which what who whose overview name discover survey hunt seek locate find watch filter",
    "restore unhide",
    "send mail forward post tell message",
    "disable shut disallow forbid mute silence prevent suppress hide lock prohibit",
    "enable let permit unmute unblock unlock require enforce",
    "stop abort kill halt cancel quit interrupt call",
    "run launch perform preview",
    "copy replicate mirror reproduce",
    "approve ok okay bless confirm",
    "decline refuse dismiss turn",
    "invite ask",
    "merge combine",
    "assign give",
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


# The same, where a question begins so.
_BEGINNINGS = tuple(
    (re.compile(rf"^{pattern}\b"), doing)
    for pattern, doing in (
        (r"(please|i (want|need) to|we need to|can you|could you|how (do|can) i|how to|let me|help me)", ""),
        (r"leave (a|an|some)", "create"),
        (r"(throw|throws|tidy|clear|put|give) (away|out)", "delete"),
        (r"(tear|take|shut|pull|bring|wind) down", "delete"),
        (r"kick \w+ (off|out)", "remove"),
        (r"(spin|start|stand|fire|bring|open) up", "create"),
        (r"(bring|get|put|roll) (\w+ ){0,3}back", "restore"),
        (r"(let|allow) .* (in|join)", "add"),
        (r"(find|figure|work) out", "get"),
        (r"pull up", "get"),
        (r"sign up", "create"),
        (r"hand in", "submit"),
        (r"call off", "cancel"),
        (r"(tell|say) (whether|if|how|what|which|who)", "get"),
        (r"hold (back|off)", "pause"),
        (r"bring to an end", "end"),
        (r"shut (off|out)", "disable"),
        (r"(kick|fire|set) off", "run"),
        (r"put together", "create"),
        (r"write down", "create"),
        (r"(cross|tick|check) off", "complete"),
        (r"make (\w+ ){0,5}(visible|public|available)( again)?", "unhide"),
        (r"make (sure|certain)", "check"),
        (r"(switch|change|move) (\w+ )?over", "switch"),
    )
)
_THINGS_FOLLOW = frozenset("a an the this that these those my our one single".split())
_ENDS_SO = frozenset(map(stem, "is was has does".split()))
_WORD = re.compile(r"[^\W_]+")


def _read(rows: Iterable[str]) -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for row in map(str.split, rows):
        for word in map(stem, row):
            found[word] = found.get(word, frozenset()) | {row[0]}
    return found


DOINGS = _read(_DOINGS)
"""Stem of a verb → doings it may mean."""
FIRST = _read((*_DOINGS, *_FIRST))
"""The same, where a question begins with it."""


LOOKS = frozenset({"list", "get"})
"""What is to be done where nothing is said."""


def plainly(text: str) -> str:
    """A question, lower case, with verbs in place of the phrases that say a doing otherwise."""
    plain = text.strip().lower()
    for pattern, doing in _PHRASES:
        plain = pattern.sub(doing, plain)
    return plain


def begins(plain: str) -> frozenset[str]:
    """What a question has done by the verb that it begins with; empty where it begins with none."""
    said = plain.strip()
    for pattern, doing in _BEGINNINGS:
        said = pattern.sub(doing, said).lstrip()
    first = _WORD.search(said)
    if first is None:
        return frozenset()
    word: str = first.group()
    if word in _THINGS_FOLLOW:
        return LOOKS
    short = stem(word)
    if short not in DOINGS and word.endswith("s") and not word.endswith("ss") and short not in _ENDS_SO:
        return LOOKS  # nobody is told to do something with an `s`: these are things
    return FIRST.get(short, frozenset())
