"""What is out of reach is told to a ledger once, and once more to one that was lost; what is nobody's is given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moorage_api.ledger.records import Descriptor
from moorage_api.provider.base import OutOfReach
from moorage_api.provider.fleet import Fleet, Held
from moorage_api.provider.leaving import Leaving

pytestmark = pytest.mark.unit


class Scene:
    """A machine and a ledger that say what they are told to. `asked`: what the ledger was told; `work`: what was begun."""

    def __init__(self) -> None:
        self.found: list[OutOfReach] = []
        self.word = "OK"
        self.asked: list[tuple[str, str, str]] = []
        self.abandoned: list[str] = []
        self.bound = {"ws-1": ("t:p", 7)}
        self.fleet = Fleet()
        self.work: list[Any] = []
        self.leaving = Leaving(
            self.fleet, self._ledger(), self._machine(), begin=lambda _, work: self.work.append(work)
        )

    def _ledger(self) -> Any:
        async def out_of_reach(sandbox: str, session: str, volume: str, reason: str) -> str:
            self.asked.append((sandbox, session, volume))
            return self.word

        async def abandoned(volume: str) -> None:
            self.abandoned.append(f"{volume} told")

        return SimpleNamespace(out_of_reach=out_of_reach, abandoned=abandoned)

    def _machine(self) -> Any:
        async def out_of_reach() -> list[OutOfReach]:
            return self.found

        async def abandon(tenant: str, agent: str, volume: str) -> None:
            self.abandoned.append(volume)

        return SimpleNamespace(
            out_of_reach=out_of_reach,
            abandon=abandon,
            bound=lambda tenant, agent, volume: self.bound.get(volume),
            volumes=lambda: [("t", "a", "ws-0"), ("t", "a", "ws-1")],
        )

    def hold(self, sandbox: str, volume: str, session: str = "") -> Held:
        one = Descriptor(sandbox, "t", "a", "r", "http://192.0.2.1:8090", "s", volume)
        held = self.fleet.sandboxes[sandbox] = Held(one, "t/a/r", 0.0, session=session, claimed=bool(session))
        return held


def out(sandbox: str, volume: str) -> OutOfReach:
    return OutOfReach("t", "a", volume, sandbox, "its node is not heard of")


async def test_a_ledger_is_told_once_and_again_when_it_was_lost_or_the_thing_came_back() -> None:
    scene = Scene()
    scene.found = [out("sb-1", "ws-1"), out("", "ws-1")]
    for _ in range(2):
        await scene.leaving.look()
    assert scene.asked == [("sb-1", "t:p", "ws-1"), ("", "t:p", "ws-1")]
    scene.leaving.tell_again()
    await scene.leaving.look()
    assert len(scene.asked) == 4
    scene.found = []
    await scene.leaving.look()
    scene.found = [out("sb-1", "ws-1")]
    await scene.leaving.look()
    assert len(scene.asked) == 5


@pytest.mark.parametrize("word", ["STALE", "UNKNOWN", "HEARD"])
async def test_what_did_not_fit_is_told_again_and_a_volume_of_nobody_never(word: str) -> None:
    scene = Scene()
    scene.word = word
    scene.found = [out("sb-1", "ws-1"), out("", "ws-2")]
    for _ in range(2):
        await scene.leaving.look()
    assert scene.asked == [("sb-1", "t:p", "ws-1")] * 2


async def test_a_sandbox_of_a_pool_is_to_be_ended() -> None:
    scene = Scene()
    scene.word, warm, other = "FREE", scene.hold("sb-1", "ws-9"), scene.hold("sb-2", "ws-1", "t:p")
    scene.found = [out("sb-1", "ws-9"), out("sb-2", "ws-1")]
    await scene.leaving.look()
    assert warm.ending and not other.ending


async def test_a_volume_that_its_session_has_left_is_abandoned_before_the_ledger_forgets_it() -> None:
    scene = Scene()
    held = scene.hold("sb-1", "ws-1", "t:p")
    scene.leaving.left({"ws-1": "t:p"})
    (work,) = scene.work
    await work
    assert scene.abandoned == ["ws-1", "ws-1 told"]
    assert held.ending and not held.session and not held.claimed
