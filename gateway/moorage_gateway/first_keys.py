"""The commands that make a tenant's first key, for whoever holds the credentials of store and Redis. Layer: the outermost frame.

first_key     makes an admin key and prints it once; for a person at a terminal
ensure_key    makes the admin key whose text stands in a file, and prints nothing of it; for a cluster's bootstrap, again at each upgrade
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from moorage_api.errors import TABLE, ApiError
from moorage_api.ledger.script import LedgerError
from moorage_gateway import keys
from moorage_gateway.app import connect, open_store
from moorage_gateway.ledger_client import LedgerClient, RedisRefused
from moorage_gateway.settings import Settings
from moorage_gateway.store import StoreError

WAIT_SECONDS = 180.0  # for Redis and the store to answer: in a new cluster they start beside us
AGAIN_SECONDS = 2.0


async def first_key(settings: Settings, tenant: str, user: str) -> int:
    """The exit status; 1 where the tenant has a valid key already."""
    try:
        async with _service(settings, "first-key") as service:
            if any(not record.revoked_at for record in await service.list(tenant)):
                sys.stderr.write(f"tenant {tenant} has a key already; use it with `moorage keys create`\n")
                return 1
            _, text = await service.create(tenant=tenant, user=user, scopes=("admin",), name="first key")
            sys.stdout.write(text + "\n")
            return 0
    except (ApiError, LedgerError, RedisRefused, StoreError, OSError) as error:
        sys.stderr.write(f"moorage-gateway first-key: {error}\n")
        return 1


async def ensure_key(
    settings: Settings, tenant: str, user: str, file: Path, *, wait_seconds: float = WAIT_SECONDS
) -> int:
    """The exit status: 0 when the key is valid, or was revoked (its owner's will, which an upgrade must not undo); 1 otherwise."""
    text = _text(file)
    if keys.key_id(text) is None:
        sys.stderr.write(
            f"moorage-gateway ensure-key: {file} holds no key of the form mk_ID_SECRET (16 and 64 hex digits)\n"
        )
        return 1
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            async with _service(settings, "ensure-key") as service:
                record = await service.ensure(text, tenant=tenant, user=user, scopes=("admin",), name="first key")
                break
        except (ApiError, LedgerError, RedisRefused, StoreError, OSError, TimeoutError) as error:
            lasting = isinstance(error, ApiError) and not TABLE[error.kind].retry
            if lasting or time.monotonic() >= deadline:
                sys.stderr.write(f"moorage-gateway ensure-key: {error}\n")
                return 1
        await asyncio.sleep(AGAIN_SECONDS)
    said = "is valid" if record is not None else "was revoked, or another key has its id: left as it is"
    sys.stderr.write(f"the first key of tenant {tenant} ({keys.key_id(text)}) {said}\n")
    return 0


def _text(file: Path) -> str:
    """The file's text; empty when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@asynccontextmanager
async def _service(settings: Settings, who: str) -> AsyncIterator[keys.KeyService]:
    store = open_store(settings)
    try:
        client = LedgerClient(connect(settings), who=who, call_timeout=settings.redis_seconds)
        try:
            yield keys.KeyService(store, client, now=time.time, monotonic=time.monotonic)
        finally:
            await client.aclose()
    finally:
        await store.aclose()
