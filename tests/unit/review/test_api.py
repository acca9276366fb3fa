import pytest
from review import api, layout
from review.budget import Budget, Limits

pytestmark = pytest.mark.unit


def compare(tree, old, new, limits=None):
    one, two = (layout.examine(tree(name, files)) for name, files in (("old", old), ("new", new)))
    return api.compare(one, two, Budget.start(limits))


def lines(found):
    return [f"{b.symbol}: {b.text}" for b in found.breakages]


SWAPPED = ["parameter `a` moved from position 1 to 2", "parameter `b` moved from position 2 to 1"]
CORE = "class Client:\n    def __init__(self, a, *, proxies=None, app=None):\n        pass\n\ndef get(url, *, cert=None):\n    pass\n"
DROPPED = CORE.replace(", proxies=None, app=None", ", extra=None").replace(", *, cert=None", "")
INITS = {
    "star and __all__": "from ._core import *\nfrom ._core import Client, get\n__all__ = ['Client', 'get']\n",
    "plain imports": "from ._core import Client, get\n",
    "renamed imports": "from p._core import Client as Client, get as get\n",
}


@pytest.mark.parametrize("init", INITS.values(), ids=INITS)
def test_a_change_in_a_private_module_is_told_under_the_name_that_users_write(tree, init):
    found = compare(tree, {"p/__init__.py": init, "p/_core.py": CORE}, {"p/__init__.py": init, "p/_core.py": DROPPED})
    assert lines(found) == [
        "p.Client.__init__: parameter `app` was removed",
        "p.Client.__init__: parameter `proxies` was removed",
        "p.get: parameter `cert` was removed",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("def f(a): ...", "def g(a): ...", ["p.f: was removed"]),
        ("def f(a): ...", "def f(a, b): ...", ["p.f: parameter `b` was added and is required"]),
        ("def f(a=1): ...", "def f(a): ...", ["p.f: parameter `a` is now required"]),
        ("def f(a=1): ...", "def f(a=2): ...", ["p.f: parameter `a`: default was `1`, is `2`"]),
        ("def f(a, b): ...", "def f(b, a): ...", [f"p.f: {moved}" for moved in SWAPPED]),
        ("class C:\n def m(self, a, b): ...", "class C:\n def m(self, b, a): ...", [f"p.C.m: {m}" for m in SWAPPED]),
        ("def f(a): ...", "def f(*, a): ...", ["p.f: parameter `a` was positional or keyword, is keyword-only"]),
        ("def f(): ...", "class f: ...", ["p.f: was a function, is a class"]),
        ("def f(): ...", "async def f(): ...", ["p.f: is async now: its callers must await it"]),
        ("class A: ...\nclass B(A): ...", "class A: ...\nclass B: ...", ["p.B: bases were `A`, are `object`"]),
        ("def _f(a): ...", "def _f(): ...", []),
        ("def f(a): ...", "def f(a, b=1): ...", []),
        ("def f(*, a=1): ...", "def f(**kw): ...", []),
    ],
)  # fmt: skip
def test_each_kind_of_change_has_its_words(tree, old, new, expected):
    assert lines(compare(tree, {"p/__init__.py": old}, {"p/__init__.py": new})) == expected


def test_nothing_of_the_reviewed_code_is_executed(tree, tmp_path):
    marker = tmp_path / "ran"
    bad = f"open({str(marker)!r}, 'w')\nimport sys; sys.exit(3)\ndef f(a): ...\n"
    found = compare(tree, {"p/__init__.py": bad, "setup.py": bad}, {"p/__init__.py": bad.replace("(a)", "()")})
    assert lines(found) == ["p.f: parameter `a` was removed"]
    assert not marker.exists()


def test_modules_that_name_each_other_in_circles_end(tree):
    files = {
        "p/__init__.py": "from p import a, b\n__all__ = ['a', 'b']\n",
        "p/a.py": "from p import b\nfrom p.b import *\n__all__ = ['b', 'f']\ndef f(x): ...\n",
        "p/b.py": "from p import a\nfrom p.a import *\n__all__ = ['a', 'g']\ndef g(x): ...\n",
    }
    new = {**files, "p/a.py": files["p/a.py"].replace("f(x)", "f()")}
    assert lines(compare(tree, files, new)) == ["p.a.f: parameter `x` was removed"]


def test_a_package_that_is_gone_is_said(tree):
    assert lines(compare(tree, {"p/__init__.py": ""}, {"q/__init__.py": ""})) == ["p: the whole package was removed"]


def test_a_tree_without_an_import_package_is_said_to_have_no_api(tree):
    assert "no API to compare" in compare(tree, {"x.txt": ""}, {"x.txt": ""}).notes[0]


def test_a_tree_too_large_for_the_sandbox_is_not_loaded_and_the_report_says_so(tree):
    found = compare(tree, {"p/__init__.py": "x = 1\n" * 100}, {"p/__init__.py": ""}, Limits(api_bytes=10))
    assert "not compared" in found.notes[0]


def test_code_that_does_not_parse_leaves_a_note(tree):
    found = compare(tree, {"p/__init__.py": "def f(a): ..."}, {"p/__init__.py": "def f(:"})
    assert found.notes or found.breakages
