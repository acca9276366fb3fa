"""Reload on save: tells when something in the agents' folder changed. Layer: local; I/O (watchfiles)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import watchfiles

from moorage_api.bundles import ALWAYS_IGNORED

_QUIET_MS = 200  # a save is often several writes: wait for a pause
_LONGEST_MS = 2000


class _Filter(watchfiles.DefaultFilter):
    ignore_dirs = (*watchfiles.DefaultFilter.ignore_dirs, *(name for name in ALWAYS_IGNORED if "*" not in name))


async def changes(folder: Path, changed: Callable[[], Awaitable[None]]) -> None:
    """Awaits `changed` after each burst of changes below `folder`, until cancelled."""
    filter_ = _Filter()
    async for _ in watchfiles.awatch(folder, watch_filter=filter_, debounce=_LONGEST_MS, step=_QUIET_MS):
        await changed()
