import pytest
from review import requests
from review.requests import FollowUp, Review, Unclear

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Review pypi:httpx 0.27.2..0.28.1", Review("pypi", "httpx", "0.27.2", "0.28.1")),
        ("review pypi:httpx 0.27.2...0.28.1, please.", Review("pypi", "httpx", "0.27.2", "0.28.1")),
        ("Please review `pypi:httpx 0.27.2..0.28.1`!", Review("pypi", "httpx", "0.27.2", "0.28.1")),
        ("pypi:zope.interface 5.0..6.0", Review("pypi", "zope.interface", "5.0", "6.0")),
        ("Review httpx 0.27.2..0.28.1", Review("pypi", "httpx", "0.27.2", "0.28.1")),
        ("Review httpx from 0.27.2 to 0.28.1", Review("pypi", "httpx", "0.27.2", "0.28.1")),
        ("compare httpx 1.0rc1..1.0", Review("pypi", "httpx", "1.0rc1", "1.0")),
        ("Review https://host/r.git v1.0..v1.1", Review("git", "https://host/r.git", "v1.0", "v1.1")),
        ("Review /src/repo main..feature/x", Review("git", "/src/repo", "main", "feature/x")),
        ("Review ./repo HEAD~2..HEAD", Review("git", "./repo", "HEAD~2", "HEAD")),
        ("only the API part of pypi:httpx 1..2", Review("pypi", "httpx", "1", "2")),
    ],
)
def test_a_range_in_the_text_asks_for_a_new_review(text, expected):
    assert requests.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "sections", "level", "why"),
    [
        ("only the API part, shorter", ("api",), "short", False),
        ("breaking changes in full", ("api",), "full", False),
        ("which licences?", ("dependencies",), "normal", False),
        ("the tests and the dependencies, briefly", ("coverage", "dependencies"), "short", False),
        ("shorter", requests.SECTIONS, "short", False),
        ("show it again", requests.SECTIONS, "normal", False),
        ("how do you know what is tested?", ("coverage",), "normal", True),
        ("review", requests.SECTIONS, "normal", False),
    ],
)
def test_words_about_the_last_review_choose_its_parts_and_length(text, sections, level, why):
    parsed = requests.parse(text)
    assert isinstance(parsed, FollowUp)
    assert (parsed.sections, parsed.level, parsed.why) == (sections, level, why)


@pytest.mark.parametrize("text", ["", "hello", "ssh://host/repo.git a..b", "file:///etc a..b", "ext::sh a..b"])
def test_what_no_rule_knows_is_unclear_and_no_other_scheme_is_taken_for_a_repository(text):
    assert isinstance(requests.parse(text), Unclear)


def test_a_very_long_text_is_read_in_bounded_time():
    assert isinstance(requests.parse("a" * 3_000_000 + " pypi:x 1..2"), Unclear)
    assert not isinstance(requests.parse("x " * 100_000 + "." * 100_000), Review)
