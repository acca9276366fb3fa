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
from pathlib import Path

import uvloop

from moorage_api import collector
from moorage_api.ledger.script import LedgerError
from moorage_gateway import package_index
from moorage_gateway.app import Gateway, create_gateway
from moorage_gateway.first_keys import ensure_key, first_key
from moorage_gateway.ledger_client import UnsafePolicy
from moorage_gateway.settings import Settings, SettingsError, load
from moorage_gateway.store import StoreError


def main() -> None:
    """The console script: serves, or makes a first key (see `first_keys.py`)."""
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
        case ["ensure-key", tenant, user, file]:
            raise SystemExit(uvloop.run(ensure_key(settings, tenant, user, Path(file))))
        case _:
            usage = "usage: moorage-gateway [first-key TENANT USER | ensure-key TENANT USER FILE]"
            sys.stderr.write(f"{usage}; settings are MOORAGE_… variables\n")
            raise SystemExit(2)


async def serve(settings: Settings) -> int:
    """Serves until a signal or a failure; the exit status."""
    index = package_index.Offer(package_index.read_settings(os.environ, Path.home()), now=time.monotonic)
    gateway = await create_gateway(settings, index=index)
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
