"""One suite over every object store: what any of them does, all of them do."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.s3 import S3Server
from moorage_gateway.store import FolderStore, InvalidKey, MemoryStore, S3Store, Store

pytestmark = pytest.mark.component


@pytest.fixture(params=["memory", "folder", "s3", "s3-prefix"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: MemoryStore | FolderStore | S3Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "folder":
        made = FolderStore(tmp_path / "objects")
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        settings = dataclasses.replace(
            server.settings,
            bucket=f"b-{secrets.token_hex(6)}",
            prefix="a/b" if request.param == "s3-prefix" else "",
        )
        made = S3Store(settings)
        await made.ensure_bucket()
    yield made
    await made.aclose()


async def test_what_was_put_is_read_back(store: Store) -> None:
    for data in (b"", b"\x00\xff", b"x" * 100_000):
        await store.put("t/dev/responses/caresp_1/input.json", data)
        assert await store.get("t/dev/responses/caresp_1/input.json") == data


async def test_an_object_of_many_megabytes_survives(store: Store) -> None:
    data = secrets.token_bytes(1 << 20) * 18  # more than one part of a multipart upload
    await store.put("t/dev/big", data)
    assert await store.get("t/dev/big") == data


async def test_a_missing_object_is_none_and_not_an_error(store: Store, tmp_path: Path) -> None:
    assert await store.get("t/dev/nothing.json") is None
    assert await store.get_file("t/dev/nothing.json", tmp_path / "out") is False
    assert await store.size("t/dev/nothing.json") is None
    assert not (tmp_path / "out").exists()
    await store.delete("t/dev/nothing.json")
    await store.delete_prefix("t/dev/none/")
    assert await store.list("t/dev/none/") == []


async def test_a_folder_of_objects_is_not_an_object(store: Store) -> None:
    await store.put("t/dev/a/b.json", b"1")
    assert await store.get("t/dev/a") is None
    assert await store.get("t/dev/a/b.json") == b"1"


async def test_a_repeated_put_replaces_the_whole_object(store: Store) -> None:
    await store.put("k/one", b"long long long")
    await store.put("k/one", b"short")
    assert await store.get("k/one") == b"short"


async def test_deleting_takes_one_object_and_a_prefix_takes_all_below(store: Store) -> None:
    for key in ("t/a/x/1", "t/a/x/2", "t/a/y/1", "t/ab/x/1"):
        await store.put(key, b".")
    await store.delete("t/a/x/1")
    assert await store.list("t/") == ["t/a/x/2", "t/a/y/1", "t/ab/x/1"]
    await store.delete_prefix("t/a/")
    assert await store.list("t/") == ["t/ab/x/1"]
    await store.put("t/a/x/1", b"again")
    assert await store.get("t/a/x/1") == b"again"


async def test_listing_is_sorted_by_the_whole_key(store: Store) -> None:
    keys = ["s/a-b/1", "s/a.b", "s/a/1", "s/a/2", "s/a1", "s/A", "s/b/c/d", "s/_"]
    for key in keys:
        await store.put(key, b".")
    assert await store.list("s/") == sorted(keys)
    assert await store.list("") == sorted(keys)


async def test_listing_takes_an_unfinished_segment_as_prefix(store: Store) -> None:
    for key in ("r/caresp_aa1/x", "r/caresp_aa2/x", "r/caresp_b/x"):
        await store.put(key, b".")
    assert await store.list("r/caresp_aa") == ["r/caresp_aa1/x", "r/caresp_aa2/x"]
    assert await store.list("r/caresp_aa2/x") == ["r/caresp_aa2/x"]
    assert await store.list("r/nope") == []


async def test_listing_goes_on_after_a_key_until_nothing_is_left(store: Store) -> None:
    keys = sorted(f"p/{n % 7}/{n:03d}" for n in range(60))
    await asyncio.gather(*(store.put(key, b".") for key in keys))
    found: list[str] = []
    while page := await store.list("p/", after=found[-1] if found else "", limit=13):
        assert len(page) <= 13
        found += page
    assert found == keys


async def test_files_go_in_and_come_out_whole(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(secrets.token_bytes(1 << 20) * 17)
    await store.put_file("t/dev/bundles/x.tar.gz", source)
    assert await store.get_file("t/dev/bundles/x.tar.gz", target) is True
    assert await store.size("t/dev/bundles/x.tar.gz") == target.stat().st_size
    assert target.read_bytes() == source.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in", "out"]


async def test_writers_of_one_key_never_mix(store: Store) -> None:
    bodies = [bytes([n]) * 50_000 for n in range(8)]
    await asyncio.gather(*(store.put("k/shared", body) for body in bodies))
    assert await store.get("k/shared") in bodies


async def test_writers_and_deleters_of_one_folder_do_not_trip_each_other(store: Store) -> None:
    async def churn(n: int) -> None:
        for _ in range(5):
            await store.put(f"c/d/e/{n}", b"x")
            await store.delete(f"c/d/e/{n}")

    await asyncio.gather(*(churn(n) for n in range(6)))
    assert await store.list("c/") == []


BAD_KEYS = ["", "/", "/a", "a/", "a//b", "..", "a/../b", "a/..", ".", "a/./b", ".tmp/x", "a/.hidden", "a\\b", "a\x00b",
            "a b", "a\nb", "ä", "a/" + "x" * 201, "/".join(["x" * 9] * 80), "a?b", "a%2e%2e/b", "~", "C:\\x",
            "key\t"]  # fmt: skip


@pytest.mark.parametrize("key", BAD_KEYS)
async def test_a_key_outside_the_syntax_is_refused_by_every_call(store: Store, key: str, tmp_path: Path) -> None:
    calls = [store.get, store.delete, lambda bad: store.put(bad, b"x"), lambda bad: store.put_file(bad, tmp_path / "f"),
             lambda bad: store.get_file(bad, tmp_path / "f"), store.size]  # fmt: skip
    if key != "a/":
        calls.append(store.delete_prefix)
    if key not in ("", "a/"):
        calls.append(store.list)
    (tmp_path / "f").write_bytes(b"x")
    for call in calls:
        with pytest.raises(InvalidKey):
            await call(key)


async def test_only_whole_folders_can_be_deleted(store: Store) -> None:
    await store.put("t/ab/x", b"1")
    for prefix in ("", "/", "t/a"):
        with pytest.raises(InvalidKey):
            await store.delete_prefix(prefix)
    assert await store.get("t/ab/x") == b"1"


async def test_a_healthy_store_answers_a_ping(store: Store) -> None:
    await store.ping()
