"""The end that a machine announces: a pod that is deleted, evicted or drained has its grace. Layer: engine, above `shim`.

What runs ends at once, so that the turn goes on elsewhere as after any platform fault; what no checkpoint has seen is saved with the time
that is left; then the sandbox is over. Where there is no such time (`ShimConfig.notice` is 0) it is over at once.
"""

from __future__ import annotations

import asyncio

from moorage_api.wire.checkpoints import Save
from moorage_sandbox.config import ShimConfig
from moorage_sandbox.errors import Refused
from moorage_sandbox.output import Output
from moorage_sandbox.shim import Busy, Shim

WHY = "the shim was told to end"


class Leaving:
    """`asked` for each signal; a second one ends the sandbox at once."""

    def __init__(self, shim: Shim, output: Output, config: ShimConfig) -> None:
        self._shim = shim
        self._output = output
        self._within = config.notice if config.keeps else 0.0
        self._task: asyncio.Task[None] | None = None

    def asked(self) -> None:
        """The machine wants the sandbox to end."""
        if self._task is None and self._within and self._shim.cease(WHY):
            self._task = asyncio.get_running_loop().create_task(self._save())
        else:
            self._shim.retire(WHY)

    async def close(self) -> None:
        """Ends what runs."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _save(self) -> None:
        bound = self._shim.binding
        assert bound is not None
        last = Save(session=bound.session, epoch=bound.epoch, why="hibernate", deadline=self._within)
        try:
            async with asyncio.timeout(self._within):
                saved = await self._shim.save(last)
            self._output.shim(f"the last checkpoint is {saved.id}")
        except (Refused, Busy, TimeoutError) as fault:
            self._output.shim(f"no last checkpoint: {str(fault) or 'not in time'}")
        finally:  # a mistake of ours must not leave a sandbox that serves nobody
            self._shim.retire(WHY)
