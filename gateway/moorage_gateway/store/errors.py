"""What the object store can fail with. Layer: gateway, border to folder or S3.

StoreError
  ├─ StoreUnavailable   try again later: the store is down, slow, or answered an error of its own
  └─ InvalidKey         a bug of the caller: the key breaks the syntax of `keys_syntax`
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of this border."""


class StoreUnavailable(StoreError):
    """The store did not do it, or nobody knows whether it did. Repeating the call is safe: objects are immutable."""


class InvalidKey(StoreError, ValueError):
    """A key or prefix outside the syntax. Never the fault of a remote caller: ids are checked before keys are made."""
