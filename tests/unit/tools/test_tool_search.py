"""Tool search: words, pieces and vectors of texts, both rankings and their fusion, how well they find, and what is kept of answers."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import pytest

from bench.tool_search.questions import examples, further_questions, key, questions, recall, tools
from moorage_gateway.tool_search import Answers, Index, Table, Tool, about
from moorage_gateway.tool_search.asking import Question
from moorage_gateway.tool_search.compounds import OFTEN, Compounds
from moorage_gateway.tool_search.examples import Examples
from moorage_gateway.tool_search.index import DEEP, fused
from moorage_gateway.tool_search.texts import Text
from moorage_gateway.tool_search.wordpiece import pieces
from moorage_gateway.tool_search.words import parts, prose, stem

pytestmark = pytest.mark.unit

LEAST = {3: 0.79, 5: 0.87}
"""Recall of all held-out questions that a change may not lose: what was reached; the goal is 0.85 and 0.92 (docs/tool-search.md)."""
LEAST_FIRST = {3: 0.86, 5: 0.93}
"""The same of the first ones alone."""
TOLD = {3: 0.91, 5: 0.95}
TOLD_FIRST = {3: 0.95, 5: 0.97}
"""Both with an example question at each tool, where the goal is reached."""
TOOLS = [
    Tool("mail", "send_message", "Sends an email to its recipients."),
    Tool("mail", "messages_list", "Lists the messages in the mailbox."),
    Tool("calendar", "events_insert", "Creates an event."),
    Tool("sql", "instances_restart", "Restarts a database instance."),
    Tool("tracker", "labels_add", "Adds labels to an issue."),
]


@pytest.fixture(scope="module")
def table() -> Table:
    return Table.load()


@pytest.fixture(scope="module")
def index(table: Table) -> Index:
    return Index.of(TOOLS, table)


NONE = Compounds([], lambda word: False)


def doings(text: str) -> frozenset[str]:
    return Question.of(text, NONE).doings


def names(found: Sequence[Tool]) -> list[str]:
    return [tool.name for tool in found]


def test_names_are_split_and_prose_is_not() -> None:
    assert parts("listRepos_for_the_HTTPServer") == ["list", "repos", "http", "server"]
    assert prose("The user's GitHub pages") == ["user", "github", "pages"]
    assert [stem(each) for each in ("listing", "copies", "shelves", "access", "planned", "calls")] == [
        "list", "copy", "shelf", "access", "plan", "call",
    ]  # fmt: skip


def test_what_is_to_be_done_is_read_from_verbs_and_phrases_and_else_it_is_to_look() -> None:
    assert doings("insert an entry") == doings("adding entries") == {"create"}
    assert doings("turn off the alarm") == {"disable"}
    assert doings("unsubscribe from the news") >= {"delete"}
    assert doings("weather in Rome") == {"list", "get"}
    assert stem("searchconsole") in Question.of("sites in the Search Console", NONE).joined


def test_a_verb_counts_where_a_question_begins_with_it_and_else_is_a_thing() -> None:
    assert doings("file a complaint") == doings("please leave a note for the guard") == {"create"}
    assert doings("kick somebody out of the room") == doings("throw away the draft") == {"delete"}
    assert doings("files that were sent") == doings("our open tickets") == doings("a release") == {"list", "get"}
    assert doings("list what was deleted") == {"list"}


def test_words_that_stand_together_are_those_that_descriptions_have_apart() -> None:
    said = [prose("Gives a boarding pass to a passenger.")] * OFTEN + [prose("Once: a rarity.")]
    made = Compounds(said, {"boardingpasses"}.__contains__)
    assert made.split(["boardingpass", "get"]) == ["boarding", "pass", "get"]
    for one in ("boardingpasses", "boardingrarity", "passport", "giveshelter", "passenger"):
        assert made.split([one]) == [one]
    assert Compounds(said[:-2], lambda word: False).split(["boardingpass"]) == ["boardingpass"]


@pytest.mark.parametrize(
    ("name", "thing"),
    [
        ("gists_create_comment", ["comment"]),
        ("courses_students_list", ["students"]),
        ("posts.listByUser", ["posts"]),
        ("messages_batchDelete", ["messages"]),
        ("list-issues-for-repo", ["issues"]),
        ("delete", ["delete"]),
        ("weather", ["weather"]),
        ("_1", ["1"]),
        ("-", []),
    ],
)
def test_a_name_is_about_what_its_verb_is_done_with(name: str, thing: list[str]) -> None:
    assert about.of_name(name) == thing


def test_a_question_is_about_the_first_thing_that_it_names_beside_its_verb_and_the_server() -> None:
    for text, thing in (
        ("leave a comment on a gist", ["comment"]),
        ("the student's submissions in Classroom", ["student", "submissions"]),
        ("who may read a shelf", ["read", "shelf"]),
        ("remove an add-on attachment from it", ["add", "attachment"]),
        ("list Classroom", ["classroom"]),
        ("of the", []),
    ):
        assert about.of_question(text.lower(), {"classroom"}) == thing


def test_pieces_are_the_longest_that_the_vocabulary_has() -> None:
    vocabulary = {"web": 1, "##hook": 2, "##h": 3, "cafe": 4, "!": 5}
    assert pieces("WebHook café!", vocabulary) == [1, 2, 4, 5]
    assert pieces("webx", vocabulary) == [] and pieces("web" * 50, vocabulary) == []


def test_words_of_like_meaning_are_near(table: Table) -> None:
    def near(one: str, other: str) -> float:
        return float(table.embed(one) @ table.embed(other))

    assert near("email", "mail") > near("email", "calendar") + 0.2
    assert near("restart the server", "reboot the machine") > near("restart the server", "translate the text") + 0.2


def test_a_text_without_a_known_word_is_the_zero_vector(table: Table, index: Index) -> None:
    assert not table.embed("").any() and index.by_meaning("") == []
    assert index.search("", 5) == []


def test_a_tool_is_found_by_words_that_it_does_not_have(index: Index) -> None:
    assert names(index.search("reboot that machine", 1)) == ["instances_restart"]
    assert names(index.search("compose a letter to somebody and deliver it by email", 1)) == ["send_message"]


def test_what_a_server_calls_itself_tells_its_tools_from_others_and_what_many_do_does_not(table: Table) -> None:
    titles = ("Acme Billing", "Acme Harbour", "Acme Weather API")
    made = Index.of([Tool(f"s{n}", f"s{n}_list", "Lists all.", title=title) for n, title in enumerate(titles)], table)
    assert names(made.search("list everything in the harbour", 1)) == ["s1_list"]
    assert names(made.search("list the weather", 1)) == ["s2_list"]
    asked = "list Acme"
    assert made.by_words(asked) == made.by_words("list") and made.by_meaning(asked) == [0, 1, 2]


def asked(tool: Tool, *questions: str) -> Tool:
    return dataclasses.replace(tool, examples=questions)


def test_a_tool_is_found_by_any_of_its_examples_in_both_rankings(table: Table) -> None:
    made = Index.of([*TOOLS[:3], asked(TOOLS[3], "wake the ledger", "bounce the warehouse"), TOOLS[4]], table)
    for text in ("wake our ledger", "bounce that warehouse"):
        assert made.by_words(text)[0] == 3 and made.by_meaning(text)[0] == 3
        assert names(made.search(text, 1)) == ["instances_restart"]
    every = Index.of([asked(each, f"{each.server} it") for each in TOOLS], table)
    assert names(every.search("tracker it", 1)) == ["labels_add"]


def test_what_an_example_wants_done_is_what_its_tool_does(table: Table) -> None:
    tools = [Tool("a", f"box_{n}", "Of a box.") for n in range(3)]
    made = Index.of(
        [asked(each, f"{verb} a box") for each, verb in zip(tools, ("open", "get", "erase"), strict=True)], table
    )
    assert made.by_words("delete a box")[0] == 2


def test_words_of_its_server_are_none_of_an_example() -> None:
    made = Tool("mail", "send", examples=("mail a form",))
    (example,) = Examples([made], [Text.of(made, NONE)], NONE).every
    assert example.stems == ("form",)


def corpus_index(table: Table, given: Callable[[str], bool]) -> Index:
    """All tools of the bench; `given`: which have their example, by `key`."""
    example = examples()
    assert list(example) == [key(each) for each in tools()]
    return Index.of(
        [
            Tool(
                each["server"], key(each), each["description"], each["name"], each["title"],
                (example[key(each)],) if given(key(each)) else (),
            )
            for each in tools()
        ],
        table,
    )  # fmt: skip


def test_examples_of_some_tools_do_not_bury_the_others(table: Table) -> None:
    text = [each for each in (*questions(), *further_questions()) if not each.held_out]

    def share(index: Index, most: int) -> float:
        return recall(text, lambda text: names(index.search(text, most)), most)

    none = corpus_index(table, lambda name: False)
    some = corpus_index(table, lambda name: hashlib.sha256(name.encode()).digest()[2] % 4 == 0)
    for most in (3, 5):
        assert share(some, most) >= share(none, most) - 0.02


def test_both_rankings_count_by_their_places() -> None:
    assert fused([[1, 2, 3], [3, 1]], (1, 1)) == [1, 3, 2]
    assert fused([[], []], (1, 1)) == []
    assert fused([list(range(DEEP)), [DEEP - 1]], (1, 1))[:2] == [DEEP - 1, 0]
    assert fused([[1, 2], [2, 1]], (1, 2)) == [2, 1]


def test_an_empty_toolbox_has_no_answer(table: Table) -> None:
    assert Index.of([], table).search("send an email", 3) == []


class Counting(Index):
    """Counts its searches."""

    searches = 0

    def search(self, query: str, most: int) -> list[Tool]:
        self.searches += 1
        return super().search(query, most)


def test_the_same_question_of_a_session_is_searched_once_and_a_new_version_anew(table: Table) -> None:
    index = Counting.of(TOOLS, table)
    assert isinstance(index, Counting)
    answers = Answers(sessions=2, questions=2)
    for _ in range(3):
        assert answers.of(index, "1", "s1", "send an email", 1) == ("send_message",)
    assert index.searches == 1
    answers.of(index, "2", "s1", "send an email", 1)
    assert index.searches == 2
    answers.of(index, "2", "s2", "send an email", 1)  # the third: the oldest is forgotten
    answers.of(index, "1", "s1", "send an email", 1)
    assert index.searches == 4
    for text in ("a", "b", "c", "a"):
        answers.of(index, "1", "s1", text, 1)
    assert index.searches == 8


@pytest.mark.parametrize(
    ("given", "floors", "floors_first"),
    [(False, LEAST, LEAST_FIRST), (True, TOLD, TOLD_FIRST)],
    ids=["without examples", "with one each"],
)
def test_on_questions_that_tuning_never_saw_both_together_find_more_than_either(
    table: Table, given: bool, floors: dict[int, float], floors_first: dict[int, float]
) -> None:
    made = corpus_index(table, lambda name: given)
    first = [each for each in questions() if each.held_out]
    asked = [*first, *(each for each in further_questions() if each.held_out)]
    assert len(made.tools) >= 1000 and len(first) >= 100 and len(asked) >= 391

    def found(most: int) -> tuple[float, float, float]:
        return (
            recall(asked, lambda text: names(made.search(text, most)), most),
            recall(asked, lambda text: [made.tools[each].name for each in made.by_words(text)], most),
            recall(asked, lambda text: [made.tools[each].name for each in made.by_meaning(text)], most),
        )

    for most, least in floors.items():
        both, words, vectors = found(most)
        assert both > words and both > vectors and both >= least
    for most, least in floors_first.items():
        assert recall(first, lambda text: names(made.search(text, max(floors_first))), most) >= least
