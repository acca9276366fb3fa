"""The report as markdown, a line at a time. Pure, and the same text for the same findings: no times, no random order.

A later attempt at an interrupted answer is compared with what its reader has seen already, so nothing here may depend on anything
but the model. Text that comes from packages (names, licences, defaults) is made harmless by `plain`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from . import api as checks
from . import model

HEADINGS = {
    "coverage": "## Test coverage",
    "dependencies": "## New dependencies",
    "api": "## Breaking API changes",
}
NORMAL_LINES = 120
SHORT_LINES = 12
SHORT_NAMES = 6
REACH = {
    "named": "named by a test",
    "alike": "alike: a test uses the name, on an object that cannot be told",
    "through": "reached only through other functions",
    "unseen": "not seen in the tests",
}
METHOD = {
    "coverage": (
        "How this was found: both versions were parsed, and a function counts as changed when its code differs (docstrings, comments "
        "and annotations aside). The test files were searched for its name, with imports followed. That shows what the tests mention; "
        "it cannot show whether a line ran or a result was checked, and it does not see dynamic calls or tests kept elsewhere."
    ),
    "dependencies": (
        "How this was found: the declared requirements of both versions were compared; licences are what the newest allowed release "
        "of each package says in its own metadata. What a package needs in turn is not followed."
    ),
    "api": (
        "How this was found: griffe compared the public names and signatures of both versions without importing them. It cannot see "
        "changes of behaviour, names made at run time, or compiled modules."
    ),
}


def heading(subject: model.Subject) -> Iterator[str]:
    """Title, notice, and what was read."""
    yield f"# Review of {plain(subject.title)}\n"
    yield "\n"
    if subject.notice:
        yield f"> {plain(subject.notice)}\n"
        yield "\n"
    for side in (subject.old, subject.new):
        yield f"- {plain(side.label)}: {side.read}\n"


def section(name: str, report: model.Report, level: str) -> Iterator[str]:
    """One section with its heading."""
    yield HEADINGS[name] + "\n"
    yield "\n"
    yield from body(name, report, level)


def body(name: str, report: model.Report, level: str) -> Iterator[str]:
    """One section without its heading; `level` is "short", "normal" or "full"."""
    if name == "coverage":
        yield from _coverage(report.coverage, level)
        notes = report.coverage.notes
    elif name == "dependencies":
        yield from _dependencies(report.dependencies, level)
        notes = report.dependencies.notes
    else:
        yield from _api(report.api, level)
        notes = report.api.notes
    for note in notes:
        yield "\n"
        yield f"Note: {plain(note, ticks=True)}\n"
    if level != "short":
        yield "\n"
        yield f"*{METHOD[name]}*\n"


def plain(text: str, ticks: bool = False) -> str:
    """One line without control characters and HTML. `ticks` keeps code spans, in which HTML is text anyway."""
    if not ticks:
        return _line(text).replace("`", "'").replace("<", "&lt;")
    parts = _line(text).split("`")
    return "`".join(part if n % 2 else part.replace("<", "&lt;") for n, part in enumerate(parts))


def code(text: str) -> str:
    """A code span."""
    return "`" + _line(text).replace("`", "'") + "`"


def _line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _coverage(found: model.Coverage, level: str) -> Iterator[str]:
    counts = Counter(change.change for change in found.changes)
    reach = Counter(change.reach for change in found.changes)
    changed, added = _many(counts["changed"], "function"), counts["added"] or "none"
    summary = f"{changed} changed, {added} added, {found.removed or 'none'} removed."
    if not found.changes:
        yield f"{summary}\n"
        return
    if not found.test_files:
        yield f"{summary} **There are no tests in what was published, so none of them can be looked up.**\n"
    else:
        yield f"{summary} Of the changed and added ones, in {_many(found.test_files, 'test file')}:\n"
        yield "\n"
        for key, words in REACH.items():
            if reach[key]:
                yield f"- {reach[key]} {words}\n"
        yield "\n"
        if level != "short":
            yield from _by_file(found)
    if level == "full":
        shown, title = list(found.changes), "All of them:"
    else:
        shown, title = [c for c in found.changes if c.reach == "unseen"], "Not seen in the tests:"
    if shown and (found.test_files or level == "full"):
        yield f"{title}\n"
        yield "\n"
        yield from _capped([_function(change, level) for change in shown], level)


def _by_file(found: model.Coverage) -> Iterator[str]:
    files: dict[str, Counter[str]] = defaultdict(Counter)
    for change in found.changes:
        files[change.file][change.reach] += 1
    yield "| file | changed or added | named | alike | through others | not seen |\n"
    yield "|---|---|---|---|---|---|\n"
    for file, reach in list(files.items())[:NORMAL_LINES]:
        cells = " | ".join(str(reach[key] or "–") for key in REACH)
        yield f"| {code(file)} | {reach.total()} | {cells} |\n"
    yield "\n"


def _function(change: model.FunctionChange, level: str) -> str:
    reach = f", {REACH[change.reach].partition(':')[0]}" if level == "full" else ""
    return f"- {code(change.symbol)} ({change.change}, {code(change.file)} line {change.line}{reach})\n"


def _dependencies(found: model.Dependencies, level: str) -> Iterator[str]:
    main = [c for c in found.changes if c.extra is None]
    extras = [c for c in found.changes if c.extra is not None]
    added = [c for c in main if c.old is None]
    dropped = [c for c in main if c.new is None]
    altered = [c for c in main if c.old is not None and c.new is not None]
    if level == "short":
        yield f"Added: {_names(added)}. Dropped: {_names(dropped)}. Changed: {_names(altered)}.\n"
        return
    counts = f"{len(added) or 'None'} added, {len(dropped) or 'none'} dropped, {len(altered) or 'none'} changed"
    source = plain(found.source, ticks=True)
    yield f"{counts}; {found.unchanged} stayed as they were, extras included (read from {source}).\n"
    lines = [_dependency(change) for change in (*added, *dropped, *altered)]
    if lines:
        yield "\n"
        yield from _capped(lines, level)
    if extras:
        yield "\n"
        yield "Optional extras:\n"
        yield "\n"
        yield from _capped([_dependency(change) for change in extras], level)


def _dependency(change: model.DependencyChange) -> str:
    extra = f" (extra {code(change.extra)})" if change.extra else ""
    licence = f"; licence: {plain(change.licence)}" if change.licence else "; licence: unknown"
    if change.old is None:
        return f"- **added** {code(change.name + (change.new or ''))}{extra}{licence}\n"
    if change.new is None:
        return f"- **dropped** {code(change.name + change.old)}{extra}\n"
    old, new = (code(text or "any version") for text in (change.old, change.new))
    return f"- **changed** {code(change.name)}{extra}: was {old}, is {new}{licence}\n"


def _api(found: model.Api, level: str) -> Iterator[str]:
    packages = ", ".join(f"{code(package)}" for package in found.packages)
    if not found.packages:
        return
    if not found.breakages:
        if not found.notes:
            yield f"None found in the public API of {packages}.\n"
        return
    yield f"{_many(len(found.breakages), 'breaking change')} in the public API of {packages}.\n"
    if level == "short":
        yield "\n"
        yield from _api_short(found)
        return
    kinds = Counter(b.kind for b in found.breakages)
    left = NORMAL_LINES if level == "normal" else len(found.breakages)
    for kind, title in checks.KINDS.items():
        rows = [b for b in found.breakages if b.kind == kind]
        if not rows:
            continue
        yield "\n"
        yield f"{title} ({kinds[kind]}):\n"
        yield "\n"
        for row in rows[:left]:
            yield f"- {code(row.symbol)}: {plain(row.text, ticks=True)}\n"
        if len(rows) > left:
            yield f"- … and {len(rows) - left} more: ask for the full API part\n"
        left = max(3, left - len(rows))


def _api_short(found: model.Api) -> Iterator[str]:
    """The same change of many functions on one line."""
    groups: dict[str, list[str]] = defaultdict(list)
    for breakage in found.breakages:
        # Where a parameter moved to is a detail of each signature; that it moved is the news.
        text = breakage.text.partition(" from position")[0]
        if breakage.symbol not in groups[text]:
            groups[text].append(breakage.symbol)
    ranked = sorted(groups.items(), key=lambda g: (-len(g[1]), g[0]))
    for text, symbols in ranked[:SHORT_LINES]:
        listed = ", ".join(f"{code(symbol)}" for symbol in sorted(symbols, key=str.casefold)[:SHORT_NAMES])
        more = f" and {len(symbols) - SHORT_NAMES} more" if len(symbols) > SHORT_NAMES else ""
        yield f"- {plain(text, ticks=True)}: {listed}{more}\n"
    if len(ranked) > SHORT_LINES:
        yield f"- … and {len(ranked) - SHORT_LINES} more kinds of change\n"


def _capped(lines: list[str], level: str) -> Iterator[str]:
    most = {"short": SHORT_NAMES, "normal": NORMAL_LINES // 2}.get(level, len(lines))
    yield from lines[:most]
    if len(lines) > most:
        yield f"- … and {len(lines) - most} more: ask for the full list\n"


def _names(changes: list[model.DependencyChange]) -> str:
    named = [f"{code(c.name)}" + (f" ({plain(c.licence)})" if c.licence else "") for c in changes]
    return ", ".join(named) or "none"


def _many(count: int, noun: str) -> str:
    return f"{count or 'No'} {noun}{'' if count == 1 else 's'}"
