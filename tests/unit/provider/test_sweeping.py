"""Which volumes a sweep removes: those that no session can ever have been bound to, and no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.provider.sweeping import Sweeper

pytestmark = pytest.mark.unit


class Machine:
    """One volume, made for sb-1. Limits: nothing runs."""

    outlives = True

    def __init__(self, ledger: str | None, bound: tuple[str, int] | None) -> None:
        self._ledger = ledger
        self._bound = bound
        self.removed: list[str] = []

    def strays(self) -> list[str]:
        return []

    def volumes(self) -> list[tuple[str, str, str]]:
        return [("t", "a", "ws-1")]

    def bound(self, tenant: str, agent: str, volume: str) -> tuple[str, int] | None:
        return self._bound

    def origin(self, tenant: str, agent: str, volume: str) -> tuple[str, str] | None:
        return None if self._ledger is None else ("sb-1", self._ledger)

    async def remove_volume(self, tenant: str, agent: str, volume: str) -> None:
        self.removed.append(volume)


class Ledger:
    """The ledger `two`, in which `holder` holds sb-1."""

    def __init__(self, holder: str) -> None:
        self._holder = holder

    async def sandboxes(self) -> list[str]:
        return []

    async def holder(self, sandbox: str) -> str:
        return self._holder

    async def identity(self) -> str:
        return "two"


@pytest.mark.parametrize(
    ("made_under", "bound", "holder", "running", "goes"),
    [
        ("two", None, "", False, True),
        ("one", None, "", False, False),  # the ledger of its time is lost, and with it perhaps a session
        ("", None, "", False, False),
        ("two", ("t:p", 3), "", False, False),
        ("two", None, "t:p", False, False),
        ("two", None, "", True, False),
        (None, None, "", False, True),  # of a machine whose shims mark their volumes themselves
    ],
)
async def test_a_volume_goes_only_when_no_session_can_ever_have_had_it(
    made_under: str | None, bound: tuple[str, int] | None, holder: str, running: bool, goes: bool
) -> None:
    machine = Machine(made_under, bound)
    fleet: Any = SimpleNamespace(
        sandboxes={"sb-1": None} if running else {}, on_volume=lambda volume: object() if running else None
    )
    doors: Any = Ledger(holder)
    there: Any = machine
    nothing: Any = None
    await Sweeper(fleet, doors, there, begin=nothing, end=nothing).sweep()
    assert machine.removed == (["ws-1"] if goes else [])
