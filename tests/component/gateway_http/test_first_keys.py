"""The first key of a tenant, made by the command that a cluster's bootstrap runs, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from fakes.valkey import Valkey
from moorage_gateway import keys
from moorage_gateway.ledger_client import LedgerClient
from moorage_gateway.store import FolderStore

pytestmark = pytest.mark.component

TEXT = f"mk_{'1a' * 8}_{'2b' * 32}"


async def ensure(valkey: Valkey, folder: Path, text: str) -> tuple[int | None, str]:
    """Exit status and everything that was said."""
    (folder / "key").write_text(text + "\n", encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "moorage_gateway", "ensure-key", "acme", "admin", str(folder / "key"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "MOORAGE_REDIS_URL": valkey.url, "MOORAGE_STORE": str(folder / "objects")},
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def service(folder: Path, ledger: LedgerClient) -> keys.KeyService:
    return keys.KeyService(FolderStore(folder / "objects"), ledger, now=time.time, monotonic=time.monotonic)


async def test_the_key_in_the_file_becomes_valid_however_often_and_is_never_shown(
    valkey: Valkey, ledger: LedgerClient, tmp_path: Path
) -> None:
    for _ in range(2):
        status, said = await ensure(valkey, tmp_path, TEXT)
        assert status == 0 and "is valid" in said and "2b2b" not in said
    found = await (await service(tmp_path, ledger)).identify(TEXT)
    assert found is not None and (found.tenant, found.user, found.scopes) == ("acme", "admin", frozenset({"admin"}))


async def test_a_revoked_key_stays_revoked_and_holds_nothing_up(
    valkey: Valkey, ledger: LedgerClient, tmp_path: Path
) -> None:
    assert (await ensure(valkey, tmp_path, TEXT))[0] == 0
    assert await (await service(tmp_path, ledger)).revoke("acme", "1a" * 8) is not None
    status, said = await ensure(valkey, tmp_path, TEXT)
    assert status == 0 and "was revoked" in said
    assert await (await service(tmp_path, ledger)).identify(TEXT) is None


async def test_a_file_that_holds_no_key_is_refused_and_not_shown(valkey: Valkey, tmp_path: Path) -> None:
    status, said = await ensure(valkey, tmp_path, "hunter2-hunter2")
    assert status == 1 and "holds no key" in said and "hunter2" not in said
