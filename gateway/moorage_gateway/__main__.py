"""`moorage-gateway`: one gateway as a process of its own. Layer: the outermost frame.

SIGTERM and SIGINT drain; a second one ends at once. Exit 0 after a drain, 1 when it could not start or a loop died, 2 for a bad
setting, which is named.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time

import uvloop

from moorage_api.errors import ApiError
from moorage_api.ledger.script import LedgerError
from moorage_gateway import collector
from moorage_gateway.app import Gateway, connect, create_gateway, open_store
from moorage_gateway.keys import KeyService
from moorage_gateway.ledger_client import LedgerClient, UnsafePolicy
from moorage_gateway.settings import Settings, SettingsError, load
from moorage_gateway.store import StoreError


def main() -> None:
    """The console script. `moorage-gateway first-key TENANT USER` makes a tenant's first admin key and prints it once."""
    try:
        settings = load(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"moorage-gateway cannot start:\n{error}\n")
        raise SystemExit(2) from None
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format='{"time":"%(asctime)s","log":"%(name)s","level":"%(levelname)s"} %(message)s',
    )
    match sys.argv[1:]:
        case []:
            raise SystemExit(uvloop.run(serve(settings)))
        case ["first-key", tenant, user]:
            raise SystemExit(uvloop.run(first_key(settings, tenant, user)))
        case _:
            sys.stderr.write("usage: moorage-gateway [first-key TENANT USER]; settings are MOORAGE_… variables\n")
            raise SystemExit(2)


async def first_key(settings: Settings, tenant: str, user: str) -> int:
    """Makes an admin key in the store, for whoever holds the store's credentials; refused where the tenant has a key."""
    store = open_store(settings)
    redis = connect(settings)
    client = LedgerClient(redis, who="first-key", call_timeout=settings.redis_seconds)
    try:
        keys = KeyService(store, client, now=time.time, monotonic=time.monotonic)
        if any(not record.revoked_at for record in await keys.list(tenant)):
            sys.stderr.write(f"tenant {tenant} has a key already; use it with `moorage keys create`\n")
            return 1
        _, text = await keys.create(tenant=tenant, user=user, scopes=("admin",), name="first key")
        sys.stdout.write(text + "\n")
        return 0
    except (ApiError, LedgerError, StoreError, OSError) as error:
        sys.stderr.write(f"moorage-gateway first-key: {error}\n")
        return 1
    finally:
        await client.aclose()
        await store.aclose()


async def serve(settings: Settings) -> int:
    """Serves until a signal or a failure; the exit status."""
    gateway = await create_gateway(settings)
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> None:
        if asked.is_set():
            os._exit(1)  # asked twice: whoever does that wants no more waiting
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    try:
        await gateway.start()
    except (LedgerError, StoreError, UnsafePolicy, OSError) as error:
        sys.stderr.write(f"moorage-gateway cannot start: {error}\n")
        await gateway.stop()
        return 1
    collector.settle()
    return await _until_asked(gateway, asked)


async def _until_asked(gateway: Gateway, asked: asyncio.Event) -> int:
    waits = [asyncio.create_task(asked.wait()), asyncio.create_task(gateway.failed.wait())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await gateway.drain()
    return 1 if gateway.failed.is_set() else 0


if __name__ == "__main__":
    main()
