"""Which notes on a claim are believed: who may edit a claim must not come by another's session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moorage_api import names
from moorage_api.ledger.records import SessionIdentity
from moorage_operator import marks

pytestmark = pytest.mark.unit

PARTITION = names.partition("acme", "a", "ann", "s-1")
WHOSE = SessionIdentity("acme", "a", "ann", "s-1", PARTITION, "r1")
KEY = names.session_key("acme", PARTITION)


def claim(key: str = KEY, epoch: Any = 4, whose: SessionIdentity = WHOSE, agent: str = "a") -> dict[str, Any]:
    return {"metadata": {"labels": marks.labels(agent), "annotations": marks.noted(key, epoch, whose)}}


def test_a_note_of_ours_is_read_back() -> None:
    assert marks.bound(claim(), "acme") == (KEY, 4)
    assert marks.identity(claim()) == WHOSE


RIVAL = names.partition("rival", "a", "ann", "s-1")


@pytest.mark.parametrize(
    ("body", "tenant"),
    [
        (claim(), "rival"),
        (claim(key=names.session_key("rival", RIVAL), whose=replace(WHOSE, tenant="rival", partition=RIVAL)), "acme"),
        (claim(key=names.session_key("rival", RIVAL)), "acme"),
        (claim(whose=replace(WHOSE, user="bob")), "acme"),
        (claim(whose=replace(WHOSE, session="s-2")), "acme"),
        (claim(whose=replace(WHOSE, partition="p")), "acme"),
        (claim(agent="b"), "acme"),
        (claim(epoch="four"), "acme"),
        ({"metadata": {"labels": marks.labels("a"), "annotations": {marks.SESSION: KEY, marks.EPOCH: "4", marks.IDENTITY: "[]"}}}, "acme"),
        ({"metadata": {"labels": marks.labels("a"), "annotations": {marks.SESSION: KEY, marks.EPOCH: "4", marks.IDENTITY: "{"}}}, "acme"),
        ({"metadata": {"labels": marks.labels("a")}}, "acme"),
    ],
    ids=["tenant", "whole-rival", "rival-key", "user", "session", "partition", "agent", "epoch", "list", "spoilt", "none"],
)  # fmt: skip
def test_a_note_that_is_not_of_this_claims_agent_and_tenant_is_none(body: dict[str, Any], tenant: str) -> None:
    assert marks.bound(body, tenant) is None
