"""A real S3 server for tests: `rclone serve s3` over memory, on a free port of loopback or of a given address, ended with its fixture."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from minio import Minio

from moorage_gateway.store import S3Settings

START_DEADLINE = 20.0


class S3Server:
    """One running server; `settings` has a bucket name that does not exist yet. `host`: an IPv4 address of this machine."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        binary = shutil.which("rclone", path=os.path.dirname(sys.executable)) or shutil.which("rclone")
        assert binary, "rclone is missing: install the dev dependencies"
        access, secret = secrets.token_hex(8), secrets.token_hex(16)
        self._process = subprocess.Popen(
            [binary, "serve", "s3", ":memory:", "--addr", f"{host}:0", "--auth-key", f"{access},{secret}",
             "--config", os.devnull, "--vfs-cache-mode", "off", "--log-level", "NOTICE"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        self.settings = S3Settings(
            endpoint=self._endpoint(host), bucket=f"b-{secrets.token_hex(4)}", access_key=access, secret_key=secret
        )

    def _endpoint(self, host: str) -> str:
        assert self._process.stderr is not None
        wanted = re.compile(rb"http://" + re.escape(host.encode()) + rb":\d+")
        seen, until = b"", time.monotonic() + START_DEADLINE
        while time.monotonic() < until:
            ready, _, _ = select.select([self._process.stderr], [], [], 0.2)
            if ready:
                seen += os.read(self._process.stderr.fileno(), 65536)
            if found := wanted.search(seen):
                return found.group().decode()
            assert self._process.poll() is None, seen.decode()
        raise AssertionError(f"the S3 server did not start: {seen.decode()}")

    def made(self) -> S3Settings:
        """`settings` with a fresh bucket, which is there."""
        at = replace(self.settings, bucket=f"b-{secrets.token_hex(4)}")
        place = urlsplit(at.endpoint)
        Minio(place.netloc, at.access_key, at.secret_key, secure=False, region=at.region).make_bucket(at.bucket)
        return at

    def stop(self) -> None:
        """End the server; harmless twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(timeout=10)
        with contextlib.suppress(OSError):
            assert self._process.stderr is not None
            self._process.stderr.close()


def gateway_settings(at: S3Settings) -> dict[str, str]:
    """What tells a gateway to keep its objects there."""
    return {
        "MOORAGE_STORE": f"s3://{at.bucket}",
        "MOORAGE_S3_ENDPOINT": at.endpoint,
        "MOORAGE_S3_ACCESS_KEY": at.access_key,
        "MOORAGE_S3_SECRET_KEY": at.secret_key,
    }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for the whole run; every test makes a bucket of its own."""
    server = S3Server()
    try:
        yield server
    finally:
        server.stop()
