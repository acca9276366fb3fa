"""One question and its answer: a new review, a question about the last one, or help. What `host.py` and the terminal call.

Everything lasting lies in the workspace: `review.md` (the text), `review.json` (the findings, for follow-ups). Scratch files lie there
too while a review runs, since a sandbox's `/tmp` may be memory, and go when it ends.
"""

import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import (
    api,
    coverage,
    dependencies,
    errors,
    functions,
    helpers,
    model,
    releases,
    remote,
    render,
    repositories,
    requests,
    sample,
)
from .budget import Budget, Limits
from .index import Index
from .licences import IndexLicences
from .snapshots import Pair
from .transport import NetworkSettings

REPORT = "review.md"
FINDINGS = "review.json"
SCRATCH = ".review"
LARGEST_FINDINGS = 32 * 1024 * 1024

HELP = """\
I review what changed between two versions of a Python project: test coverage of the changed functions, new dependencies with their \
licences, and breaking API changes. For example:

- `Review pypi:httpx 0.27.2..0.28.1` for two releases of a package
- `Review https://host/repository.git v1.0..v1.1` for two revisions of a repository this sandbox can reach
- `Review /path/to/repository main..feature` for a repository that is mounted into the sandbox
- `Review tools:NAME v1.0..v1.1` for a repository that this agent's tools have

After a review, in the same session: `only the API part, shorter`, `the full list of tests`, `why is httpx.get there?`
"""


@dataclass(frozen=True)
class World:
    """What the engine may touch beside the workspace. `git` is the path of the binary. None, as for `tools` and `words`: there is none."""

    index: Index
    git: str | None
    environ: Mapping[str, str]
    limits: Limits = field(default_factory=Limits)
    tools: helpers.Tools | None = None
    words: helpers.Words | None = None

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, tools: helpers.Tools | None = None, words: helpers.Words | None = None
    ) -> "World":
        """The machine's own index, proxy, CA and git."""
        index = Index.over_http(NetworkSettings.from_environment(environ))
        return cls(index, shutil.which("git", path=environ.get("PATH")), environ, tools=tools, words=words)


def answer(
    text: str, workspace: Path, world: World, cancelled: Callable[[], bool] = lambda: False
) -> Generator[str, None, bool]:
    """The answer, a line or so at a time; returns whether it is what was asked for (a report or a part of one).

    Never raises for what a person can cause; a cancelled review just ends.
    """
    budget = Budget.start(world.limits, cancelled=cancelled)
    asked = requests.parse(text)
    try:
        if isinstance(asked, requests.Review):
            yield from _review(asked, workspace, world, budget)
            return True
        return (yield from _about(asked, last_report(workspace)))
    except errors.Cancelled:
        return False
    except errors.ReviewError as fault:
        yield f"This could not be reviewed. {render.plain(str(fault), ticks=True)}\n"
        return False


def last_report(workspace: Path) -> model.Report | None:
    """The findings of the session's last review; None if there are none that can be read."""
    path = workspace / FINDINGS
    try:
        if path.stat().st_size > LARGEST_FINDINGS:
            return None
        return model.from_json(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def _review(asked: requests.Review, workspace: Path, world: World, budget: Budget) -> Iterator[str]:
    scratch = workspace / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    lines: list[str] = []
    try:
        pair = _pair(asked, workspace, world, scratch, budget)
        found = _Findings(model.Subject(pair.title, pair.old.side, pair.new.side, pair.notice), world.words)
        for line in found.lines(pair, budget):
            lines.append(line)
            yield line
        _write(workspace / REPORT, "".join(lines).encode())
        _write(workspace / FINDINGS, json.dumps(model.to_json(found.report()), indent=1).encode())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    yield "\n---\n\n"
    if world.tools is not None and pair.commit is not None:
        yield remote.attach(world.tools, asked.place, pair.commit, "".join(lines), budget) + "\n"
    yield f"This report is in `{REPORT}` in the workspace. "
    yield "Ask for a part of it, such as: only the API part, shorter.\n"


def _pair(asked: requests.Review, workspace: Path, world: World, scratch: Path, budget: Budget) -> Pair:
    git = repositories.Git(world.git, world.environ, scratch / "git") if world.git else None
    if asked.kind == "pypi":
        try:
            return releases.fetch(world.index, asked.place, (asked.old, asked.new), scratch / "releases", budget)
        except errors.Unreachable as fault:
            reason = fault.reason
        notice = f"Package index not reachable ({reason}); this is a review of the built-in sample repository."
        return sample.compare(git, scratch / "built-in", budget, notice)
    if asked.kind == "tools":
        if world.tools is None:
            raise errors.NotFound("This agent has no tools; its manifest names none.")
        return remote.compare(world.tools, asked.place, (asked.old, asked.new), scratch / "revisions", budget)
    if git is None:
        raise errors.NotFound("There is no git in this sandbox, so only releases can be reviewed.")
    place = asked.place if "://" in asked.place else os.path.normpath(workspace / asked.place)
    lookup = IndexLicences(world.index, scratch)
    return repositories.compare(git, place, (asked.old, asked.new), lookup, scratch / "revisions", budget)


class _Findings:
    """The three checks in order, each told as soon as it is done."""

    def __init__(self, subject: model.Subject, words: helpers.Words | None) -> None:
        self._subject = subject
        self._words = words
        nothing = model.Coverage(0, (), 0), model.Dependencies("", (), 0), model.Api((), ())
        self._coverage, self._dependencies, self._api = nothing

    def report(self) -> model.Report:
        """What is known so far."""
        return model.Report(self._subject, self._coverage, self._dependencies, self._api)

    def lines(self, pair: Pair, budget: Budget) -> Iterator[str]:
        yield from render.heading(self._subject)
        for side in (pair.old, pair.new):
            for note in side.notes:
                yield f"- {side.side.label}: {note}\n"
        for name, check in (
            ("coverage", self._check_coverage),
            ("dependencies", self._check_dependencies),
            ("api", self._check_api),
        ):
            yield f"\n{render.HEADINGS[name]}\n\n"
            check(pair, budget)
            yield from render.body(name, self.report(), "normal")
            if self._words is not None:
                findings = "".join(render.section(name, self.report(), "short"))
                yield "\n" + helpers.worded(self._words, findings, budget)

    def _check_coverage(self, pair: Pair, budget: Budget) -> None:
        both = functions.read_both(pair.old.code, pair.new.code, budget)
        self._coverage = coverage.assess(both, pair.new.tests, pair.new.test_root, budget)

    def _check_dependencies(self, pair: Pair, budget: Budget) -> None:
        self._dependencies = dependencies.compare(pair.old.declared, pair.new.declared, pair.licences, budget)

    def _check_api(self, pair: Pair, budget: Budget) -> None:
        self._api = api.compare(pair.old.code, pair.new.code, budget)


def _about(asked: requests.FollowUp | requests.Unclear, report: model.Report | None) -> Generator[str, None, bool]:
    """An answer out of the last report, or help (False)."""
    if report is None:
        if isinstance(asked, requests.FollowUp):
            yield "There is no review in this session yet.\n\n"
        yield HELP
        return False
    named = list(_naming(asked.words, report))
    if not named and not isinstance(asked, requests.FollowUp):
        yield HELP
        return False
    if report.subject.notice:
        yield f"> {render.plain(report.subject.notice)}\n\n"
    if named:
        yield f"In the review of {render.plain(report.subject.title)}:\n\n"
        yield from named
        if isinstance(asked, requests.FollowUp) and asked.why:
            for section in asked.sections if len(asked.sections) < len(requests.SECTIONS) else ("api",):
                yield f"\n*{render.METHOD[section]}*\n"
        return True
    assert isinstance(asked, requests.FollowUp)
    for number, section in enumerate(asked.sections):
        if number:
            yield "\n"
        if asked.why:
            yield f"{render.HEADINGS[section]}\n\n{render.METHOD[section]}\n"
        else:
            yield from render.section(section, report, asked.level)
    return True


def _naming(words: tuple[str, ...], report: model.Report) -> Iterator[str]:
    """The lines of the report about what the words name: a whole symbol, its end after a dot, or a dependency."""
    wanted = {word for word in words if "." in word or "_" in word or len(words) <= 2}
    dependencies_named = {word.lower() for word in words}
    for breakage in report.api.breakages:
        if _names(wanted, breakage.symbol):
            yield f"- {render.code(breakage.symbol)}: {render.plain(breakage.text, ticks=True)}\n"
    for change in report.coverage.changes:
        if _names(wanted, change.symbol):
            yield f"- {render.code(change.symbol)} was {change.change}; {render.REACH[change.reach]}\n"
    for dependency in report.dependencies.changes:
        if dependency.name in dependencies_named:
            yield from render.body("dependencies", _only(dependency, report), "full")
            return


def _names(wanted: set[str], symbol: str) -> bool:
    return any(symbol == w or symbol.endswith("." + w) or ("." in w and symbol.startswith(w + ".")) for w in wanted)


def _only(change: model.DependencyChange, report: model.Report) -> model.Report:
    one = model.Dependencies(report.dependencies.source, (change,), report.dependencies.unchanged)
    return model.Report(report.subject, report.coverage, one, report.api)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a crash in between leaves the last report."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(content)
    os.replace(temporary, path)
