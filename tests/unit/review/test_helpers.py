"""The engine with tools and words that are given to it: what it asks, and what it makes of answers that are none."""

from pathlib import Path

import pytest
from review import conversation, errors, helpers, render, sample
from review.conversation import World
from review.index import Index
from review.transport import MemoryTransport

pytestmark = pytest.mark.unit
ASK = "Review tools:quayside v1.0.0..v1.1.0"
COMMITS = {"v1.0.0": "a" * 40, "v1.1.0": "b" * 40}


class Table:
    """Tools that answer from the sample, a file a page; `bent` answers are given instead, errors raised."""

    def __init__(self, **bent) -> None:
        self.asked = []
        self._bent = bent

    def call(self, name, arguments, budget):
        self.asked.append(name)
        if name in self._bent:
            if isinstance(self._bent[name], Exception):
                raise self._bent[name]
            return self._bent[name]
        if name == "git_commit":
            return {"commit": COMMITS[arguments["revision"]]}
        if name == "git_files":
            version = next(each for each, commit in COMMITS.items() if commit == arguments["commit"])
            files, first = sorted(sample.files(version).items()), arguments["first"]
            following = first + 1 if first + 1 < len(files) else None
            return {
                "files": [{"path": p, "text": t} for p, t in files[first : first + 1]],
                "next": following,
                "oversized": 1,
            }
        return {"licence": "MIT"} if name == "package_licence" else {"reviews": 3}


class Said:
    def __init__(self, answer) -> None:
        self.asked = []
        self._answer = answer

    def say(self, instructions, text, budget):
        self.asked.append(text)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def review(workspace: Path, *, tools=None, words=None, ask: str = ASK) -> str:
    gone = MemoryTransport({"https://index.invalid/simple/httpx/": errors.Unreachable("The index", "cut off")})
    world = World(Index("https://index.invalid/simple", gone), None, {}, tools=tools, words=words)
    return "".join(conversation.answer(ask, workspace, world))


def test_a_repository_of_the_tools_is_reviewed_without_git_and_the_review_attached(tmp_path):
    tools = Table()
    text = review(tmp_path, tools=tools)
    assert "- **added** `tomlkit>=0.13`; licence: MIT" in text
    assert "`quayside.Harbour.__init__`: parameter `strict` was removed" in text
    assert "1 files are too large" in text
    assert "This review is attached to `bbbbbbbbbbbb`, as review 3 of it." in text
    pages = len(sample.files("v1.0.0"))
    assert tools.asked == ["git_commit"] * 2 + ["git_files"] * 2 * pages + ["package_licence", "git_note"]
    assert (tmp_path / "review.md").read_text() in text


@pytest.mark.parametrize(
    ("bent", "said"),
    [
        ({"git_commit": {"commit": "HEAD"}}, "something that is not what was asked for"),
        ({"git_commit": ["x"]}, "something that is not what was asked for"),
        ({"git_commit": errors.Refused("There is no repository `quayside`.")}, "There is no repository `quayside`."),
        ({"git_files": {"files": [], "next": 0, "oversized": 0}}, "something that is not what was asked for"),
        ({"git_files": {"files": [{"path": "x.py"}], "next": None, "oversized": 0}}, "something that is not"),
        ({"git_files": {"files": [{"path": "../x.py", "text": ""}], "next": None, "oversized": 0}}, "The repository"),
        ({"git_files": errors.Unreachable("The toolbox", "no answer")}, "The toolbox is not reachable (no answer)"),
    ],
)
def test_tools_that_answer_wrongly_end_the_review_with_a_sentence(tmp_path, bent, said):
    text = review(tmp_path, tools=Table(**bent))
    assert text.startswith("This could not be reviewed. ") and said in text
    assert list(tmp_path.iterdir()) == [], "nothing is left, and nothing was written beside it"


def test_a_note_whose_outcome_is_unknown_is_said_and_not_written_again(tmp_path):
    tools = Table(git_note=errors.Refused("outcome_unknown: look whether it has happened"))
    text = review(tmp_path, tools=tools)
    assert "perhaps not attached to `bbbbbbbbbbbb`: outcome_unknown: look" in text
    assert tools.asked.count("git_note") == 1


def test_licences_that_nobody_can_tell_are_unknown(tmp_path):
    text = review(tmp_path, tools=Table(package_licence=errors.Refused("no")))
    assert "- **added** `tomlkit>=0.13`; licence: unknown" in text and "1 licences were not looked up." in text


def test_without_tools_a_repository_of_theirs_is_a_sentence(tmp_path):
    assert review(tmp_path) == "This could not be reviewed. This agent has no tools; its manifest names none.\n"


def test_a_model_words_each_section_and_sees_its_findings_alone(tmp_path):
    words = Said("Mind the <b>harbour</b>.\nIt changed. " + "x" * helpers.LONGEST_WORDS)
    text = review(tmp_path, words=words, ask="Review pypi:httpx 0.27.2..0.28.1")
    assert [each.partition("\n")[0] for each in words.asked] == list(render.HEADINGS.values())
    lines = [line for line in text.splitlines() if line.startswith("**In words:**")]
    assert len(lines) == 3 and all("&lt;b>" in line and line.endswith("…") for line in lines)
    assert max(len(line) for line in lines) < helpers.LONGEST_WORDS + 40


def test_a_model_that_says_nothing_leaves_the_review_whole(tmp_path):
    plain = review(tmp_path, ask="Review pypi:httpx 0.27.2..0.28.1")
    failing = Said(errors.Refused("the model answered with HTTP 429"))
    text = review(tmp_path, words=failing, ask="Review pypi:httpx 0.27.2..0.28.1")
    assert text.replace("\n*No words for this: the model answered with HTTP 429*\n", "") == plain
