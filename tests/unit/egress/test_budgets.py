"""What a session has left past the proxy."""

from __future__ import annotations

import pytest

from moorage_gateway.egress import budgets

pytestmark = pytest.mark.isolation

BOUNDS = budgets.Bounds(connections=2, requests=3, sent=100, received=200)


def test_requests_come_back_with_the_minute_and_bytes_with_the_hour() -> None:
    made = budgets.Budgets(BOUNDS)
    account = made.account("s", 0.0)
    assert [made.ask(account, 1.0) for _ in range(3)] == [None] * 3
    spent = made.ask(account, 20.0)
    assert spent is not None and spent.wait == 40.0
    assert made.ask(account, 60.0) is None
    assert made.move(account, "sent", 100, 61.0) and not made.move(account, "sent", 1, 62.0)
    spent = made.ask(account, 100.0)
    assert spent is not None and "MOORAGE_EGRESS_SENT" in spent.message and spent.wait == 3500.0
    assert made.ask(account, 3600.0) is None and made.move(account, "sent", 1, 3600.0)


def test_who_asked_for_too_much_at_once_has_nothing_left() -> None:
    made = budgets.Budgets(BOUNDS)
    account = made.account("s", 0.0)
    assert not made.move(account, "received", 201, 0.0) and not made.move(account, "received", 1, 0.0)


def test_connections_are_given_back() -> None:
    made = budgets.Budgets(BOUNDS)
    account = made.account("s", 0.0)
    assert made.open(account) is None and made.open(account) is None and made.open(account) is not None
    made.close(account)
    assert made.open(account) is None


def test_a_session_with_a_connection_is_never_forgotten() -> None:
    made = budgets.Budgets(BOUNDS)
    held = made.account("held", 0.0)
    made.open(held)
    for n in range(budgets.KEPT + 10):
        made.account(str(n), 1.0)
    assert made.account("held", 2.0) is held


def test_each_refusal_is_told_once_an_hour_and_not_too_many() -> None:
    made = budgets.Budgets(BOUNDS)
    account = made.account("s", 0.0)
    assert made.tell(account, "a") and not made.tell(account, "a")
    assert sum(made.tell(account, str(n)) for n in range(100)) == budgets.TOLD - 1
    assert made.tell(made.account("s", 3600.0), "a")
