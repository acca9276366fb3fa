"""What the stores promise under faults: kills, dead and slow servers, broken answers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.s3 import S3Server
from moorage_gateway.store import FolderStore, S3Settings, S3Store, StoreUnavailable

pytestmark = pytest.mark.component

KILLED_BEFORE_RENAME = """
import asyncio, signal, sys
from pathlib import Path
from moorage_gateway.store import FolderStore

class Stuck(FolderStore):
    def _publish(self, temporary, target):
        print("written", flush=True)
        signal.pause()

asyncio.run(Stuck(Path(sys.argv[1])).put("t/dev/record.json", b"new" * 1000))
"""

WRITES_FOREVER = """
import asyncio, sys
from pathlib import Path
from moorage_gateway.store import FolderStore

async def main():
    store = FolderStore(Path(sys.argv[1]))
    while True:
        for letter in b"abcd":
            await store.put("t/dev/record.json", bytes([letter]) * 300_000)
            print(letter, flush=True)

asyncio.run(main())
"""


async def test_a_kill_between_write_and_rename_leaves_the_old_object(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "o")
    await store.put("t/dev/record.json", b"old")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_BEFORE_RENAME, str(tmp_path / "o")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout:
        assert (await asyncio.to_thread(process.stdout.readline)).strip() == b"written"
        process.kill()
        process.wait(timeout=10)
    assert await store.get("t/dev/record.json") == b"old"
    assert await store.list("") == ["t/dev/record.json"]
    await store.aclose()


async def test_kills_at_any_instant_leave_a_whole_object(tmp_path: Path) -> None:
    for delay in (0.0, 0.003, 0.007, 0.012, 0.02):
        process = subprocess.Popen([sys.executable, "-c", WRITES_FOREVER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            await asyncio.to_thread(process.stdout.readline)
            await asyncio.sleep(delay)
            process.kill()
            process.wait(timeout=10)
        store = FolderStore(tmp_path)
        data = await store.get("t/dev/record.json")
        assert data is not None and len(data) == 300_000 and len(set(data)) == 1
        await store.aclose()


async def test_left_over_temporary_files_are_swept_once_they_are_old(tmp_path: Path) -> None:
    old, young = tmp_path / ".tmp" / "old", tmp_path / ".tmp" / "young"
    old.parent.mkdir()
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    store = FolderStore(tmp_path)
    assert not old.exists() and young.exists()
    await store.aclose()


async def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "o")
    (tmp_path / "o" / "t").write_bytes(b"a file where a folder belongs")
    with pytest.raises((StoreUnavailable, ValueError)):
        await store.put("t/dev/x", b"1")
    await store.aclose()
    with pytest.raises(StoreUnavailable):
        await store.get("t/dev/x")


async def test_calls_beyond_the_bound_are_refused_at_once(tmp_path: Path) -> None:
    store = FolderStore(tmp_path, workers=1, waiting=2)
    answers = await asyncio.gather(*(store.put(f"k/{n}", b"x" * 10_000) for n in range(20)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
    assert len(refused) == 17
    assert len(await store.list("k/")) == 3
    await store.aclose()


async def test_a_dead_server_is_unavailable_at_once() -> None:
    settings = S3Settings(endpoint="http://127.0.0.1:9", bucket="bucket", access_key="a", secret_key="bbbbbbbb")
    store = S3Store(settings)
    begun = time.monotonic()
    for call in (store.put("a", b""), store.get("a"), store.list(""), store.delete("a"), store.ping()):
        with pytest.raises(StoreUnavailable):
            await call
    assert time.monotonic() - begun < 4
    await store.aclose()


async def test_a_missing_bucket_is_unavailable_and_never_none(s3_server: S3Server) -> None:
    store = S3Store(dataclasses.replace(s3_server.settings, bucket="no-such-bucket"))
    with pytest.raises(StoreUnavailable, match="no-such-bucket"):
        await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.put("a/b", b"1")
    await store.aclose()


async def test_a_wrong_secret_is_unavailable_and_not_shown(s3_server: S3Server) -> None:
    wrong = dataclasses.replace(s3_server.settings, secret_key="wrong-secret-canary")
    store = S3Store(wrong)
    with pytest.raises(StoreUnavailable) as caught:
        await store.get("a/b")
    assert "canary" not in str(caught.value) and "canary" not in repr(wrong)
    await store.aclose()


@pytest.mark.parametrize(
    ("answer", "is_missing"),
    [
        (b"HTTP/1.1 503 Slow Down\r\ncontent-length: 4\r\n\r\nbusy", False),
        (b"HTTP/1.1 500 Oops\r\ncontent-type: application/xml\r\ncontent-length: 8\r\n\r\n<Error/>", False),
        (b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nnope", True),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", True),
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-type: application/xml\r\ncontent-length: 40\r\n\r\n"
            b"<Error><Code>NoSuchBucket</Code></Error>",
            False,
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly a part", False),
        (b"HTTP/1.1 403 No\r\ncontent-type: application/xml\r\ncontent-length: 9\r\n\r\nnot <xml>", False),
        (b"no http at all\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_a_broken_answer_is_unavailable_and_a_404_is_missing(answer: bytes, is_missing: bool) -> None:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = S3Store(S3Settings(f"http://127.0.0.1:{port}", "bucket", "a", "bbbbbbbb"))
    if is_missing:
        assert await store.get("a/b") is None
    else:
        with pytest.raises(StoreUnavailable):
            await store.get("a/b")
    await store.aclose()
    server.close()


async def test_a_server_that_never_answers_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = S3Store(S3Settings(f"http://127.0.0.1:{port}", "bucket", "a", "bbbbbbbb", read_timeout=0.3))
    begun = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await store.get("a/b")
    assert time.monotonic() - begun < 3
    await store.aclose()
    server.close()


def test_an_endpoint_with_a_path_is_refused() -> None:
    for endpoint in ("s3.example.com", "ftp://x", "http://", "http://x/path"):
        with pytest.raises(ValueError, match="endpoint"):
            S3Store(S3Settings(endpoint, "bucket", "a", "b"))
