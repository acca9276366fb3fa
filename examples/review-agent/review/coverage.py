"""Which changed functions the tests reach, told from names alone: nothing is run and no line is counted.

named    a test file names the function, or its class together with the method's name
alike    a test file uses a method of this name on an object that cannot be resolved, or the class of a special method
through  not in the tests, but a function above uses it (followed inside the package)
unseen   none of these
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import functions, model
from .budget import Budget
from .functions import Code, Function

DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class TestFile:
    """What one test file names: symbols of the package, and attribute names on any object."""

    __test__ = False

    symbols: frozenset[str]
    attributes: frozenset[str]


def assess(both: functions.Both, tests: Iterable[Path], test_root: Path, budget: Budget) -> model.Coverage:
    """Compare two trees function by function and look each difference up in the tests of the newer one."""
    old, new = both.old, both.new
    read, unreadable = _read_tests(new, tests, test_root, budget)
    reach = _Reach(new, read).of_all()
    changes = [
        model.FunctionChange(f.symbol, f.file, f.line, change, reach[f.symbol]) for f, change in _differences(old, new)
    ]
    changes.sort(key=lambda c: (c.file, c.line, c.symbol))
    removed = sum(symbol not in new.functions for symbol in old)
    broken = sorted({*both.unreadable, *unreadable})
    notes = [f"{len(broken)} files could not be parsed and are left out: " + _listed(broken) + "."] if broken else []
    return model.Coverage(len(read), tuple(changes), removed, tuple(notes))


def _differences(old: Mapping[str, str], new: Code) -> Iterator[tuple[Function, str]]:
    for symbol, function in new.functions.items():
        before = old.get(symbol)
        if before is None:
            yield function, "added"
        elif before != function.digest:
            yield function, "changed"


def _read_tests(code: Code, tests: Iterable[Path], root: Path, budget: Budget) -> tuple[list[TestFile], list[str]]:
    read, unreadable = [], []
    for path in tests:
        budget.check()
        tree = functions.parse(path)
        if tree is None:
            unreadable.append(path.relative_to(root).as_posix())
        else:
            read.append(_test_file(tree, code))
    return read, unreadable


def _test_file(tree: ast.Module, code: Code) -> TestFile:
    names = functions.names_of(tree, "", is_package=False)
    attributes: set[str] = set()
    mentioned: set[str] = set()
    strings: set[str] = set()
    for node in functions.walk(tree, annotations=True):
        if isinstance(node, ast.Attribute):
            attributes.add(node.attr)
            mentioned.update(filter(None, [functions.dotted(node)]))
        elif isinstance(node, ast.Name):
            mentioned.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The usual way to name a function without importing it: mock.patch("package.module.function").
            if len(node.value) <= functions.LONGEST_STRING and DOTTED.fullmatch(node.value):
                strings.add(node.value)
    found = {symbol for name in mentioned for symbol in _resolved(name, names, code)}
    found.update(symbol for name in strings if (symbol := code.resolve(name)) is not None)
    return TestFile(frozenset(found), frozenset(attributes))


def _resolved(name: str, names: functions.Names, code: Code) -> Iterator[str]:
    first, _, rest = name.partition(".")
    if first in names.imports:
        target = names.imports[first]
        candidates = [f"{target}.{rest}" if rest else target]
    else:
        candidates = [f"{module}.{name}" for module in names.stars]
    for candidate in candidates:
        if symbol := code.resolve(candidate):
            yield symbol


class _Reach:
    """The reach of every function of one tree."""

    def __init__(self, code: Code, tests: list[TestFile]) -> None:
        self._code = code
        self._tests = tests
        self._attributes = frozenset(a for test in tests for a in test.attributes)
        self._symbols = frozenset(s for test in tests for s in test.symbols)
        self._together = self._class_with_attribute()

    def of_all(self) -> dict[str, str]:
        reach = {symbol: self._directly(function) for symbol, function in self._code.functions.items()}
        waiting = [symbol for symbol, how in sorted(reach.items()) if how != "unseen"]
        while waiting:
            for used in self._used_by(self._code.functions[waiting.pop()]):
                if reach.get(used) == "unseen":
                    reach[used] = "through"
                    waiting.append(used)
        return reach

    def _class_with_attribute(self) -> frozenset[tuple[str, str]]:
        """(class, name): some test file names the class or a class derived from it, and the name."""
        ancestors = {symbol: _ancestors(symbol, self._code) for symbol in self._code.bases}
        names_by_owner = defaultdict(set)
        for function in self._code.functions.values():
            if function.owner:
                names_by_owner[function.owner].add(function.name)
        found: set[tuple[str, str]] = set()
        for test in self._tests:
            classes = {a for symbol in test.symbols for a in ancestors.get(_class_of(symbol, ancestors), ())}
            for owner in classes:
                found.update((owner, name) for name in names_by_owner[owner] & test.attributes)
        return frozenset(found)

    def _directly(self, function: Function) -> str:
        if function.symbol in self._symbols:
            return "named"
        if function.owner is None:
            return "unseen"
        if (function.owner, function.name) in self._together:
            return "named"
        if function.name.startswith("__") and function.name.endswith("__"):
            if not self._is_used(function.owner):
                return "unseen"
            return "named" if function.name in ("__init__", "__new__") else "alike"
        return "alike" if function.name in self._attributes else "unseen"

    def _is_used(self, owner: str) -> bool:
        return any(owner in _ancestors(symbol, self._code) for symbol in self._symbols if symbol in self._code.bases)

    def _used_by(self, function: Function) -> Iterator[str]:
        for use in function.uses:
            first, _, rest = use.partition(".")
            if first == "self":
                found = self._code.method(function.owner, rest) if function.owner else None
            else:
                found = self._code.resolve(use)
                if found is not None and found in self._code.bases:
                    found = self._code.method(found, "__init__")
            if found:
                yield found


def _class_of(symbol: str, classes: dict[str, frozenset[str]]) -> str:
    """The class itself, or the class of `package.Class.member`."""
    return symbol if symbol in classes else symbol.rpartition(".")[0]


def _ancestors(symbol: str, code: Code) -> frozenset[str]:
    """A class and all classes of the tree that it derives from."""
    seen: set[str] = set()
    waiting = [symbol]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(code.bases.get(current, ()))
    return frozenset(seen)


def _listed(names: list[str], most: int = 5) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
