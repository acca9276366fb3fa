import pytest
from review import dependencies, errors, licences, model
from review.budget import Budget, Limits
from review.index import Index
from review.licences import IndexLicences, RecordedLicences
from review.transport import MemoryTransport

pytestmark = pytest.mark.unit

OLD = b"""Metadata-Version: 2.1
Name: p
License: MIT
Requires-Dist: Sniff_io
Requires-Dist: kept>=1
Requires-Dist: moved<2
Requires-Dist: fast; (platform_python_implementation == 'CPython') and extra == 'speed'
"""
NEW = b"""Metadata-Version: 2.2
Name: p
License-Expression: Apache-2.0
Requires-Dist: kept >= 1
Requires-Dist: moved>=2
Requires-Dist: fresh[x]~=1.0 ; python_version < "3.12"
Requires-Dist: faster; extra == "speed"
"""


def compare(old, new, table=()):
    return dependencies.compare(old, new, RecordedLicences(dict(table)), Budget.start())


def test_added_dropped_and_changed_requirements_are_told_apart_and_extras_kept_separate():
    found = compare(
        dependencies.from_metadata(OLD, "a"), dependencies.from_metadata(NEW, "a"), {"fresh": "MIT", "moved": "ISC"}
    )
    assert set(found.changes) == {
        model.DependencyChange("sniff-io", "", None),
        model.DependencyChange("moved", "<2", ">=2", None, "ISC"),
        model.DependencyChange("fresh", None, '[x]~=1.0; python_version < "3.12"', None, "MIT"),
        model.DependencyChange("fast", '; platform_python_implementation == "CPython"', None, "speed"),
        model.DependencyChange("faster", None, "", "speed"),
    }
    assert found.unchanged == 1
    assert "The licence of the project itself changed: MIT → Apache-2.0." in found.notes


@pytest.mark.parametrize(
    ("text", "reliable"),
    [
        (b"Metadata-Version: 2.1\n", False),
        (b"Metadata-Version: 2.2\n", True),
        (b"Metadata-Version: 2.4\nDynamic: Requires-Dist\n", False),
        (b"Metadata-Version: x\n", False),
    ],
)
def test_an_sdists_own_list_counts_only_where_the_standard_makes_it_binding(text, reliable):
    assert dependencies.is_reliable(text) is reliable


TREES = {
    "pep 621": {"pyproject.toml": '[project]\nname="p"\ndependencies=["a>=1"]\noptional-dependencies={x=["b"]}\n'},
    "setup.cfg": {"setup.cfg": "[options]\ninstall_requires =\n    a>=1\n[options.extras_require]\nx =\n    b\n"},
    "setup.py": {
        "setup.py": "from setuptools import setup\nsetup(install_requires=['a>=1'], extras_require={'x': ['b']})\n"
    },
}


@pytest.mark.parametrize("files", TREES.values(), ids=TREES)
def test_a_tree_is_read_in_every_common_form(tree, files):
    assert dependencies.from_tree(tree("t", files)).needs == {("a", None): ">=1", ("b", "x"): ""}


def test_poetry_and_requirements_files_are_read_too(tree):
    poetry = '[tool.poetry]\nlicense="MIT"\n[tool.poetry.dependencies]\npython="^3.11"\nA_b="^1.2"\nc={version="2",optional=true}\n'
    assert dependencies.from_tree(tree("a", {"pyproject.toml": poetry})).needs == {
        ("a-b", None): "^1.2",
        ("c", "optional"): "2",
    }
    lines = "# c\na==1 --hash=sha256:00 \\\n-r other.txt\nb>=2 # why\n"
    assert dependencies.from_tree(tree("b", {"requirements.txt": lines})).needs == {
        ("a", None): "==1",
        ("b", None): ">=2",
    }


def test_a_list_that_only_running_code_could_tell_stays_unknown_and_is_named(tree, tmp_path):
    marker = tmp_path / "ran"
    setup = f"open({str(marker)!r}, 'w')\nfrom setuptools import setup\nsetup(install_requires=read('x'))\n"
    found = dependencies.from_tree(tree("t", {"setup.py": setup}))
    assert found.needs == {}
    assert "without running it" in found.notes[0]
    assert not marker.exists()


@pytest.mark.parametrize("text", ["not toml [", "project = 3", "[project]\ndependencies = 3\n", "a = " + "[" * 5000])
def test_a_broken_project_file_is_no_reason_to_fail(tree, text):
    assert dependencies.from_tree(tree("t", {"pyproject.toml": text})).needs == {}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (b"License-Expression: MIT OR Apache-2.0\nLicense: x\n", "MIT OR Apache-2.0"),
        (b"License: BSD-3-Clause\n", "BSD-3-Clause"),
        (b"License: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n", "MIT License"),
        (b"License: The long text\n  of a licence\n  that goes on\n", "The long text"),
        (b"Classifier: License :: OSI Approved\n", None),
        (b"Name: p\n", None),
    ],
)
def test_a_licence_is_what_the_metadata_says_or_unknown(metadata, expected):
    assert licences.of_metadata(dependencies.parse_metadata(metadata)) == expected


def test_a_licence_is_taken_from_the_newest_allowed_wheel_without_keeping_it(tmp_path, published, zipped):
    old = zipped({"p-1.0.dist-info/METADATA": "License: Old\n"})
    new = zipped({"p-2.0.dist-info/METADATA": "License: New\n"})
    pages = published({"p": {"p-1.0-py3-none-any.whl": old, "p-2.0-py3-none-any.whl": new}})
    lookup = IndexLicences(Index("https://index.test/simple", MemoryTransport(pages)), tmp_path)
    assert lookup.of("p", ">=1", Budget.start()) == "New"
    assert lookup.of("p", "<2", Budget.start()) == "Old"
    assert lookup.of("missing", "", Budget.start()) is None
    assert list(tmp_path.iterdir()) == []
    assert lookup.notes() == []


def test_an_index_that_does_not_answer_is_asked_once_and_the_report_says_so(tmp_path):
    class Down:
        asked = 0

        def get(self, url, **_):
            self.asked += 1
            raise errors.Unreachable("The package index", "connection refused")

    down = Down()
    lookup = IndexLicences(Index("https://index.test/simple", down), tmp_path)
    assert [lookup.of(name, "", Budget.start()) for name in ("a", "b", "c")] == [None, None, None]
    assert down.asked == 1
    assert lookup.notes() == ["3 licences were not looked up: The package index is not reachable (connection refused)."]


def test_lookups_have_a_cap(tmp_path, published):
    lookup = IndexLicences(Index("https://index.test/simple", MemoryTransport({})), tmp_path)
    budget = Budget.start(Limits(licence_lookups=2))
    for name in "abcde":
        lookup.of(name, "", budget)
    assert lookup.notes()[0].startswith("3 licences were not looked up")
