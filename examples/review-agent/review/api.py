"""Breaking changes of the public API: griffe loads both trees without importing them, this module says it in users' words.

griffe reports a change under the path where the object is defined (`httpx._api.get`); people write `httpx.get`. The public names of
both trees are walked once to translate. Added to griffe's own rules: names that a package's `__init__` imports from its private
modules count as public when it has no `__all__`, and a function that became (or ceased to be) `async` is a breaking change.
"""

import logging
import re
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

from . import model
from .budget import MIB, Budget
from .layout import Layout

KINDS = {
    "removed": "Removed",
    "parameter removed": "Parameters removed",
    "parameter required": "Parameters now required",
    "parameter moved": "Parameters moved",
    "parameter kind": "Parameters that changed kind",
    "parameter default": "Defaults changed",
    "kind": "Changed kind",
    "async": "Became or ceased to be async",
    "base removed": "Base classes removed",
    "returns": "Return annotations dropped",
}
LONGEST_VALUE = 80
MOST_PATHS = 4


def compare(old: Layout, new: Layout, budget: Budget) -> model.Api:
    """Every breaking change, sorted. Trees too large for the sandbox are not loaded, which a note says."""
    packages = tuple(p for p in old.packages if _is_public(p)) or old.packages
    if not packages:
        return model.Api((), (), ("No import package was found in the older version, so there is no API to compare.",))
    notes: list[str] = []
    largest = max(old.source_bytes, new.source_bytes)
    if largest > budget.limits.api_bytes:
        note = (
            f"The API was not compared: {largest / MIB:.0f} MiB of source is more than this sandbox can load at once."
        )
        return model.Api(packages, (), (note,))
    found: set[model.Breakage] = set()
    for package in packages:
        budget.check()
        if package not in new.packages:
            found.add(model.Breakage("removed", package, "the whole package was removed"))
            continue
        try:
            found.update(_compare_package(package, old.search, new.search))
        except (griffe.GriffeError, RecursionError, KeyError, ValueError, OSError, SyntaxError) as fault:
            notes.append(f"`{package}` could not be compared completely ({type(fault).__name__}).")
    order = list(KINDS)
    ranked = sorted(found, key=lambda b: (order.index(b.kind), b.symbol.casefold(), b.symbol, b.text))
    return model.Api(packages, tuple(ranked), tuple(notes))


def _compare_package(package: str, old_search: Path, new_search: Path) -> Iterator[model.Breakage]:
    before, after = _load(package, old_search), _load(package, new_search)
    public = _public_names(after) | _public_names(before)
    for breakage in griffe.find_breaking_changes(before, after):
        yield _in_words(breakage, public)
    yield from _async_changes(before, after)


def _load(package: str, search: Path) -> griffe.Module:
    """Static only: inspection (which would import) is off, nothing outside the tree is looked at."""
    logging.getLogger("griffe").setLevel(logging.CRITICAL)
    loader = griffe.GriffeLoader(search_paths=[search], allow_inspection=False, store_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = loader.load(package, try_relative_path=False)
        loader.resolve_aliases(implicit=False, external=False)
    if not isinstance(module, griffe.Module):
        raise griffe.LoadingError(f"{package} is not a module")
    _publish_imports(module)
    return module


def _publish_imports(package: griffe.Module) -> None:
    """Without `__all__`, what `__init__` imports from its own private modules is what users import."""
    if package.exports is not None:
        return
    for name, member in package.members.items():
        if name.startswith("_") or not isinstance(member, griffe.Alias):
            continue
        inner = member.target_path.removeprefix(package.path + ".").split(".")
        if member.target_path.startswith(package.path + ".") and inner[0].startswith("_"):
            member.public = True


def _members(parent: Any) -> Iterator[tuple[str, Any]]:
    """Public members, aliases resolved; what leads out of the tree is left out."""
    for name, member in parent.all_members.items():
        try:
            if member.is_public:
                yield name, member.final_target if member.is_alias else member
        except (griffe.AliasResolutionError, griffe.CyclicAliasError):
            continue


def _walk(root: griffe.Module) -> Iterator[tuple[str, Any]]:
    """(public path, object) of the public tree, short paths first.

    An object that is public in several places comes under each, up to `MOST_PATHS`: modules may name each other in circles.
    """
    expanded: Counter[str] = Counter()
    waiting: deque[tuple[str, Any]] = deque([(root.path, root)])
    while waiting:
        path, item = waiting.popleft()
        yield path, item
        if not (item.is_module or item.is_class) or not _inside(item, root) or expanded[item.path] >= MOST_PATHS:
            continue
        expanded[item.path] += 1
        waiting.extend((f"{path}.{name}", member) for name, member in _members(item))


def _inside(item: Any, root: griffe.Module) -> bool:
    return bool(item.path == root.path or item.path.startswith(root.path + "."))


def _public_names(root: griffe.Module) -> dict[str, str]:
    """Path of definition → the shortest public path."""
    names: dict[str, str] = {}
    for path, item in _walk(root):
        known = names.get(item.path)
        if known is None or (path.count("."), len(path), path) < (known.count("."), len(known), known):
            names[item.path] = path
    return names


def _in_words(breakage: griffe.Breakage, public: dict[str, str]) -> model.Breakage:
    parameter = breakage.old_value if breakage.old_value is not None else breakage.new_value
    name = f"parameter `{getattr(parameter, 'name', '')}`"
    kind, text = _sentence(breakage, name)
    return model.Breakage(kind, _symbol(breakage.obj.path, public), text)


def _sentence(breakage: griffe.Breakage, name: str) -> tuple[str, str]:
    kinds, old, new = griffe.BreakageKind, breakage.old_value, breakage.new_value
    match breakage.kind:
        case kinds.OBJECT_REMOVED:
            return "removed", "was removed"
        case kinds.OBJECT_CHANGED_KIND:
            return "kind", f"was {_article(old.value)}, is {_article(new.value)}"
        case kinds.CLASS_REMOVED_BASE:
            return "base removed", f"bases were `{_short(_listed(old))}`, are `{_short(_listed(new))}`"
        case kinds.RETURN_CHANGED_TYPE:
            return "returns", f"returned `{_short(old)}`, is not annotated any more"
        case _:
            return _of_parameter(breakage, name)


def _of_parameter(breakage: griffe.Breakage, name: str) -> tuple[str, str]:
    kinds, old, new = griffe.BreakageKind, breakage.old_value, breakage.new_value
    match breakage.kind:
        case kinds.PARAMETER_REMOVED:
            return "parameter removed", f"{name} was removed"
        case kinds.PARAMETER_ADDED_REQUIRED:
            return "parameter required", f"{name} was added and is required"
        case kinds.PARAMETER_CHANGED_REQUIRED:
            return "parameter required", f"{name} is now required"
        case kinds.PARAMETER_MOVED:
            return "parameter moved", f"{name} moved{_positions(breakage)}"
        case kinds.PARAMETER_CHANGED_KIND:
            return "parameter kind", f"{name} was {old.kind.value}, is {new.kind.value}"
        case kinds.PARAMETER_CHANGED_DEFAULT:
            return "parameter default", f"{name}: default was `{_short(old.default)}`, is `{_short(new.default)}`"
        case _:
            return "kind", breakage.kind.value


def _symbol(path: str, public: dict[str, str]) -> str:
    """The public spelling of a path of definition: its longest known prefix translated."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        known = public.get(".".join(parts[:cut]))
        if known is not None:
            return ".".join([known, *parts[cut:]])
    return path


def _async_changes(before: griffe.Module, after: griffe.Module) -> Iterator[model.Breakage]:
    now = dict(_walk(after))
    for path, item in _walk(before):
        other = now.get(path)
        if other is None or not (item.is_function and other.is_function):
            continue
        was, is_now = "async" in item.labels, "async" in other.labels
        if was != is_now:
            text = "is async now: its callers must await it" if is_now else "is not async any more: awaiting it fails"
            yield model.Breakage("async", path, text)


def _positions(breakage: griffe.Breakage) -> str:
    """From 1 on and without `self`, as one counts arguments in a call."""
    function = breakage.obj
    first = next(iter(function.parameters), None) if isinstance(function, griffe.Function) else None
    bound = (
        first is not None and first.name in ("self", "cls") and function.parent is not None and function.parent.is_class
    )
    numbers = re.search(r"from (\d+) to (\d+)", breakage.details)
    if numbers is None:
        return ""
    was, now = (int(n) + (0 if bound else 1) for n in numbers.groups())
    return f" from position {was} to {now}"


def _listed(bases: list[Any]) -> str:
    return ", ".join(str(base) for base in bases) or "object"


def _short(value: Any) -> str:
    text = " ".join(str(value).split()).replace("`", "'")
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _is_public(package: str) -> bool:
    return not any(part.startswith("_") for part in package.split("."))


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiou" else f"a {noun}"
