"""Operators as processes of their own, forked from one that has imported everything: a start costs a tenth of a second, not two.

python -m api.replica      reads a JSON line an operator (`Order`), answers with its pid; ends at the end of its input, and all with it
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration

from api.points import Counted, CountedLedger, Point, Points
from moorage_operator.compose import Operator, talking
from moorage_operator.ledger import connect
from moorage_operator.settings import load

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """One operator. `folder`: its log, the switch of its points and their record; `end`: where it dies."""

    kubeconfig: str
    folder: str
    log: str
    environment: dict[str, str]
    end: tuple[int, str] | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def switch(folder: Path) -> Path:
    """The file from whose making on writes are counted."""
    return folder / "counting"


def record(folder: Path) -> Path:
    """The names of the writes that were counted, a line each."""
    return folder / "writes"


async def _work(order: Order) -> None:
    folder = Path(order.folder)
    end = Point(*order.end) if order.end is not None else None  # type: ignore[arg-type]
    points = Points(switch(folder), record(folder), end)
    configuration = Configuration()
    await config.load_kube_config(config_file=order.kubeconfig, client_configuration=configuration)

    def ledger_at(url: str, who: str) -> CountedLedger:
        made = CountedLedger(connect(url), who=who)
        made.points = points
        return made

    async with talking(configuration, Counted) as kube:
        kube.points = points
        task = asyncio.ensure_future(Operator(load(order.environment), kube, ledger_at=ledger_at).run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        await asyncio.gather(task, return_exceptions=True)


def _be(order: Order) -> None:
    """In the child: works, and never returns."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        os.environ["KUBECONFIG"] = order.kubeconfig
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
        asyncio.run(_work(order))
        status = 0
    except Exception:  # the outermost frame of the process
        logging.getLogger(__name__).exception("the operator ended")
    finally:
        logging.shutdown()
        os._exit(status)


def main() -> None:
    """See the module."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no child is waited for: whoever ordered it holds a descriptor of it
    for line in sys.stdin:
        given: dict[str, Any] = json.loads(line)
        given["end"] = tuple(given["end"]) if given["end"] else None
        pid = os.fork()
        if pid == 0:
            _be(Order(**given))
        print(pid, flush=True)


if __name__ == "__main__":
    main()
