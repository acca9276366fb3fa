"""Which requests differ in readings of the clock alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from moorage_gateway.models.clocks import MOST, alike

pytestmark = pytest.mark.unit

NOW = 1_795_730_709.5
THEN = datetime.fromtimestamp(NOW, UTC)


def of(text: str, now: float = NOW, head: bytes = b"[]") -> str:
    return alike(head, text.encode(), now)


@pytest.mark.parametrize(
    "say",
    [
        lambda t: t.isoformat(),
        lambda t: t.isoformat(timespec="minutes").removesuffix("+00:00") + "Z",
        lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
        lambda t: t.strftime("%Y-%m-%d %H:%M"),
        lambda t: t.astimezone(tz=__import__("zoneinfo").ZoneInfo("Asia/Tokyo")).isoformat(),
        lambda t: f"{t.timestamp()}",
        lambda t: f"{t.timestamp():.0f}",
        lambda t: f"{t.timestamp() * 1000:.0f}",
    ],
    ids=["iso", "minutes-z", "seconds", "minutes", "offset", "float", "int", "ms"],
)
def test_a_reading_of_a_moment_ago_and_one_of_now_are_alike(say: object) -> None:
    told = [f'{{"text":"it is {say(THEN + timedelta(seconds=s))}, go"}}' for s in (-200, 0)]  # type: ignore[operator]
    assert told[0] != told[1]
    assert of(told[0]) == of(told[1], NOW + 3) != ""


@pytest.mark.parametrize(
    "text",
    [
        "nothing of the kind", "order 1795730", "card 17957307091234567", "v1.1795730709", "2026-11-26", "2026-11-26T99:99",
        "1995-11-26T10:00:00Z", "1395730709",
    ],
)  # fmt: skip
def test_what_is_no_reading_is_alike_to_nothing(text: str) -> None:
    assert of(text) == ""


def test_everything_else_counts() -> None:
    iso = THEN.isoformat()
    texts = [
        of(f"a {iso}"),
        of(f"b {iso}"),
        of(f"a {iso} {iso}"),
        of(f"a {iso} 1995-11-26T10:00:00Z"),
        of(f"a {iso}", head=b"[1]"),
    ]
    assert len(set(texts)) == len(texts) and "" not in texts


def test_a_body_that_is_too_long_is_not_looked_at() -> None:
    assert of(f"{THEN.isoformat()}{'x' * MOST}") == ""
