import pytest
from review import coverage, functions, layout
from review.budget import Budget

pytestmark = pytest.mark.unit

OLD = {
    "src/p/__init__.py": "from p._core import Base, Thing, helper\nfrom ._core import other as renamed\n",
    "src/p/_core.py": '''
class Base:
    def shared(self):
        return 1

class Thing(Base):
    def __init__(self, size):
        self.size = size
    def grow(self):
        return self._step()
    def _step(self):
        return 1
    def shrink(self):
        return 2
    @property
    def area(self):
        return 3

def helper():
    return 1

def other():
    """Doc."""
    return 1

def lonely():
    return 1

def deep():
    return _deeper()

def _deeper():
    return 1

def documented(a: int) -> int:
    """One."""
    return a

def gone():
    return 0
''',
}
NEW = {
    **OLD,
    "src/p/_core.py": OLD["src/p/_core.py"]
    .replace("return 1", "return 10")
    .replace("return 2", "return 20")
    .replace("return 3", "return 30")
    .replace("= size", "= size + 1")
    .replace('"""One."""', '"""Another text."""')
    .replace("a: int) -> int", "a: float) -> float")
    .split("def gone")[0]
    + "def fresh():\n    return 1\n",
}


def assess(tree, tests, old=OLD, new=NEW):
    one, two = (layout.examine(tree(name, files)) for name, files in (("old", old), ("new", {**new, **tests})))
    both = functions.read_both(one, two, Budget.start())
    return coverage.assess(both, two.tests, two.root, Budget.start())


def reach(found):
    return {c.symbol.removeprefix("p._core."): c.reach for c in found.changes}


def test_only_functions_whose_code_differs_count_as_changed(tree):
    found = assess(tree, {})
    changed = {c.symbol.removeprefix("p._core.") for c in found.changes if c.change == "changed"}
    assert changed == {
        "Base.shared", "Thing.__init__", "Thing._step", "Thing.shrink", "Thing.area", "helper", "other", "lonely", "_deeper",
    }  # fmt: skip
    assert [c.symbol for c in found.changes if c.change == "added"] == ["p._core.fresh"]
    assert found.removed == 1
    assert found.test_files == 0


def test_a_function_is_named_through_any_spelling_of_its_import(tree):
    tests = {
        "tests/test_a.py": "import p\np.helper()\n",
        "tests/test_b.py": "from p import renamed as r\nr()\n",
        "tests/test_c.py": "from p._core import lonely\nlonely()\n",
        "tests/test_d.py": "from unittest import mock\nmock.patch('p._core.fresh')\n",
    }
    found = reach(assess(tree, tests))
    assert [found[name] for name in ("helper", "other", "lonely", "fresh")] == ["named"] * 4
    assert found["_deeper"] == "unseen"


def test_a_method_is_named_when_the_same_file_names_its_class_or_a_derived_one(tree):
    found = reach(
        assess(tree, {"tests/test_a.py": "from p import Thing\nt = Thing(1)\nt.grow()\nt.shared()\nt.area\n"})
    )
    assert found["Thing.__init__"] == found["Base.shared"] == found["Thing.area"] == "named"
    assert found["Thing.shrink"] == "unseen"


def test_what_a_named_function_uses_is_reached_through_it(tree):
    found = reach(
        assess(tree, {"tests/test_a.py": "from p import Thing\nfrom p._core import deep\ndeep()\nThing(1).grow()\n"})
    )
    assert found["_deeper"] == found["Thing._step"] == "through"


def test_a_method_name_on_an_unknown_object_is_only_alike(tree):
    assert reach(assess(tree, {"tests/test_a.py": "def test(thing):\n    thing.shrink()\n"}))["Thing.shrink"] == "alike"


def test_a_local_name_that_is_equal_by_chance_is_not_taken_for_the_function(tree):
    assert reach(assess(tree, {"tests/test_a.py": "def helper():\n    pass\nhelper()\n"}))["helper"] == "unseen"


def test_names_imported_with_a_star_are_followed(tree):
    extra = {"src/p/__init__.py": "from ._core import *\n"}
    found = assess(tree, {"tests/test_a.py": "from p import *\nlonely()\n"}, old={**OLD, **extra}, new={**NEW, **extra})
    assert reach(found)["lonely"] == "named"


def test_files_that_do_not_parse_are_named_and_do_not_end_the_review(tree):
    found = assess(
        tree, {"tests/test_a.py": "def (:\n", "src/p/bad.py": "print 'x'\n", "tests/test_b.py": "x = " + "(" * 5000}
    )
    assert "3 files could not be parsed" in found.notes[0]
    assert found.test_files == 0


@pytest.mark.parametrize(
    ("files", "packages"),
    [
        (["src/p/__init__.py", "tests/__init__.py", "setup.py"], ("p",)),
        (["p/__init__.py", "p/sub/__init__.py", "docs/__init__.py", "tests/test_p.py"], ("p",)),
        (["attr/__init__.py", "attrs/__init__.py"], ("attr", "attrs")),
        (["google/cloud/store/__init__.py", "google/cloud/store/x.py"], ("google.cloud.store",)),
        (["single.py", "setup.py", "conftest.py", "test_single.py"], ("single",)),
        (["README.py/x.txt"], ()),
    ],
)
def test_import_packages_are_found_in_the_usual_layouts(tree, files, packages):
    assert layout.examine(tree("t", dict.fromkeys(files, ""))).packages == packages


def test_tests_inside_a_package_are_tests_and_no_api(tree):
    found = layout.examine(tree("t", dict.fromkeys(["p/__init__.py", "p/tests/test_a.py", "p/core.py"], "")))
    assert [m.name for m in found.modules] == ["p", "p.core"]
    assert [t.name for t in found.tests] == ["test_a.py"]
