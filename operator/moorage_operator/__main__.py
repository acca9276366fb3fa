"""Entry of `moorage-operator`: settings from the environment, one process, SIGTERM ends it.

Exit 2 for a bad setting, 1 when the lease is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import uvloop

from moorage_api import collector
from moorage_operator.compose import Operator, connected
from moorage_operator.settings import BadSetting, Settings, load


async def _run(settings: Settings) -> int:
    async with connected() as kube:
        task = asyncio.ensure_future(Operator(settings, kube, serves=collector.settle).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            return 0
    logging.getLogger(__name__).error("the lease is lost: another replica works now")
    return 1


def main() -> None:
    """See the module."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for every event of every pod
    try:
        settings = load(os.environ)
    except BadSetting as fault:
        sys.stderr.write(f"moorage-operator: {fault}\n")
        raise SystemExit(2) from None
    raise SystemExit(uvloop.run(_run(settings)))


if __name__ == "__main__":
    main()
