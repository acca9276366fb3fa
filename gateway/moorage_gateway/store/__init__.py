"""The object store: one Protocol (`base`), a folder, S3, and memory. Layer: gateway."""

from __future__ import annotations

from moorage_gateway.store.base import Store
from moorage_gateway.store.errors import InvalidKey, StoreError, StoreUnavailable
from moorage_gateway.store.folder import FolderStore
from moorage_gateway.store.memory import MemoryStore
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
