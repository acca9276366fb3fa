"""The checkpoints of a LangGraph thread as JSON, and back. Layer: SDK, under the LangGraph adapter.

What is written is what the next turn needs: the last checkpoint of each namespace with its pending writes and the values it names.
Values are in the framework's own encoding (`serde`), base64.
"""

from __future__ import annotations

import base64
from typing import Any

Typed = tuple[str, bytes]


def export(saver: Any, thread: str) -> dict[str, Any]:
    """Rows of one thread of an `InMemorySaver`."""
    checkpoints, values, writes = [], [], []
    namespaces = saver.storage.get(thread, {})
    waiting = bool(_pending(saver, thread, "", max(namespaces.get("", {}), default="")))
    for namespace, found in namespaces.items():
        if not found or (":" in namespace and not waiting):
            continue  # a subgraph of one run: read again only by a run that is resumed inside it
        last = max(found)
        versions = saver.serde.loads_typed(found[last][0])["channel_versions"]
        # A channel that keeps differences has no value of its own at each version: then all of the chain is needed.
        whole = all((thread, namespace, channel, version) in saver.blobs for channel, version in versions.items())
        for name, (checkpoint, metadata, parent) in found.items():
            if not whole or name == last:
                checkpoints.append([namespace, name, _packed(checkpoint), _packed(metadata), None if whole else parent])
                writes += [
                    [namespace, name, task, index, row_task, channel, _packed(value), path]
                    for (task, index), (row_task, channel, value, path) in _pending(
                        saver, thread, namespace, name
                    ).items()
                ]
        values += [
            [namespace, channel, version, _packed(value)]
            for (of, within, channel, version), value in saver.blobs.items()
            if (of, within) == (thread, namespace) and (not whole or versions.get(channel) == version)
        ]
    return {"checkpoints": checkpoints, "values": values, "writes": writes}


def restore(saver: Any, thread: str, kept: object) -> bool:
    """Puts the rows of `export` into an empty saver. False, and the saver stays empty, when they are not such rows."""
    try:
        checkpoints = [(ns, name, _unpacked(c), _unpacked(m), parent) for ns, name, c, m, parent in kept["checkpoints"]]  # type: ignore[index]
        values = [(ns, channel, version, _unpacked(v)) for ns, channel, version, v in kept["values"]]  # type: ignore[index]
        writes = [(*row[:6], _unpacked(row[6]), row[7]) for row in kept["writes"]]  # type: ignore[index]
    except (TypeError, ValueError, KeyError, IndexError):
        return False
    for namespace, name, checkpoint, metadata, parent in checkpoints:
        saver.storage[thread][namespace][name] = (checkpoint, metadata, parent)
    for namespace, channel, version, value in values:
        saver.blobs[(thread, namespace, channel, version)] = value
    for namespace, name, task, index, row_task, channel, value, path in writes:
        saver.writes[(thread, namespace, name)][(task, index)] = (row_task, channel, value, path)
    return bool(checkpoints)


def _pending(saver: Any, thread: str, namespace: str, name: str) -> dict[tuple[str, int], tuple[str, str, Typed, str]]:
    found: dict[tuple[str, int], tuple[str, str, Typed, str]] = saver.writes.get((thread, namespace, name), {})
    return found


def _packed(value: Typed) -> list[str]:
    kind, data = value
    return [kind, base64.b64encode(data).decode("ascii")]


def _unpacked(value: Any) -> Typed:
    kind, data = value
    return str(kind), base64.b64decode(data)
