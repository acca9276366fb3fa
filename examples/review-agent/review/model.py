"""What a review found, as plain frozen values: what the renderers print and what `review.json` keeps for follow-ups."""

from dataclasses import asdict, dataclass
from typing import Any

VERSION = 1


@dataclass(frozen=True)
class Side:
    """One of the two versions: its label, and what was read for it."""

    label: str
    read: str


@dataclass(frozen=True)
class Subject:
    """`title` is what was compared; `notice` goes above everything when it is not what was asked for."""

    title: str
    old: Side
    new: Side
    notice: str | None = None


@dataclass(frozen=True)
class FunctionChange:
    """A function that was added or whose code changed, and how the tests reach it.

    `reach`: "named" (a test names it), "through" (a named function uses it), "unseen".
    """

    symbol: str
    file: str
    line: int
    change: str
    reach: str


@dataclass(frozen=True)
class Coverage:
    """`test_files` 0 means that there was nothing to look at, so every `reach` is "unseen"."""

    test_files: int
    changes: tuple[FunctionChange, ...]
    removed: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DependencyChange:
    """`old` or `new` is None for an added or a dropped one; `extra` names the optional group it belongs to."""

    name: str
    old: str | None
    new: str | None
    extra: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Dependencies:
    """`source` says where the two lists were read."""

    source: str
    changes: tuple[DependencyChange, ...]
    unchanged: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Breakage:
    """`symbol` as users write it, `kind` as in `api.KINDS`, `text` the rest of the sentence."""

    kind: str
    symbol: str
    text: str


@dataclass(frozen=True)
class Api:
    packages: tuple[str, ...]
    breakages: tuple[Breakage, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    subject: Subject
    coverage: Coverage
    dependencies: Dependencies
    api: Api


def to_json(report: Report) -> dict[str, Any]:
    """Plain JSON data; `from_json` is its inverse."""
    return {"version": VERSION, **asdict(report)}


def from_json(data: Any) -> Report:
    """Raises `ValueError` for anything that `to_json` did not write."""
    try:
        if data["version"] != VERSION:
            raise ValueError("another version of the report")
        subject, coverage, dependencies, api = (data[k] for k in ("subject", "coverage", "dependencies", "api"))
        return Report(
            Subject(**subject | {"old": Side(**subject["old"]), "new": Side(**subject["new"])}),
            Coverage(**_tuples(coverage, changes=FunctionChange)),
            Dependencies(**_tuples(dependencies, changes=DependencyChange)),
            Api(**_tuples(api, breakages=Breakage)),
        )
    except (KeyError, TypeError, AttributeError) as fault:
        raise ValueError("not a report") from fault


def _tuples(data: dict[str, Any], **rows: type) -> dict[str, Any]:
    """Lists back to tuples, and the rows of the named ones back to their class."""
    return {
        key: tuple(rows[key](**item) if key in rows else item for item in value) if isinstance(value, list) else value
        for key, value in data.items()
    }
