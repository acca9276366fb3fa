"""The object store in memory: the shipped second implementation for tests and `--ephemeral` trials. Layer: gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

from moorage_gateway.store import base


class MemoryStore:
    """Same contract as the others, nothing survives the process."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        """See `base.Store.put`."""
        self._objects[base.check_key(key)] = bytes(data)

    async def get(self, key: str) -> bytes | None:
        """See `base.Store.get`."""
        return self._objects.get(base.check_key(key))

    async def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        self._objects.pop(base.check_key(key), None)

    async def delete_prefix(self, prefix: str) -> None:
        """See `base.Store.delete_prefix`."""
        base.check_folder(prefix)
        for key in [key for key in self._objects if key.startswith(prefix)]:
            del self._objects[key]

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> base.Keys:
        """See `base.Store.list`."""
        base.check_prefix(prefix)
        found = sorted(key for key in self._objects if key.startswith(prefix) and key > after)
        return found[: min(limit, base.MAX_LIST)]

    async def put_file(self, key: str, path: Path) -> None:
        """See `base.Store.put_file`."""
        base.check_key(key)
        self._objects[key] = await asyncio.to_thread(path.read_bytes)

    async def get_file(self, key: str, path: Path) -> bool:
        """See `base.Store.get_file`."""
        data = self._objects.get(base.check_key(key))
        if data is None:
            return False
        await asyncio.to_thread(path.write_bytes, data)
        return True

    async def size(self, key: str) -> int | None:
        """See `base.Store.size`."""
        data = self._objects.get(base.check_key(key))
        return None if data is None else len(data)

    async def ping(self) -> None:
        """Always there."""

    async def aclose(self) -> None:
        """Nothing to free."""
