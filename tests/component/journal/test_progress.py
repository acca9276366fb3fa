"""How far an attempt says that it is, at the sandbox port: kept with the turn, beside its journal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from component.journal.conftest import Desk, Said
from moorage_api.ledger.progress import ProgressLedger
from moorage_api.wire import calls as wire

pytestmark = pytest.mark.component


async def tell(desk: Desk, sandbox: str = "sb-1", **over: Any) -> Said:
    body = over.pop("body", None) or json.dumps({"text": over.pop("text", "1 of 3"), "fraction": 1 / 3}).encode()
    call = desk.call("", body=body, target=wire.PROGRESS, **over)
    return await desk.ask(call, sandbox=sandbox)


async def text(desk: Desk) -> str | None:
    found = await ProgressLedger(desk.ledger).of(desk.turn)
    return None if found is None else found.text


async def test_the_newest_is_kept_through_attempts_and_no_entry_is_made(desk: Desk) -> None:
    assert await text(desk) is None
    assert (await tell(desk)).status == 200 and (await tell(desk, text="2 of 3")).status == 200
    found = await ProgressLedger(desk.ledger).of(desk.turn)
    assert found is not None and (found.text, round(found.fraction or 0, 2)) == ("2 of 3", 0.33) and found.at > 0
    await desk.attempt()
    assert await text(desk) == "2 of 3" and await desk.journal.entries(desk.turn) == []


async def test_what_is_no_more_the_turns_attempt_or_sandbox_says_nothing(desk: Desk) -> None:
    old = desk.fence
    await desk.attempt()
    for said in (
        await tell(desk, begun=old),
        await tell(desk, sandbox="sb-2"),
        await tell(desk, turn="caresp_other"),
        await tell(desk, session="acme:fedcba9876543210"),
    ):
        assert said.refused == "fenced"
    assert await text(desk) is None


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"text": "a", "fraction": 2}', b'{"text": "%b"}' % (b"x" * 401), b'{"text": "a", "b": 1}']
)
async def test_anything_else_is_refused(desk: Desk, body: bytes) -> None:
    said = await tell(desk, body=body)
    assert said.status == 400 and said.refused == "no" and await text(desk) is None
