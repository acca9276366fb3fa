"""Cron expressions in all time zones against a walk minute by minute over the clock on the wall; and what is no expression."""

from __future__ import annotations

import os
import random
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from moorage_api import schedules

pytestmark = [pytest.mark.unit, pytest.mark.routines, pytest.mark.timeout(1800)]

TRIPLES = 100_000 if os.environ.get("MOORAGE_LONG") == "1" else 600
SEED = 20783
MINUTE = timedelta(minutes=1)
SIGHT = timedelta(days=3)
"""How far the walk goes: whatever is due later must be said to be later."""
ZONES = sorted(zoneinfo.available_timezones() - {"localtime", "Factory"})
DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def field(rng: random.Random, number: int) -> str:
    """One field as people write them."""
    low, high = FIELDS[number]
    names = {3: MONTHS, 4: DAYS}.get(number)

    def one() -> str:
        value = rng.randint(low, high)
        if names is not None and value < len(names) + low and rng.random() < 0.3:
            return names[value - low]
        return str(value)

    def span() -> str:
        first, last = sorted((rng.randint(low, high), rng.randint(low, high)))
        return f"{first}-{last}" + (f"/{rng.randint(1, 7)}" if rng.random() < 0.4 else "")

    shape = rng.random()
    if shape < (0.35 if number < 2 else 0.7):
        return "*"
    if shape < 0.75:
        return f"*/{rng.randint(1, max(2, high // 2))}"
    return ",".join(rng.choice((one, one, span))() for _ in range(rng.randint(1, 3)))


def values(text: str, number: int) -> set[int]:
    """A field's values, read anew."""
    low, high = FIELDS[number]
    found: set[int] = set()
    for word in text.split(","):
        body, _, step = word.partition("/")
        first, dash, last = body.partition("-")
        if body == "*":
            begin, end = low, high
        else:
            begin = named(first, number)
            end = named(last, number) if dash else (high if step else begin)
        found |= set(range(begin, end + 1, int(step or 1)))
    return {0 if number == 4 and value == 7 else value for value in found}


def named(word: str, number: int) -> int:
    if word in MONTHS and number == 3:
        return MONTHS.index(word) + 1
    return DAYS.index(word) if word in DAYS else int(word)


class Wall:
    """An expression as the sign on the wall reads it."""

    def __init__(self, expression: str) -> None:
        parts = expression.split()
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            values(part, number) for number, part in enumerate(parts)
        )
        self.both = parts[2].startswith("*") or parts[4].startswith("*")
        self.real = parts[0].startswith("*") or parts[1].startswith("*")

    def says(self, at: datetime) -> bool:
        if at.minute not in self.minutes or at.hour not in self.hours or at.month not in self.months:
            return False
        day, weekday = at.day in self.days, at.isoweekday() % 7 in self.weekdays
        return (day and weekday) if self.both else (day or weekday)

    def due(self, begin: datetime, end: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Every due minute of (begin, end]."""
        at = begin.replace(second=0, microsecond=0) - timedelta(days=3)
        before = local(at, zone)
        shown = before
        while at <= end:
            now = local(at, zone)
            if self.real:
                hit = self.says(now)
            else:  # what no clock has shown yet, up to now
                hit = False
                while shown < now:
                    shown += MINUTE
                    hit = self.says(shown) or hit
            if hit and at > begin:
                yield at
            at += MINUTE


def local(at: datetime, zone: tzinfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)


def instant(rng: random.Random, zone: tzinfo) -> datetime:
    """Somewhen; every second time within two days of a change of the clocks, where the zone has one then."""
    at = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(47 * 365 * 86_400))
    if rng.random() < 0.5:
        for _ in range(400):
            later = at + timedelta(days=1)
            if later.astimezone(zone).utcoffset() != at.astimezone(zone).utcoffset():
                return at + timedelta(seconds=rng.randrange(-86_400, 2 * 86_400))
            at = later
    return at


def test_every_expression_in_every_zone_is_due_when_the_wall_says_so() -> None:
    rng = random.Random(SEED)
    for number in range(TRIPLES):
        expression = " ".join(field(rng, each) for each in range(5))
        name = rng.choice(ZONES)
        zone = schedules.zone_of(name)
        at = instant(rng, zone)
        try:
            found = schedules.cron(expression, name).next(int(at.timestamp()) * 1000)
        except ValueError as why:
            assert "never comes" in str(why) or "day of a month" in str(why), (expression, why)
            continue
        wanted = next(Wall(expression).due(at, at + SIGHT, zone), None)
        where = f"{SEED}/{number}: {expression!r} in {name} after {at.isoformat()}"
        assert found is not None, where
        told = datetime.fromtimestamp(found / 1000, UTC)
        if wanted is None:
            assert told > at + SIGHT, f"{where}: {told}"
        else:
            assert told == wanted, f"{where}: {told} instead of {wanted}"


@pytest.mark.parametrize(
    ("expression", "zone", "after", "due"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:40+01:00", ["2026-10-26T02:30+01:00"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-25T02:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-25T02:00+01:00"]),
        ("*/10 2 * * *", "Australia/Lord_Howe", "2026-04-05T01:55+11:00", ["2026-04-05T02:00+10:30", "2026-04-05T02:10+10:30"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00+00:00", ["2104-02-29T00:00+00:00"]),
        ("0 6 * * 1-5", "Asia/Tokyo", "2026-11-27T06:00+09:00", ["2026-11-30T06:00+09:00"]),
        ("0 10 * * *", "Pacific/Apia", "2011-12-29T12:00-10:00", ["2011-12-31T00:00+14:00", "2011-12-31T10:00+14:00"]),
        ("0 17-17/2 * * FRI-5/3", "UTC", "2026-11-27T17:00+00:00", ["2026-12-04T17:00+00:00"]),
        ("@hourly", "Asia/Kolkata", "2026-11-27T06:10+05:30", ["2026-11-27T07:00+05:30"]),
        ("0 9 * * 1#2", "UTC", "2026-11-01T00:00+00:00", ["2026-11-09T09:00+00:00"]),
        ("0 9 L * *", "UTC", "2026-02-01T00:00+00:00", ["2026-02-28T09:00+00:00"]),
    ],
)  # fmt: skip
def test_due_where_clocks_are_changed_and_months_end(expression: str, zone: str, after: str, due: list[str]) -> None:
    schedule, at = schedules.cron(expression, zone), milliseconds(after)
    for wanted in due:
        found = schedule.next(at)
        assert found == milliseconds(wanted), f"{found} instead of {wanted}"
        at = found


def milliseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1000


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("61 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day of a month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day of the week"),
        ("0 0 30 2 *", "day"),
        ("* * * *", "4 fields"),
        ("* * * * * *", "6 fields"),
        ("@sometimes", "@daily"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("", "0 fields"),
        ("* " * 200, "longer"),
    ],
)
def test_what_is_no_expression_is_refused_in_words(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        schedules.cron(expression)


@pytest.mark.parametrize(
    "zone", ["Europe/Nowhere", "../etc/passwd", "", "/UTC", "Europe", "europe/berlin\n", "A" * 300]
)
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match="not a time zone"):
        schedules.cron("0 6 * * *", zone)


def test_periods_and_single_instants() -> None:
    assert schedules.Every(900_000).next(0) == 900_000
    assert schedules.Every(900_000).next(899_999) == 900_000
    assert schedules.Every(900_000).next(900_000) == 1_800_000
    assert schedules.At(5).next(4) == 5 and schedules.At(5).next(5) is None
