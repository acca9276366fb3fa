"""A routine's manifest as the scheduler knows it. Layer: gateway, values only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from moorage_api.kinds.routine import Routine, RoutineSpec


@dataclass(frozen=True)
class Known:
    """A routine's spec, read once."""

    name: str
    spec: RoutineSpec
    digest: str
    timing: str

    @classmethod
    def of(cls, name: str, wire: Mapping[str, Any]) -> Known:
        """From the catalog's spec. Raises ManifestError's ValueError for what no manifest could say."""
        made = Routine.model_validate({"metadata": {"name": name}, "spec": dict(wire)}, by_alias=True, by_name=False)
        spec = made.spec
        timing = f"{spec.schedule}|{spec.time_zone}|{spec.every}|{spec.at}"
        # Sorted, since the catalog keeps a person's own JSON in another order than it was written in.
        whole = orjson.dumps(spec.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS).decode()
        return cls(name, spec, digest(whole), digest(timing))


def digest(text: str) -> str:
    """Short, and the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
