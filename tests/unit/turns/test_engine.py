"""What the engine makes of an attempt whose sandbox was ended under it, with every port scripted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from fakes.frames import Scripted
from moorage_api.ledger.records import Entry, TurnRecord
from moorage_api.wire.checkpoints import Save
from moorage_api.wire.shim import Acknowledged, Attach, End, Frame, Source, Start, Stop
from moorage_gateway.activation import Wanted
from moorage_gateway.clock import SystemClock
from moorage_gateway.turns import steps
from moorage_gateway.turns.engine import Engine
from moorage_gateway.turns.held import Held
from moorage_gateway.turns.normalise import Template, created_event
from moorage_gateway.turns.rules import Limits
from moorage_gateway.upstream import Route, ShimLost, ShimRefused

pytestmark = pytest.mark.unit


async def none_asked(_: Held) -> list[dict[str, Any]]:
    return []


async def none_recorded(_: str) -> int:
    return 0


QUOTA = "disk quota: 60 MiB in /workspace and $HOME, spec.workspace.size is 48Mi"
DONE = {"type": "response.completed", "response": {"status": "completed", "output": []}}


class Ledger:
    """Says OK to everything."""

    def __init__(self) -> None:
        self.fence = 10
        self.outcomes: list[str] = []

    async def begin(self, response: str, fence: int, **told: Any) -> tuple[str, int, int]:
        self.fence += 1
        return "OK", self.fence, 1

    async def append(self, response: str, fence: int, first: int, entries: Sequence[Entry]) -> tuple[str, int]:
        return "OK", first + len(entries)

    def append_soon(self, r: str, f: int, group: Callable[[], Any], landed: Callable[[Any], None]) -> None:
        def leave() -> None:
            if (leaving := group()) is not None:
                landed([b"OK", leaving[0] + len(leaving[1])])

        asyncio.get_running_loop().call_soon(leave)

    async def note(self, *told: Any) -> str:
        return "OK"

    async def decide(
        self, response: str, fence: int, outcome: str, *told: Any, **more: Any
    ) -> tuple[str, str, int, str]:
        self.outcomes.append(outcome)
        return "OK", outcome, 1, ""

    async def close(self, response: str, *, stored: bool) -> str:
        return "OK"


class Activation:
    """One route an epoch; the sandbox of epoch 1 is being ended, and is routed to for as long as nobody says that it is over.

    `kept`: whether other sandboxes have the session's volume.
    """

    def __init__(self, reason: str, *, kept: bool = True) -> None:
        self.reason, self.forgotten, self.kept = reason, 0, kept
        self.wanted: list[Wanted] = []

    async def acquire(self, wanted: Wanted, *, deadline: float) -> Route:
        self.wanted.append(wanted)
        epoch = 2 if wanted.dead_epoch == 1 else 1
        return Route("dev:p", f"sb-{epoch}", "unix:/none", "secret", epoch, "v-1", self.kept)

    async def end_reason(self, session_key: str, sandbox: str) -> str:
        return self.reason if sandbox == "sb-1" else ""

    async def lost(self, route: Route, reason: str) -> None:
        return

    def forget(self, key: str) -> None:
        self.forgotten += 1


class Shims:
    """The first attempt is orphaned; a second one in the same sandbox meets a connection that breaks; in the next it is done."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.saves: list[str] = []
        self.refusals: list[Exception] = []

    async def save(self, route: Route, call: Save) -> None:
        self.saves.append(route.sandbox)
        assert (call.why, call.epoch) == ("turn", route.epoch)
        if self.refusals:
            raise self.refusals.pop(0)

    def start(self, route: Route, call: Start) -> Scripted:
        self.started.append(route.sandbox)
        return Scripted(self._frames(route, first=len(self.started) == 1))

    def attach(self, route: Route, call: Attach) -> Scripted:
        return Scripted(self._frames(route, first=False))

    async def stop(self, route: Route, call: Stop) -> None:
        return

    async def _frames(self, route: Route, *, first: bool) -> AsyncGenerator[Frame, None]:
        if route.epoch == 1 and not first:
            raise ShimLost("the sandbox ends")
        yield Acknowledged(1)
        if first:
            yield End("orphaned", "the provider ends it", ["filling the disk"])
        else:
            yield Source(1, orjson.dumps(DONE))
            yield End("done")


@contextmanager
def unseen(held: Any, number: int) -> Any:
    """Telemetry: none."""
    yield steps.Attempted()


def turn() -> Held:
    """A running turn, not to be stored."""
    meta = {"store": False, "user": "u", "session_id": "s", "tenant": "dev"}
    record = TurnRecord.parse(
        "caresp_1",
        {"state": "running", "session": "dev:p", "fence": "10", "meta": orjson.dumps(meta).decode(), "generation": "1",
         "deadline": str(2**43)},
    )  # fmt: skip
    assert record is not None
    template = Template("caresp_1", 1, "m", "a", "r", "s", {})
    identity: Any = SimpleNamespace(revision="r")
    held = Held(record, 10, template, identity, Limits(), [], proved=False)
    held.logged([Entry(0, 0, orjson.dumps(event)) for event in created_event(template, queued=False)])
    return held


async def driven(
    reason: str, *refusals: Exception, limits: Limits | None = None, seconds: float = 10**6, kept: bool = True
) -> tuple[Held, Activation, Shims, Ledger]:
    """The turn, driven to its end; its checkpoint meets `refusals` first, its deadline is `seconds` away."""
    ledger, activation, shims, held = Ledger(), Activation(reason, kept=kept), Shims(), turn()
    shims.refusals = list(refusals)
    held.limits = limits or held.limits
    held.record = replace(held.record, deadline=SystemClock().now_ms() + int(seconds * 1000))

    async def history(held: Held) -> list[dict[str, Any]]:
        return []

    recovery: Any = SimpleNamespace(runs=False)
    nothing: Any = None
    ports = steps.Ports(
        ledger, activation, shims, nothing, SystemClock(), recovery, SimpleNamespace(attempt=unseen), history,
        lambda: 1, lambda: 0.0, none_recorded, none_asked,
    )  # type: ignore[arg-type]  # fmt: skip
    async with asyncio.timeout(10):
        await Engine(ports).drive(held)
    return held, activation, shims, ledger


async def test_an_attempt_is_not_begun_in_a_sandbox_that_the_provider_is_ending_nor_blamed_for_its_end_twice() -> None:
    held, activation, shims, ledger = await driven(QUOTA)
    assert shims.started == ["sb-1", "sb-2"]
    assert [wanted.dead_epoch for wanted in activation.wanted] == [0, 1]
    assert [attempt.get("fault") for attempt in held.attempts] == ["quota", None]
    assert held.attempts[0]["log_tail"] == ["filling the disk"]
    assert ledger.outcomes == ["completed"]


TURN = Limits(checkpoint=True)


async def test_with_durability_turn_it_is_completed_only_after_a_checkpoint() -> None:
    away, moved, dead = ShimRefused("not_kept", "no"), ShimRefused("stale_epoch"), ShimLost("gone", refused=True)
    _, activation, shims, ledger = await driven(QUOTA, away, moved, dead, limits=TURN)
    assert len(shims.saves) == 4 and ledger.outcomes == ["completed"]
    _, _, none, without = await driven(QUOTA)
    assert none.saves == [] and without.outcomes == ["completed"]
    assert activation.forgotten > 0


async def test_a_turn_whose_files_cannot_be_kept_by_its_deadline_is_failed_and_says_why() -> None:
    refusals = [ShimRefused("not_kept", "the store is away") for _ in range(1000)]
    held, _, shims, ledger = await driven(QUOTA, *refusals, limits=TURN, seconds=1.5)
    assert shims.saves and ledger.outcomes == ["failed"]
    said = orjson.loads(held.log[-1].data)["response"]["error"]
    assert "[checkpoint_failed]" in said["message"] and "the store is away" in said["message"]


@pytest.mark.parametrize(
    ("refusal", "kept", "said"),
    [
        (ShimRefused("unfit", "more than 200000 files: delete some"), True, "delete some"),
        (ShimLost("gone", refused=True), False, "lost with their volume"),
    ],
)
async def test_what_no_further_try_can_keep_ends_the_turn_at_once(refusal: Exception, kept: bool, said: str) -> None:
    held, _, shims, ledger = await driven(QUOTA, refusal, limits=TURN, kept=kept)
    assert len(shims.saves) == 1 and ledger.outcomes == ["failed"]
    assert said in orjson.loads(held.log[-1].data)["response"]["error"]["message"]


RETAINED = """
import resource, sys
from types import SimpleNamespace
import orjson
sys.path.insert(0, sys.argv[1])
from unit.turns.test_lane import World

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

world, before = World(), 0
for number in range(12_000):
    if number == 2_000:
        before = resident()
    world.reader.read([world.delta(f"word {number} ")])
    world.held.logged(world.reader.drain())
print((resident() - before) / 10_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_a_log_in_memory_takes_about_the_bytes_of_its_events() -> None:
    """An event of 250 bytes that keeps its place in the block orjson made it in takes 4 to 5 KB."""
    tests = __file__.partition("/unit/")[0]
    found = subprocess.run(
        [sys.executable, "-c", RETAINED, tests], capture_output=True, text=True, timeout=60, check=True
    )
    assert float(found.stdout) < 1500, f"{found.stdout.strip()} bytes an event"
