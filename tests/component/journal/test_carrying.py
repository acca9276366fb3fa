"""Steps that a failed try of a run completed, met by the next try: another turn of the same session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from component.journal.conftest import Desk
from component.journal.test_steps import begin, end, step
from moorage_api.ledger.records import SessionIdentity
from moorage_api.ledger.turns import Acceptance
from moorage_gateway.journal import carrying
from moorage_gateway.journal.carrying import Carrying
from moorage_gateway.journal.spilling import INLINE, Spill

pytestmark = pytest.mark.component

ERROR = {"error": {"type": "ValueError", "message": "no"}}


@dataclass
class Tries:
    """A desk whose turns are the tries of one run."""

    desk: Desk
    number: int = 1

    async def fail(self) -> None:
        """The try is over, and what it completed is given to the next one."""
        word, *_ = await self.desk.turns.decide(self.desk.turn, self.desk.fence, "failed", 1, "{}")
        assert word == "OK"
        await self.desk.turns.close(self.desk.turn, stored=True)
        await self.give()

    async def give(self) -> None:
        core = self.desk.gateways[0].core

        async def never(_: str) -> bool:
            raise AssertionError("nothing is asked for here")

        giver = Carrying(self.desk.journal, Spill(core.store, core.clock), core.store, never)
        await giver.give("acme", self.desk.turn, self.name(self.number + 1))

    async def next(self, *, carries: bool = True) -> None:
        """The next try's turn, and its first attempt."""
        self.number += 1
        self.desk.turn = self.name(self.number)
        who = SessionIdentity("acme", "a", "ann", "session-1", self.desk.session.partition(":")[2], "r1")
        meta = '{"tenant": "acme", "carries": true}' if carries else '{"tenant": "acme"}'
        turn = Acceptance(
            self.desk.turn, self.desk.session, who, 4, 4_000_000_000_000, meta, "[]", ["{}"], ["{}"],
        )  # fmt: skip
        self.desk.fence = (await self.desk.turns.accept(turn)).fence
        await self.desk.attempt()

    def name(self, number: int) -> str:
        return Desk.turn if number == 1 else f"{Desk.turn[:-1]}{number}"

    async def meets(self, name: str, arguments: Any = None) -> Any:
        """The result of a step that is not run; the state of any other."""
        said = (await begin(self.desk, name, arguments)).json
        return said["outcome"]["result"] if said["state"] == "completed" else said["state"]


@pytest.fixture
def tries(desk: Desk) -> Tries:
    return Tries(desk)


async def test_what_was_completed_is_answered_and_the_rest_runs(tries: Tries) -> None:
    await step(tries.desk, "mail", [1], "first")
    await step(tries.desk, "mail", [1], "second")
    failed = await begin(tries.desk, "charge", [7])
    await end(tries.desk, failed.json["step"], said=ERROR)
    await begin(tries.desk, "lost")
    await tries.desk.attempt()
    assert await tries.meets("lost") == "outcome_unknown"
    await tries.fail()
    await tries.next()
    assert [await tries.meets("mail", [1]) for _ in range(3)] == ["first", "second", "run"]
    assert await tries.meets("mail", [2]) == "run", "other arguments are another step"
    assert await tries.meets("charge", [7]) == "run", "what failed is what a try is made for"
    assert [await tries.meets("lost") for _ in range(2)] == ["outcome_unknown", "run"], (
        "it was begun: the agent looks, and decides"
    )


async def test_the_result_of_a_second_go_is_met_by_the_first_one_of_the_next_try(tries: Tries) -> None:
    failed = await begin(tries.desk, "charge")
    await end(tries.desk, failed.json["step"], said=ERROR)
    await step(tries.desk, "charge", None, "paid")
    await tries.fail()
    await tries.next()
    assert await tries.meets("charge") == "paid"
    assert await tries.meets("charge") == "run"


async def test_a_later_attempt_of_the_try_meets_it_again_and_the_journal_says_where_it_is_from(tries: Tries) -> None:
    await step(tries.desk, "mail", None, "sent")
    await tries.fail()
    await tries.next()
    assert await tries.meets("mail") == "sent"
    await tries.desk.attempt()
    assert await tries.meets("mail") == "sent"
    (entry,) = await tries.desk.journal.entries(tries.desk.turn)
    assert entry.state == "completed" and entry.what == {"kind": "step", "name": "mail", "carried": "true"}


async def test_a_try_that_did_not_come_to_a_step_hands_its_result_on(tries: Tries) -> None:
    await step(tries.desk, "first", None, 1)
    await step(tries.desk, "second", None, 2)
    await step(tries.desk, "second", None, 3)
    await tries.fail()
    await tries.next()
    assert [await tries.meets("first"), await tries.meets("second")] == [1, 2]
    await step(tries.desk, "third", None, 4)
    await tries.fail()
    await tries.next()
    assert [await tries.meets(name) for name in ("first", "second", "second", "third")] == [1, 2, 3, 4]


async def test_a_turn_that_is_no_further_try_meets_nothing(tries: Tries) -> None:
    await step(tries.desk, "mail")
    await tries.fail()
    await tries.next(carries=False)
    assert await tries.meets("mail") == "run"


async def test_it_outlives_a_redis_that_was_emptied_and_is_not_taken_away_by_it(tries: Tries) -> None:
    await step(tries.desk, "mail", None, "sent")
    await tries.fail()
    for kept in ("j:", "jl:", "jn:"):
        await tries.desk.ledger.read("DEL", f"{kept}{tries.desk.turn}")
    await tries.give()
    await tries.next()
    assert await tries.meets("mail") == "sent"


async def test_a_redis_that_is_emptied_within_the_next_try_takes_nothing_away_either(tries: Tries) -> None:
    await step(tries.desk, "mail", None, "sent")
    await tries.fail()
    await tries.next()
    assert await tries.meets("mail") == "sent"
    for kept in ("j:", "jl:", "jn:"):
        await tries.desk.ledger.read("DEL", f"{kept}{tries.desk.turn}")
    await tries.desk.attempt()
    assert await tries.meets("mail") == "sent"


async def test_what_json_of_the_standard_library_alone_can_say_is_given_on(tries: Tries) -> None:
    await step(tries.desk, "name", None, "\ud800")
    await tries.fail()
    await tries.next()
    assert await tries.meets("name") == "\ud800"


async def test_large_and_many_results_come_from_the_store(tries: Tries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "MOST_BYTES", 500)
    large = "x" * (INLINE + 1)
    await step(tries.desk, "large", None, large)
    for number in range(4):
        await step(tries.desk, "some", number, "y" * 300)
    for _ in range(2):
        await tries.fail()
        await tries.next()
    assert await tries.meets("large") == large
    assert [await tries.meets("some", number) for number in range(4)] == ["y" * 300] * 4


async def test_a_result_that_is_gone_is_not_made_again(tries: Tries) -> None:
    await step(tries.desk, "large", None, "x" * (INLINE + 1))
    await tries.fail()
    await tries.desk.gateways[0].core.store.delete_prefix(f"t/acme/responses/{tries.desk.turn}/")
    await tries.next()
    said = await begin(tries.desk, "large")
    assert said.refused == "no" and said.json["error"]["code"] == "journal_lost"


async def test_telling_it_again_after_a_loss_takes_nothing_away(tries: Tries) -> None:
    await step(tries.desk, "first", None, 1)
    await tries.fail()
    await tries.next()
    assert await tries.meets("first") == 1
    await step(tries.desk, "second", None, 2)
    await tries.fail()
    for kept in ("j:", "jl:", "jn:"):
        await tries.desk.ledger.read("DEL", f"{kept}{tries.desk.turn}")
    await tries.give()  # its journal is gone, what it was given is not
    await tries.next()
    assert [await tries.meets("first"), await tries.meets("second")] == [1, 2]
