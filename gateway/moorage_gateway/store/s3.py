"""The object store on any S3 server, through the minio client. Layer: gateway, border to the network.

The client is synchronous (so: bounded threads), repeats refused connections for seconds (so: our own pool without
retries and with timeouts), and reports a missing object in several ways (so: by status). No conditional headers: many
servers ignore them.
"""

from __future__ import annotations

import asyncio
import io
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, ProtocolError

from moorage_gateway.store import base
from moorage_gateway.store.errors import StoreUnavailable

PART_SIZE = 16 << 20
FILE_DEADLINE = 600.0  # seconds for a whole bundle or checkpoint; a single socket wait is bounded by `read_timeout`

REPEAT_AFTER = (0.1, 0.4)  # seconds; refused connections and timeouts are not repeated

T = TypeVar("T")


@dataclass(frozen=True)
class S3Settings:
    """Where the bucket is. `endpoint` is an http(s) URL without a path; `region` is given, so never looked up."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    prefix: str = ""  # a folder inside the bucket, without slashes at its ends
    region: str = "us-east-1"
    ca_file: str | None = None
    connect_timeout: float = 2.0
    read_timeout: float = 15.0

    def __repr__(self) -> str:
        return f"S3Settings(endpoint={self.endpoint!r}, bucket={self.bucket!r})"  # never the keys


class S3Store:
    """Objects in one bucket."""

    def __init__(self, settings: S3Settings, *, workers: int = 16, waiting: int = 1024, deadline: float = 30.0) -> None:
        url = urlsplit(settings.endpoint)
        if url.scheme not in ("http", "https") or not url.netloc or url.path.strip("/"):
            raise ValueError("the S3 endpoint must be a URL such as https://s3.example.com, without a path")
        self._bucket = settings.bucket
        self._root = f"{base.check_key(settings.prefix)}/" if settings.prefix else ""
        self._http = urllib3.PoolManager(
            maxsize=workers,
            block=True,
            retries=False,
            timeout=urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout),
            cert_reqs="CERT_REQUIRED",
            ca_certs=settings.ca_file or certifi.where(),
        )
        self._client = Minio(
            url.netloc,
            access_key=settings.access_key,
            secret_key=settings.secret_key,
            secure=url.scheme == "https",
            region=settings.region,
            http_client=self._http,
        )
        self._threads = base.Threads("s3-store", workers=workers, waiting=waiting, deadline=deadline)

    async def put(self, key: str, data: bytes) -> None:
        """See `base.Store.put`."""
        name = self._root + base.check_key(key)

        def write() -> None:
            self._client.put_object(
                self._bucket, name, io.BytesIO(data), len(data), part_size=PART_SIZE, num_parallel_uploads=1
            )

        await self._run(write)

    async def get(self, key: str) -> bytes | None:
        """See `base.Store.get`."""
        name = self._root + base.check_key(key)

        def read() -> bytes:
            response = self._client.get_object(self._bucket, name)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()

        return await self._run(lambda: self._or_none(read))

    async def delete(self, key: str) -> None:
        """See `base.Store.delete`."""
        name = self._root + base.check_key(key)
        await self._run(lambda: self._or_none(lambda: self._client.remove_object(self._bucket, name)))

    async def delete_prefix(self, prefix: str) -> None:
        """See `base.Store.delete_prefix`."""
        base.check_folder(prefix)

        def remove() -> None:
            doomed = [DeleteObject(self._root + key) for key in self._keys(prefix, "", None)]
            for error in self._client.remove_objects(self._bucket, doomed):
                raise StoreUnavailable(f"the store did not delete every object: {error.code}")

        await self._run(remove, deadline=FILE_DEADLINE)

    async def list(self, prefix: str, after: str = "", limit: int = 1000) -> base.Keys:
        """See `base.Store.list`."""
        base.check_prefix(prefix)
        bound = min(limit, base.MAX_LIST)
        return await self._run(lambda: sorted(self._keys(prefix, after, bound)))

    async def put_file(self, key: str, path: Path) -> None:
        """See `base.Store.put_file`."""
        name = self._root + base.check_key(key)

        def write() -> None:
            size = path.stat().st_size
            with path.open("rb") as file:
                self._client.put_object(self._bucket, name, file, size, part_size=PART_SIZE, num_parallel_uploads=1)

        await self._run(write, deadline=FILE_DEADLINE)

    async def get_file(self, key: str, path: Path) -> bool:
        """See `base.Store.get_file`."""
        name = self._root + base.check_key(key)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")

        def read() -> bool:
            response = self._client.get_object(self._bucket, name)
            try:
                with temporary.open("wb") as out:
                    shutil.copyfileobj(response, out, 1 << 20)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
                response.close()
                response.release_conn()
            return True

        return await self._run(lambda: self._or_none(read), deadline=FILE_DEADLINE) is True

    async def size(self, key: str) -> int | None:
        """See `base.Store.size`."""
        name = self._root + base.check_key(key)

        def look() -> int:
            return int(self._client.stat_object(self._bucket, name).size or 0)

        return await self._run(lambda: self._or_none(look))

    async def ping(self) -> None:
        """Prove that the bucket is there and our key is accepted."""

        def look() -> None:
            if not self._client.bucket_exists(self._bucket):
                raise StoreUnavailable(f"the bucket {self._bucket!r} does not exist: create it, or correct the setting")

        await self._run(look)

    async def ensure_bucket(self) -> None:
        """Make the bucket when it is missing."""

        def make() -> None:
            if not self._client.bucket_exists(self._bucket):
                self._client.make_bucket(self._bucket)

        await self._run(make)

    async def aclose(self) -> None:
        """See `base.Store.aclose`."""
        await self._threads.aclose()
        self._http.clear()

    def _keys(self, prefix: str, after: str, limit: int | None) -> base.Keys:
        # Objects are filtered here as well: some servers take `start-after` or an unfinished prefix loosely.
        found = self._client.list_objects(
            self._bucket,
            prefix=self._root + prefix,
            recursive=True,
            start_after=self._root + after if after else None,
        )
        names = (entry.object_name for entry in found if entry.object_name and not entry.is_dir)
        inside = (name[len(self._root) :] for name in names if name.startswith(self._root))
        return base.Keys(islice((key for key in inside if key > after and key.startswith(prefix)), limit))

    def _or_none(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except (S3Error, InvalidResponseError, ServerError) as error:
            if _status(error) == 404 and getattr(error, "code", "") != "NoSuchBucket":
                return None
            raise

    async def _run(self, call: Callable[[], T], *, deadline: float | None = None) -> T:
        """The call in a thread; repeated after a passing failure, which is safe since every call here may be repeated."""

        def guarded() -> T:
            try:
                return call()
            except (MinioException, HTTPError, OSError, ParseError, UnicodeDecodeError) as error:
                kind = _Passing if _is_passing(error) else StoreUnavailable
                raise kind(f"the object store failed: {_describe(error)}") from error

        for pause in REPEAT_AFTER:
            try:
                return await self._threads.run(guarded, deadline=deadline)
            except _Passing:
                await asyncio.sleep(pause)
        return await self._threads.run(guarded, deadline=deadline)


class _Passing(StoreUnavailable):
    """A failure that the next try may not meet: a 5xx, or a kept connection that the server had closed."""


def _is_passing(error: Exception) -> bool:
    if isinstance(error, MinioException):
        return _status(error) >= 500
    return isinstance(error, ProtocolError)


def _status(error: MinioException) -> int:
    if isinstance(error, S3Error):
        return int(error.response.status)
    if isinstance(error, ServerError):
        return int(error.status_code)
    return int(getattr(error, "_code", 0) or getattr(error, "code", 0) or 0)


def _describe(error: Exception) -> str:
    """A short reason without URLs, since a signed one would carry a credential."""
    if isinstance(error, S3Error):
        return f"{error.code} (HTTP {error.response.status})"
    return type(error).__name__
