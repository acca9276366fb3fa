"""What a caller sees of a session. Layer: gateway, pure."""

from __future__ import annotations

from typing import Any

from moorage_api.ledger.records import Descriptor, SessionRecord
from moorage_gateway.session_records import StoredSession

# What callers are told, by the ledger's state. A claimed session is `active` while a turn runs, else `idle`.
STATUSES = {
    "new": "new",
    "claimed": "idle",
    "draining": "idle",
    "hibernated": "hibernated",
    "waking": "waking",
    "archived": "archived",
    "deleted": "deleting",
}
ACTIVE = "active"
KNOWN_STATUSES = frozenset({*STATUSES.values(), ACTIVE})


def status(record: SessionRecord) -> str:
    """One of KNOWN_STATUSES."""
    if record.running and record.state in ("new", "claimed", "waking"):
        return ACTIVE
    return STATUSES.get(record.state, record.state)


def view(record: SessionRecord, descriptor: Descriptor | None, *, operator: bool) -> dict[str, Any]:
    """The session object; sandbox details only for callers with the operator scope."""
    seen: dict[str, Any] = {
        "id": record.session,
        "object": "session",
        "agent_session_id": record.session,
        "agent": record.agent,
        "status": status(record),
        "revision": record.revision,
        "created_at": record.created // 1000,
        "last_accessed_at": max(record.active, record.created) // 1000,
        "reason": record.reason or None,
        "response_id": record.running or None,
        "sandbox": None,
    }
    if operator and record.sandbox:
        seen["sandbox"] = {
            "id": record.sandbox,
            "epoch": record.epoch,
            "pids": list(descriptor.pids) if descriptor is not None else [],
        }
    return seen


def stored_view(record: StoredSession) -> dict[str, Any]:
    """The session object when Redis has lost it: its workspace is kept, nothing runs."""
    return {
        "id": record.session,
        "object": "session",
        "agent_session_id": record.session,
        "agent": record.agent,
        "status": "hibernated",
        "revision": record.revision,
        "created_at": record.created // 1000,
        "last_accessed_at": record.created // 1000,
        "reason": None,
        "response_id": None,
        "sandbox": None,
    }
