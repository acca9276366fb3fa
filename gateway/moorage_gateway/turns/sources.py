"""Which item of the attempt an agent's event is about, and what its references mean in our ids.

Layer: pure. Agents differ in how well they number: an id that is known goes before an index.
"""

from __future__ import annotations

from typing import Any

from moorage_gateway.turns.following import Follower


class Sources:
    """The items of the attempt by the agent's own ids and indexes; both begin anew with each Response the agent makes."""

    def __init__(self) -> None:
        self._by_index: dict[int, Follower] = {}
        self._by_id: dict[str, Follower] = {}

    def clear(self) -> None:
        """Another Response begins: its indexes and ids are its own."""
        self._by_index.clear()
        self._by_id.clear()

    def add(self, follower: Follower, index: int | None) -> None:
        """Remembers a new item; an index or id used before now means this one."""
        if index is not None:
            self._by_index[index] = follower
        if follower.source_id is not None:
            self._by_id[follower.source_id] = follower

    def by_id(self, source_id: str | None) -> Follower | None:
        """The item the agent gave this id, or None."""
        return self._by_id.get(source_id) if source_id is not None else None

    def find(self, index: int | None, source_id: str | None) -> Follower | None:
        """The item meant by an index and an id, or None.

        | id      | index   | means       |
        |---------|---------|-------------|
        | known   | any     | the id's    |
        | unknown | known   | the index's |
        | unknown | unknown | None        |
        """
        named = self.by_id(source_id)
        at = self._by_index.get(index) if index is not None else None
        return at if named is None else named


def index_of(event: dict[str, Any], key: str) -> int | None:
    """A non-negative index in an event, or None when it is missing or no index."""
    value = event.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def id_of(raw: Any, key: str = "id") -> str | None:
    """A non-empty string id, or None."""
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, str) and value else None


def referring(value: Any, ids: dict[str, str]) -> Any:
    """`value` with the agent's ids of items and responses replaced by ours, in `id`, `*_id` and `*_ids` fields.

    Call ids are another vocabulary (some agents give a call the id of its item) and stay. `value` is bounded in depth.
    """
    if isinstance(value, dict):
        return {
            # Most of what there is are strings in fields of other names: they need no step down.
            name: one if type(one) is str and not name.endswith("id") else _referred(name, one, ids)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [referring(one, ids) for one in value]
    return value


def _referred(name: str, value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        return ids.get(value, value) if (name == "id" or name.endswith("_id")) and name != "call_id" else value
    if isinstance(value, list) and name.endswith("_ids"):
        return [ids.get(one, one) if isinstance(one, str) else referring(one, ids) for one in value]
    return referring(value, ids)
