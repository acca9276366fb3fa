"""The whole engine on an index in memory: what is answered, what is kept, what a follow-up says."""

import json
import re
from pathlib import Path

import pytest
from review import conversation, errors, model, render, sample
from review.conversation import World
from review.index import Index
from review.transport import MemoryTransport, NetworkSettings

pytestmark = pytest.mark.unit
HEADINGS = ["## Test coverage", "## New dependencies", "## Breaking API changes"]
ASK = "Review pypi:p 1.0..2.0"

CODE = "class Client:\n    def __init__(self, *, proxies=None):\n        self.p = proxies\n\ndef get(url):\n    return url\n"
NEWER = CODE.replace("*, proxies=None", "").replace("= proxies", "= 1").replace("return url", "return url + '/'")
TESTS = "from p import Client\nClient()\n"


@pytest.fixture
def pages(tar_gz, zipped, published):
    def sdist(version, code, needs):
        info = f"Metadata-Version: 2.2\nName: p\nVersion: {version}\n" + "".join(f"Requires-Dist: {n}\n" for n in needs)
        return tar_gz(
            {
                f"p-{version}/PKG-INFO": info,
                f"p-{version}/p/__init__.py": "from p._core import Client, get\n",
                f"p-{version}/p/_core.py": code,
                f"p-{version}/tests/test_p.py": TESTS,
            }
        )

    return published(
        {
            "p": {"p-1.0.tar.gz": sdist("1.0", CODE, ["old"]), "p-2.0.tar.gz": sdist("2.0", NEWER, ["fresh>=1"])},
            "fresh": {"fresh-1.0-py3-none-any.whl": zipped({"fresh-1.0.dist-info/METADATA": "License: MIT\n"})},
        }
    )


@pytest.fixture
def workspace(tmp_path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def world(pages) -> World:
    return World(Index("https://index.test/simple", MemoryTransport(pages)), None, {})


def down(reason="connection refused") -> World:
    return world({"https://index.test/simple/p/": errors.Unreachable("The package index", reason)})


def ask(text, workspace, there):
    return "".join(conversation.answer(text, workspace, there))


def headings(text):
    return re.findall(r"^## .*$", text, re.M)


def test_a_review_has_exactly_its_three_sections_in_order_and_finds_what_was_planted(workspace, pages):
    text = ask(ASK, workspace, world(pages))
    assert headings(text) == HEADINGS
    assert "- `p.Client.__init__`: parameter `proxies` was removed" in text
    assert "- **added** `fresh>=1`; licence: MIT" in text
    assert "- **dropped** `old`" in text
    assert "- 1 named by a test" in text
    assert "`p._core.get` (changed, `p/_core.py` line 5)" in text
    assert "cannot show whether a line ran" in text


def test_the_report_is_kept_as_text_and_as_findings_and_nothing_else_is_left(workspace, pages):
    text = ask(ASK, workspace, world(pages))
    assert sorted(p.name for p in workspace.iterdir()) == ["review.json", "review.md"]
    assert text.startswith((workspace / "review.md").read_text())
    report = model.from_json(json.loads((workspace / "review.json").read_text()))
    assert report == conversation.last_report(workspace)
    assert {b.symbol for b in report.api.breakages} == {"p.Client.__init__"}


def test_the_same_question_gives_the_same_text_also_after_an_attempt_that_was_cut_short(workspace, pages):
    first = ask(ASK, workspace, world(pages))
    cut = conversation.answer(ASK, workspace, world(pages))
    seen = "".join(next(cut) for _ in range(12))
    cut.close()
    again = ask(ASK, workspace, world(pages))
    assert again == first
    assert first.startswith(seen)


def test_an_attempt_that_was_killed_leaves_scratch_files_that_the_next_one_removes(workspace, pages):
    (workspace / ".review" / "releases" / "old" / "sdist").mkdir(parents=True)
    assert headings(ask(ASK, workspace, world(pages))) == HEADINGS
    assert not (workspace / ".review").exists()


def test_the_answer_comes_in_small_pieces(workspace, pages):
    pieces = list(conversation.answer(ASK, workspace, world(pages)))
    assert len(pieces) > 20
    assert max(len(piece) for piece in pieces) < 500


def test_a_follow_up_is_answered_from_the_workspace_without_the_index(workspace, pages):
    ask(ASK, workspace, world(pages))
    transport = MemoryTransport({})
    offline = World(Index("https://index.test/simple", transport), None, {})
    text = ask("only the API part, shorter", workspace, offline)
    assert headings(text) == ["## Breaking API changes"]
    assert "parameter `proxies` was removed: `p.Client.__init__`" in text
    assert len(text) < len((workspace / "review.md").read_text()) / 2
    assert headings(ask("tests and dependencies in full", workspace, offline)) == HEADINGS[:2]
    assert headings(ask("shorter", workspace, offline)) == HEADINGS
    assert transport.asked == []


def test_a_question_about_one_name_is_answered_with_its_findings(workspace, pages):
    ask(ASK, workspace, world(pages))
    text = ask("why is p.Client.__init__ there?", workspace, world({}))
    assert "- `p.Client.__init__`: parameter `proxies` was removed" in text
    assert "griffe" in text
    assert "licence: MIT" in ask("what about fresh", workspace, world({}))


def test_a_follow_up_before_any_review_and_an_unknown_request_get_help_with_examples(workspace, pages):
    assert ask("shorter", workspace, world(pages)).startswith("There is no review in this session yet.")
    for text in ("hello", "", "Review pypi:p"):
        assert "Review pypi:httpx 0.27.2..0.28.1" in ask(text, workspace, world(pages))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 9}', b"[" * 100_000, b'"x"'])
def test_findings_that_cannot_be_read_count_as_none(workspace, pages, content):
    (workspace / "review.json").write_bytes(content)
    assert "no review in this session" in ask("shorter", workspace, world(pages))


def test_without_the_index_the_sample_is_reviewed_and_labelled_at_the_top(workspace):
    text = ask(ASK, workspace, down())
    lines = [line for line in text.splitlines() if line]
    label = "> Package index not reachable (connection refused); this is a review of the built-in sample repository."
    assert lines[1] == label
    assert headings(text) == HEADINGS
    assert "**added** `tomlkit>=0.13`; licence: MIT" in text
    assert "**dropped** `python-dateutil>=2.9`" in text
    assert "`quayside.Harbour.__init__`: parameter `strict` was removed" in text
    assert "`quayside.tides.height_at` (changed" in text
    assert ask("only the API part, shorter", workspace, down()).startswith(label)


def test_a_machine_that_names_no_index_is_as_one_that_cannot_reach_it(workspace):
    nowhere = World(Index.over_http(NetworkSettings({}, (), "")), None, {})
    assert "(none is configured; set PIP_INDEX_URL); this is a review of the built-in" in ask(ASK, workspace, nowhere)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Review pypi:q 1..2", "no project `q`"),
        ("Review pypi:p 1.0..9.9", "no release 9.9 of p"),
        ("Review /nowhere a..b", "no git in this sandbox"),
    ],
)
def test_what_does_not_exist_is_said_in_one_line_and_is_no_reason_for_the_sample(workspace, pages, text, words):
    answer = ask(text, workspace, world(pages))
    assert answer.startswith("This could not be reviewed.")
    assert words in answer
    assert headings(answer) == []


def test_a_failed_request_keeps_the_last_review(workspace, pages):
    ask(ASK, workspace, world(pages))
    ask("Review pypi:q 1..2", workspace, world(pages))
    assert "p.Client" in ask("api", workspace, world(pages))


def test_a_cancelled_review_ends_at_once_and_leaves_no_scratch(workspace, pages):
    assert list(conversation.answer(ASK, workspace, world(pages), lambda: True)) == []
    assert list(workspace.iterdir()) == []


def test_a_release_without_tests_is_reviewed_and_says_that_there_are_none(workspace, published, zipped):
    wheels = {
        f"p-{v}-py3-none-any.whl": zipped({"p/__init__.py": code, f"p-{v}.dist-info/METADATA": "Name: p\n"})
        for v, code in (("1.0", CODE), ("2.0", NEWER))
    }
    text = ask(ASK, workspace, world(published({"p": wheels})))
    assert "There are no tests in what was published" in text
    assert "- `p.Client.__init__`: parameter `proxies` was removed" in text


def test_text_from_a_package_cannot_bring_markup_into_the_answer():
    assert render.plain("a\n## Test coverage\n<img src=x>`") == "a ## Test coverage &lt;img src=x>'"
    assert render.code("x`\n`<y>") == "`x' '<y>`"
    assert render.plain("default `<b>` is <b>", ticks=True) == "default `<b>` is &lt;b>"


def test_the_sample_differs_between_its_versions_only_where_it_should():
    old, new = (sample.files(version) for version in sample.VERSIONS)
    assert {name for name in old if old[name] != new[name]} == {
        "pyproject.toml",
        "src/quayside/_harbour.py",
        "src/quayside/tides.py",
    }
