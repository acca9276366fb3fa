"""What the operators under test asked of the API server, by the server's own audit log. Layer: I/O rim."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True)
class Request:
    """One request that was answered. `kind`: the plural, with the part of the object if it was one."""

    verb: str
    kind: str
    namespace: str
    name: str

    @property
    def is_write(self) -> bool:
        """Whether it may have changed something other than the lease."""
        return self.verb in WRITES and self.kind != "leases"


class Audit:
    """The log from where it was when this was made, of some namespaces."""

    def __init__(self, log: Path, namespaces: Collection[str]) -> None:
        self._log = log
        self._namespaces = frozenset(namespaces)
        self._start = log.stat().st_size if log.exists() else 0

    def requests(self) -> list[Request]:
        """Everything since, in order."""
        with self._log.open("rb") as log:
            log.seek(self._start)
            lines = log.read().split(b"\n")[:-1]  # the last one may still be being written
        found = []
        for line in lines:
            event = json.loads(line)
            of = event.get("objectRef") or {}
            if of.get("namespace") in self._namespaces:
                kind = "/".join(part for part in (of["resource"], of.get("subresource")) if part)
                found.append(Request(event["verb"], kind, of["namespace"], of.get("name", "")))
        return found

    def writes(self) -> list[Request]:
        """Those that are writes."""
        return [one for one in self.requests() if one.is_write]
