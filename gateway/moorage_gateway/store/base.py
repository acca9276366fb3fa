"""The object store's seam: one Protocol, the syntax of its keys, and the bounded threads its implementations run on.

Layer: gateway. Objects are immutable by convention: a version is a key of its own, so that a repeated `put` writes the
same bytes and no conditional write is ever needed (many S3 servers ignore them). No key may be another key plus `/…`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

from moorage_gateway.store.errors import InvalidKey, StoreUnavailable

MAX_KEY = 700  # bytes; S3 allows 1024, and a bucket prefix has to fit in front
MAX_SEGMENT = 200  # bytes; file systems allow 255, and temporary names are longer than the final one
MAX_LIST = 10_000

# A leading dot is kept for the folder store's own files, and with it "." and ".." cannot be written at all.
_SEGMENT = re.compile(r"[A-Za-z0-9_=@+:-][A-Za-z0-9_.=@+:-]*\Z")

T = TypeVar("T")

Keys: TypeAlias = list[str]  # inside the classes `list` is their method


class Store(Protocol):
    """Every method raises `StoreUnavailable` when the store is down or slow, `InvalidKey` on a bad key."""

    async def put(self, key: str, data: bytes) -> None:
        """Write the whole object; durable and visible to every reader when this returns, or not at all."""

    async def get(self, key: str) -> bytes | None:
        """The whole object, or None when there is none."""

    async def delete(self, key: str) -> None:
        """Remove the object; none there is fine."""

    async def delete_prefix(self, prefix: str) -> None:
        """Remove every object below `prefix`, which ends with `/`."""

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> Keys:
        """Up to `limit` keys that start with `prefix` and are greater than `after`, sorted by code point."""

    async def put_file(self, key: str, path: Path) -> None:
        """As `put`, from a file and without holding it in memory."""

    async def get_file(self, key: str, path: Path) -> bool:
        """Write the object to `path`, which appears whole or not at all; False when there is none."""

    async def size(self, key: str) -> int | None:
        """Bytes of the object, or None when there is none."""

    async def ping(self) -> None:
        """Prove that the store answers."""

    async def aclose(self) -> None:
        """Wait for what runs, then free everything."""


def check_key(key: str) -> str:
    """The key itself, or InvalidKey: plain segments joined by `/`, no traversal, bounded."""
    if not key or len(key) > MAX_KEY:
        raise InvalidKey(f"an object key has 1 to {MAX_KEY} characters")
    for segment in key.split("/"):
        if len(segment) > MAX_SEGMENT or not _SEGMENT.match(segment):
            raise InvalidKey(f"not a valid segment of an object key: {segment[:40]!r}")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself, or InvalidKey. Empty means everything; the last segment may be unfinished."""
    head, _, tail = prefix.rpartition("/")
    if head:
        check_key(head)
    elif prefix.startswith("/"):
        raise InvalidKey("a prefix does not start with '/'")
    if tail:
        check_key(tail)
    return prefix


def check_folder(prefix: str) -> str:
    """A prefix that names a whole folder: it ends with `/`, so that `t/a` can never take `t/ab` along."""
    if len(prefix) < 2 or not prefix.endswith("/"):
        raise InvalidKey("only a prefix that ends with '/' can be deleted")
    return check_prefix(prefix)


class Threads:
    """Runs blocking calls on a few threads, with a bound on what waits and a deadline on each call.

    A call past its deadline is given up by its caller but runs on in its thread (threads cannot be stopped), which is
    why implementations set their own timeouts below this one.
    """

    def __init__(self, name: str, *, workers: int, waiting: int, deadline: float) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix=name)
        self._room = workers + waiting
        self._busy = 0
        self._deadline = deadline
        self._closed = False

    async def run(self, call: Callable[[], T], *, deadline: float | None = None) -> T:
        """The result of `call`; StoreUnavailable when there is no room, at the deadline, or after `aclose`."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._busy >= self._room:
            raise StoreUnavailable("too many store calls are waiting")
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, call)
        future.add_done_callback(self._freed)
        try:
            async with asyncio.timeout(deadline or self._deadline):
                return await asyncio.shield(future)
        except TimeoutError:
            raise StoreUnavailable(f"no answer from the store in {deadline or self._deadline:g} s") from None

    def _freed(self, future: asyncio.Future[T]) -> None:
        self._busy -= 1
        if not future.cancelled():
            future.exception()  # read, so that a call given up by its caller does not warn at collection

    async def aclose(self) -> None:
        """Refuse new calls and wait for the running ones."""
        self._closed = True
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)
