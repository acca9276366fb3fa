"""The pages: every link leads somewhere, and every command that is shown exists, with its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import CollectorRegistry

from moorage.cli.main import make_app
from moorage_api.errors import Kind
from moorage_gateway.metrics import Metrics
from tree import ROOT, texts

pytestmark = pytest.mark.packaging

PAGES = dict(texts(".md"))
LINK = re.compile(r"\[[^\]\[]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(docs|tests|crds|gateway|sandbox-image|sdk|local|examples|scripts)/[\w./-]+")
SHELL = {"sh", "bash", "console", "shell"}
# Where the options of a door are read.
DOORS = {
    "test": "tests/run.py",
    "check": "scripts/check",
    "generate": "scripts/generate.py",
    "bench": "tests/bench/run.py",
    "cluster": "tests/cluster/node/door.py",
    "images": "scripts/images.py",
}
ROOT_COMMAND: Any = typer.main.get_command(make_app())


def _anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(SPAN.sub("", FENCE.sub("", PAGES[page]))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        inside = target.is_relative_to(ROOT) and target.exists()
        if not inside or (anchor and target.suffix == ".md" and anchor not in _anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = [span for span in SPAN.findall(FENCE.sub("", PAGES[page])) if FILE.fullmatch(span)]
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_of_the_docs_can_be_reached() -> None:
    docs = {page for page in PAGES if page.is_relative_to(ROOT / "docs")}
    linked = {(page.parent / link.partition("#")[0]).resolve() for page in PAGES for link in LINK.findall(PAGES[page])}
    assert {page for page in docs if page not in linked and page.parent not in linked} == set()


def _shown(text: str) -> Iterator[str]:
    """Pieces of shell that a page shows: lines of its shell blocks, and spans that begin with a command of ours."""
    for language, block in FENCE.findall(text):
        if language in SHELL:
            prompts = "$ " in block
            for line in block.splitlines():
                if not (language == "console" and prompts and not line.startswith("$ ")):
                    yield line.removeprefix("$ ")
    for span in SPAN.findall(FENCE.sub("", text)):
        if re.match(r"(\.venv/bin/)?moorage [a-z-]|scripts/\w+", span):
            yield span


def _calls(line: str) -> Iterator[list[str]]:
    """The words of each call of ours in a line of shell."""
    for piece in re.split(r" \| |&&|;|<\(|\$\(", re.sub(r"\s#.*", "", line)):
        words = _words(piece.strip())
        for at, word in enumerate(words):
            if re.fullmatch(r"(\S*/)?(moorage|scripts/\w+)", word):
                yield [word, *words[at + 1 :]]
                break
            if "=" not in word and word not in ("export", "exec", "env", "nice", "read"):
                break


def _words(piece: str) -> list[str]:
    piece = piece.rstrip(")& ")
    try:
        return shlex.split(piece)
    except ValueError:
        return piece.split()


def _wrong(words: list[str]) -> str | None:
    """What is wrong with a call, None when it can be made."""
    name, rest = words[0], words[1:]
    if "scripts/" in name:
        return _wrong_door(name.rpartition("scripts/")[2], rest)
    found = ROOT_COMMAND
    while rest and hasattr(found, "list_commands"):
        alternatives = rest[0].split("|")
        inner = [found.get_command(None, each) for each in alternatives]
        if rest[0].startswith("-") or None in inner:
            break
        found, rest = inner[0], rest[1:]
    if rest and rest[0][:1].islower() and hasattr(found, "list_commands"):
        return f"no command {rest[0]}"
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help"
    }
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else None


def _wrong_door(door: str, rest: list[str]) -> str | None:
    path = ROOT / "scripts" / door
    if not path.is_file():
        return "no such door"
    if door.endswith((".py", ".sh")):
        return None
    if door == "dev":
        return _wrong(["moorage", "dev", *rest])
    text = (
        path.read_text("utf-8")
        + (ROOT / DOORS[door]).read_text("utf-8")
        + (ROOT / "tests/conftest.py").read_text("utf-8")
    )
    unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in text]
    return f"no option {unknown[0]}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(page: Path) -> None:
    calls = [words for line in _shown(PAGES[page]) for words in _calls(line)]
    assert [f"{' '.join(words)}: {wrong}" for words in calls if (wrong := _wrong(words))] == []


def test_the_reader_of_commands_finds_and_refuses() -> None:
    calls = [words for line in _shown(PAGES[ROOT / "README.md"]) for words in _calls(line)]
    assert ["scripts/test"] in calls and ["moorage", "up", "tests/agents/paced"] in calls
    assert len([words for words in calls if words[0] == "moorage"]) >= 5
    assert _wrong(["moorage", "fly"]) == "no command fly"
    assert _wrong(["moorage", "responses", "show", "ID", "--jsn"]) == "no option --jsn"
    assert _wrong(["scripts/test", "--onyl", "sim"]) == "no option --onyl"
    assert _wrong(["scripts/fly"]) == "no such door"


def _metrics() -> Iterator[str]:
    """The names of all metrics of gateways and operators, as they are shown."""
    family = re.compile(r'(Counter|Gauge|Histogram)MetricFamily\(\s*"(moorage_\w+)"')
    for path, text in texts(".py"):
        if path.is_relative_to(ROOT / "gateway" / "moorage_gateway"):
            yield from (name + "_total" * (kind == "Counter") for kind, name in family.findall(text))
            yield from re.findall(r'watch\(\s*"(moorage_\w+)"', text)
        elif path.is_relative_to(ROOT / "operator" / "moorage_operator"):
            yield from re.findall(r'"(moorage_operator_\w+)":', text)


def test_the_page_names_every_metric_and_alerts_no_other() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.answered("create", 200, 0.1)
    metrics.refused(Kind.SLOW_REQUEST)
    shown = {line.split()[2] for line in metrics.render().decode().splitlines() if line.startswith("# TYPE")}
    there = set(_metrics())
    assert shown < there and "moorage_operator_leader" in there, "they are found"
    page = (ROOT / "docs" / "operate.md").read_text("utf-8").split("## Metrics, traces, logs")[1].split("\n## ")[0]
    table, alerts = page.split("### Alerts")
    assert set(re.findall(r"moorage_\w+", table)) == there
    used = set(re.findall(r"moorage_\w+", alerts))
    assert used and used <= there
