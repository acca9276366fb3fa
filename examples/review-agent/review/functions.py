"""The functions of a source tree and what each of them names, by reading syntax trees only.

A digest changes when a function's code does: docstrings, comments, layout and type annotations do not count. `Code.resolve` follows
the imports of the tree itself, so that `httpx.get` and `httpx._api.get` are the same function. Reading syntax trees in Python is the
slowest part of a review, so files that are the same in both versions are read once, and their functions are not digested at all.
"""

import ast
import hashlib
import warnings
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from .budget import Budget
from .layout import Layout, Module

FOLLOW = 12
LONGEST_STRING = 200
NO_CODE = frozenset({"ctx"})
ANNOTATIONS = frozenset({"annotation", "returns", "type_params"})

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Function:
    """`owner` is the symbol of the class, None for a function of a module; `uses` are unresolved dotted names.

    `digest` is empty in a file that did not change.
    """

    symbol: str
    module: str
    owner: str | None
    name: str
    file: str
    line: int
    digest: str
    uses: frozenset[str]


@dataclass
class Names:
    """What the names of one file stand for."""

    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    defined: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Code:
    """One tree. `bases`: class symbol → symbols of its base classes, resolved as far as the tree goes."""

    functions: Mapping[str, Function]
    modules: Mapping[str, Names]
    bases: Mapping[str, tuple[str, ...]]
    unreadable: tuple[str, ...]

    def resolve(self, dotted: str, depth: int = FOLLOW) -> str | None:
        """The symbol a dotted name stands for; None if it leads out of the tree."""
        parts = dotted.split(".")
        for cut in range(len(parts), 0, -1):
            names = self.modules.get(".".join(parts[:cut]))
            if names is None:
                continue
            if cut == len(parts):
                return dotted
            # An import wins over a definition of the same name: that one is the fallback of a `try: import`.
            found = self._through(names, parts[cut:], depth)
            return found or (dotted if parts[cut] in names.defined else None)
        return None

    def _through(self, names: Names, rest: list[str], depth: int) -> str | None:
        if depth <= 0:
            return None
        target = names.imports.get(rest[0])
        if target is not None:
            return self.resolve(".".join([target, *rest[1:]]), depth - 1)
        for module in names.stars:
            if module in self.modules and (found := self.resolve(".".join([module, *rest]), depth - 1)):
                return found
        return None

    def method(self, owner: str, name: str, depth: int = FOLLOW) -> str | None:
        """The symbol of a method as seen from a class, looked up in its bases too."""
        symbol = f"{owner}.{name}"
        if symbol in self.functions or depth <= 0:
            return symbol if symbol in self.functions else None
        for base in self.bases.get(owner, ()):
            if found := self.method(base, name, depth - 1):
                return found
        return None


@dataclass(frozen=True)
class Both:
    """The newer tree, and of the older one what is needed for comparing: symbol → digest."""

    old: Mapping[str, str]
    new: Code
    unreadable: tuple[str, ...]


def read_both(old: Layout, new: Layout, budget: Budget) -> Both:
    """Index two versions of one project."""
    before = {module.name: module for module in old.modules}
    same = {m.name for m in new.modules if m.name in before and _equal(m.path, before[m.name].path)}
    code = read(new, budget, undigested=same)
    digests = {f.symbol: "" for f in code.functions.values() if f.module in same}
    unreadable = set(code.unreadable)
    for module in old.modules:
        budget.check()
        if module.name in same:
            continue
        tree = parse(module.path)
        if tree is None:
            unreadable.add(module.shown)
            continue
        for symbol, digest in _digests(tree, module.name):
            digests[symbol] = _joined(digests.get(symbol), digest)
    return Both(digests, code, tuple(sorted(unreadable)))


def read(layout: Layout, budget: Budget, undigested: Container[str] = ()) -> Code:
    """Index every module of a tree."""
    functions: dict[str, Function] = {}
    modules: dict[str, Names] = {}
    classes: dict[str, tuple[str, ...]] = {}
    unreadable: list[str] = []
    for module in layout.modules:
        budget.check()
        tree = parse(module.path)
        if tree is None:
            unreadable.append(module.shown)
            continue
        names = names_of(tree, module.name, is_package=module.is_package)
        modules[module.name] = names
        for function in _functions_of(tree, module, names, classes, digested=module.name not in undigested):
            known = functions.get(function.symbol)
            functions[function.symbol] = function if known is None else _merged(known, function)
    code = Code(functions, modules, {}, tuple(unreadable))
    bases = {
        symbol: tuple(found for base in named if (found := code.resolve(base)) is not None)
        for symbol, named in classes.items()
    }
    return Code(functions, modules, bases, tuple(unreadable))


def _equal(one: Path, two: Path) -> bool:
    return one.stat().st_size == two.stat().st_size and one.read_bytes() == two.read_bytes()


def parse(path: Path) -> ast.Module | None:
    """None for a file that is no valid Python of this interpreter's version, or nested beyond reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def walk(node: ast.AST, *, annotations: bool) -> Iterator[ast.AST]:
    """Every node; several times faster than `ast.walk`, which also visits what says load or store."""
    skipped = NO_CODE if annotations else NO_CODE | ANNOTATIONS
    waiting = [node]
    while waiting:
        current = waiting.pop()
        yield current
        for name in current._fields:
            if name in skipped:
                continue
            value = getattr(current, name, None)
            if isinstance(value, list):
                waiting.extend(item for item in value if isinstance(item, ast.AST))
            elif isinstance(value, ast.AST):
                waiting.append(value)


def names_of(tree: ast.Module, module: str, *, is_package: bool) -> Names:
    """The import table and the definitions of one file, wherever in it an import stands."""
    names = Names()
    for node in _every_statement(tree.body):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names.imports[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, module, is_package)
            for alias in node.names:
                if alias.name == "*":
                    names.stars.append(origin)
                else:
                    names.imports[alias.asname or alias.name] = f"{origin}.{alias.name}" if origin else alias.name
    for statement in _statements(tree.body):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.defined.add(statement.name)
        elif isinstance(statement, ast.Assign):
            names.defined.update(t.id for t in statement.targets if isinstance(t, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names.defined.add(statement.target.id)
    return names


def dotted(node: ast.expr) -> str | None:
    """`a.b.c` for a chain of attributes that begins with a name; None for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def _origin(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    keep = len(parts) - node.level + (1 if is_package else 0)
    return ".".join([*parts[: max(keep, 0)], *([node.module] if node.module else [])])


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module or class, also under `if`, `try` and `with`."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, (ast.If, ast.Try, ast.With)):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _every_statement(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements at any depth: what imports can hide in."""
    waiting = list(body)
    while waiting:
        statement = waiting.pop()
        yield statement
        for part in ("body", "orelse", "finalbody"):
            waiting.extend(getattr(statement, part, ()))
        for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            waiting.extend(branch.body)


def _definitions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, str | None, Definition]]:
    """(symbol, symbol of the class or None, node) of every class and function that is not inside a function."""
    waiting: list[tuple[str, str | None, list[ast.stmt]]] = [(prefix, None, body)]
    while waiting:
        above, owner, statements = waiting.pop()
        for node in _statements(statements):
            if isinstance(node, ast.ClassDef):
                symbol = f"{above}.{node.name}"
                yield symbol, owner, node
                waiting.append((symbol, symbol, node.body))
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _is_overload(node):
                yield f"{above}.{node.name}", owner, node


def _functions_of(
    tree: ast.Module, module: Module, names: Names, classes: dict[str, tuple[str, ...]], *, digested: bool
) -> Iterator[Function]:
    for symbol, owner, node in _definitions(tree.body, module.name):
        if isinstance(node, ast.ClassDef):
            named = [d for base in node.bases if (d := dotted(_unsubscripted(base)))]
            classes[symbol] = tuple(qualified(name, module.name, names) for name in named)
            continue
        yield Function(
            symbol=symbol,
            module=module.name,
            owner=owner,
            name=node.name,
            file=module.shown,
            line=node.lineno,
            digest=_digest(node) if digested else "",
            uses=frozenset(_uses(node, module.name, names)),
        )


def _digests(tree: ast.Module, prefix: str) -> Iterator[tuple[str, str]]:
    for symbol, _, node in _definitions(tree.body, prefix):
        if not isinstance(node, ast.ClassDef):
            yield symbol, _digest(node)


def qualified(name: str, module: str, names: Names) -> str:
    """A name used in a module as a dotted name from outside; resolved later, since modules are read one by one."""
    first, _, rest = name.partition(".")
    if first in names.imports:
        target = names.imports[first]
        return f"{target}.{rest}" if rest else target
    return f"{module}.{name}"


def _uses(node: ast.AST, module: str, names: Names) -> Iterator[str]:
    for part in walk(node, annotations=False):
        if isinstance(part, (ast.Attribute, ast.Name)) and (name := dotted(part)):
            first, _, rest = name.partition(".")
            if first in ("self", "cls"):
                if rest:
                    yield f"self.{rest.partition('.')[0]}"
            elif first in names.imports or first in names.defined or names.stars:
                yield qualified(name, module, names)


def _unsubscripted(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Subscript) else node


def _is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any((dotted(d) or "").rpartition(".")[2] == "overload" for d in node.decorator_list)


def _merged(one: Function, two: Function) -> Function:
    """A property's getter and setter, or the branches of a conditional definition, count as one function."""
    return replace(one, digest=_joined(one.digest, two.digest), uses=one.uses | two.uses)


def _joined(one: str | None, two: str) -> str:
    return hashlib.sha256((one + two).encode()).hexdigest() if one else two


def _digest(node: ast.AST) -> str:
    _strip(node)
    return hashlib.sha256(ast.dump(node, annotate_fields=False).encode()).hexdigest()


def _strip(function: ast.AST) -> None:
    """Take out of a syntax tree what does not change behaviour: docstrings and annotations."""
    for node in ast.walk(function):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
