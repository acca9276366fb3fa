"""What a routine's input may hold of the run before: `{{ lastRun.outcome }}` and the like. Layer: the floor; pure.

Only names out of one list, no expressions: what is put in is never read as a template again.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

NAMES = (
    "scheduledTime",
    "routine",
    "lastRun.outcome",
    "lastRun.scheduledTime",
    "lastRun.endedAt",
    "lastRun.responseId",
    "lastRun.output",
    "lastRun.error",
)
_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_DEEPEST = 32


def check(text: str) -> None:
    """Raises ValueError for a name that there is not."""
    for found in _PLACE.finditer(text):
        name = found.group(1).strip()
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            said = f"did you mean {near[0]}?" if near else f"there are: {', '.join(NAMES)}"
            raise ValueError(f"{{{{ {name[:60]} }}}} names nothing; {said}")


def check_all(value: Any, depth: int = 0) -> None:
    """The same, of every text in JSON data. Raises ValueError, also for data nested deeper than 32."""
    if depth > _DEEPEST:
        raise ValueError(f"is nested deeper than {_DEEPEST}")
    if isinstance(value, str):
        check(value)
    elif isinstance(value, Mapping):
        for each in value.values():
            check_all(each, depth + 1)
    elif isinstance(value, list):
        for each in value:
            check_all(each, depth + 1)


def filled(value: Any, known: Mapping[str, str]) -> Any:
    """JSON data with every place filled; a name that is not known yet is filled with nothing."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: known.get(found.group(1).strip(), ""), value)
    if isinstance(value, Mapping):
        return {key: filled(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, known) for each in value]
    return value
