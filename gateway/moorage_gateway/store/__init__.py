"""The object store: one Protocol (`base`), a folder, S3, and memory. Layer: gateway.

The S3 store's names are loaded when first used: its client takes a tenth of a start that a folder store has no use for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moorage_gateway.store.base import Store
from moorage_gateway.store.errors import InvalidKey, StoreError, StoreUnavailable
from moorage_gateway.store.folder import FolderStore
from moorage_gateway.store.memory import MemoryStore

if TYPE_CHECKING:
    from moorage_gateway.store.s3 import S3Settings, S3Store

__all__ = [
    "FolderStore",
    "InvalidKey",
    "MemoryStore",
    "S3Settings",
    "S3Store",
    "Store",
    "StoreError",
    "StoreUnavailable",
]


def __getattr__(name: str) -> Any:
    if name not in ("S3Settings", "S3Store"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from moorage_gateway.store import s3

    return getattr(s3, name)
