"""Do the flags in the program agree with the manifest? Layer: agent server, pure. The manifest is the truth (hostedagent.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROTOCOLS = ("responses", "invocations")


@dataclass(frozen=True)
class Flags:
    """What the program said; None where it said nothing, and the manifest decides alone. `serves`: what it is able to."""

    protocols: tuple[str, ...] | None
    serves: tuple[str, ...]
    session_isolation: bool | None = None
    durable_state: bool | None = None
    file_system: bool | None = None


@dataclass(frozen=True)
class Difference:
    """A manifest field with which the program disagrees, and what to do about it."""

    field: str
    message: str


def difference(flags: Flags, spec: Mapping[str, Any]) -> Difference | None:
    """The first difference between program and manifest, or None. `spec` holds the fields that the manifest states."""
    stated = spec.get("protocols")
    if stated is not None and set(stated) != set(PROTOCOLS):  # both is the default: whatever the program serves
        found = _protocols(flags, tuple(stated))
        if found is not None:
            return found
    if flags.session_isolation is False:
        return Difference(
            "session.isolation", "session_isolation=False: a session always has a sandbox of its own; remove the flag."
        )
    durable = _nested(spec, "turn", "durableState")
    if durable is not None and flags.durable_state is not None and durable != flags.durable_state:
        return _flag("turn.durableState", "durable_state", flags.durable_state, durable)
    files = _nested(spec, "workspace", "fileSystem")
    if files is not None and flags.file_system is not None and files != flags.file_system:
        return _flag("workspace.fileSystem", "file_system", flags.file_system, files)
    return None


def _protocols(flags: Flags, stated: tuple[str, ...]) -> Difference | None:
    if flags.protocols is not None and set(flags.protocols) != set(stated):
        given = ", ".join(flags.protocols)
        return Difference("protocols", f"The program says {given}, the manifest {', '.join(stated)}; make them equal.")
    missing = [name for name in stated if name not in flags.serves]
    if missing:
        return Difference("protocols", f"The manifest lists {missing[0]}, which the program does not serve.")
    return None


def _nested(spec: Mapping[str, Any], group: str, name: str) -> bool | None:
    inner = spec.get(group)
    value = inner.get(name) if isinstance(inner, Mapping) else None
    return value if isinstance(value, bool) else None


def _flag(field: str, argument: str, said: bool, stated: bool) -> Difference:
    return Difference(
        field, f"The program says {argument}={said}, the manifest {str(stated).lower()}; make them equal."
    )
