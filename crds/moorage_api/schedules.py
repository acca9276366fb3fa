"""When a routine is due: cron expressions in a time zone, periods, single instants. Layer: the floor; pure, `after` is an argument.

Instants are milliseconds since 1970, UTC. Five cron fields as Debian's cron reads them, with names, steps, `L` and `#`, and macros like
`@daily`. Where clocks are changed:

    `*` leads the minutes or the hours   the expression follows real time: what the clocks skip is skipped, what they repeat is repeated
    neither                              each local time counts once: one that is skipped is due when the clocks have been changed, one
                                         that is repeated is due the first time
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol
from zoneinfo import ZoneInfo

MINUTE_MS = 60_000
LONGEST = 256
"""Characters of an expression."""

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_LOOK = timedelta(hours=6)
"""No zone changes its clocks twice within this."""
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}\Z")


class Schedule(Protocol):
    """When something is due."""

    def next(self, after: int) -> int | None:
        """The first due instant later than `after`; None when there is none any more."""
        ...


@dataclass(frozen=True)
class At:
    """Once."""

    instant: int

    def next(self, after: int) -> int | None:
        """See `Schedule`."""
        return self.instant if self.instant > after else None


@dataclass(frozen=True)
class Every:
    """At every whole multiple of `period` (ms) since 1970: whoever computes it, whenever it was begun, gets the same instants."""

    period: int

    def next(self, after: int) -> int | None:
        """See `Schedule`."""
        return (after // self.period + 1) * self.period


@dataclass(frozen=True)
class Cron:
    """`expression` is five fields in capitals, as `cron` gives them."""

    expression: str
    zone: tzinfo

    def next(self, after: int) -> int | None:
        """See `Schedule`."""
        start = datetime.fromtimestamp(after // 1000, UTC)
        minutes, hours = self.expression.split()[:2]
        found = self._real(start) if minutes.startswith("*") or hours.startswith("*") else self._local(start)
        return None if found is None else int(found.timestamp()) * 1000

    def _real(self, after: datetime) -> datetime | None:
        """Minute by minute of real time, in stretches in which the clocks stay as they are."""
        start = after + timedelta(seconds=1)
        while True:
            offset = _offset(start, self.zone)
            naive = next(self._naive((start + offset).replace(tzinfo=None) - timedelta(seconds=1)), None)
            if naive is None:
                return None
            found = naive.replace(tzinfo=UTC) - offset
            change = _change(start, found, self.zone)
            if change is None:
                return found
            start = change

    def _local(self, after: datetime) -> datetime | None:
        """Local time by local time, each once."""
        start = (after + _offset(after, self.zone)).replace(tzinfo=None)
        # Before it, too: what the clocks skipped is due after its own time; islands that changed sides of the world skipped a day.
        for naive in self._naive(start - timedelta(days=2)):
            found = naive.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
            if (found + _offset(found, self.zone)).replace(tzinfo=None) != naive:
                found = _skipped(naive, self.zone)
            if found > after:
                return found
        return None

    def _naive(self, after: datetime) -> Iterator[datetime]:
        """Matching times of a clock that is never changed, later than `after`."""
        from cronsim import CronSim  # not at hand in agents' environments, where no schedule is computed

        return iter(CronSim(self.expression, after))


def cron(expression: str, zone: str = "UTC") -> Cron:
    """The schedule of an expression. Raises ValueError with what is wrong."""
    from cronsim import CronSim, CronSimError

    if len(expression) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    if expression.startswith("@") and expression.lower() not in MACROS:
        raise ValueError(f"{expression[:40]!r} is not one of {', '.join(MACROS)}")
    text = " ".join(MACROS.get(expression.lower(), expression).upper().split())
    if len(text.split()) != 5:
        raise ValueError(
            f"{expression[:60]!r} has {len(text.split())} fields, not five: minute, hour, day of the month, month, day of the week, like "
            "0 6 * * 1-5"
        )
    text = _SAME.sub(_once, text)
    found = Cron(text, zone_of(zone))
    try:
        CronSim(text, datetime(2000, 1, 1))
    except CronSimError as fault:
        raise ValueError(f"{expression[:60]!r}: {_WRONG.get(str(fault), str(fault))}") from None
    if found.next(0) is None:
        raise ValueError(f"{expression[:60]!r} names a day that never comes")
    return found


_SAME = re.compile(r"\b([0-9A-Z]+)-([0-9A-Z]+)/[1-9][0-9]*")
_NAMED = {name: str(number) for number, name in enumerate("SUN MON TUE WED THU FRI SAT".split())} | {
    name: str(number) for number, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), start=1)
}


def _once(found: re.Match[str]) -> str:
    """A range of one value, whatever its step, is that value: cronsim reads `17-17/2` as `17/2`, which goes on to the end."""
    first, last = (_NAMED.get(word, word.lstrip("0") or "0") for word in found.groups())
    return found[1] if first == last else found[0]


_WRONG = {
    "Bad minute": "the first field is no minute (0 to 59, *, lists, ranges, steps)",
    "Bad hour": "the second field is no hour (0 to 23, *, lists, ranges, steps)",
    "Bad day-of-month": "the third field is no day of a month that has it (1 to 31, L, *, lists, ranges, steps)",
    "Bad month": "the fourth field is no month (1 to 12, JAN to DEC, *, lists, ranges, steps)",
    "Bad day-of-week": "the fifth field is no day of the week (0 to 7, SUN to SAT, 5L, 1#2, *, lists, ranges, steps)",
}


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name. Raises ValueError."""
    if name == "UTC":
        return UTC
    try:
        if _ZONE.match(name) is None:
            raise ValueError
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ValueError(f"{name[:60]!r} is not a time zone; write it like Europe/Berlin or UTC") from None


def _offset(at: datetime, zone: tzinfo) -> timedelta:
    found = at.astimezone(zone).utcoffset()
    assert found is not None
    return found


def _change(after: datetime, until: datetime, zone: tzinfo) -> datetime | None:
    """The first instant in (after, until] from which the clocks go otherwise, to the second."""
    was, at = _offset(after, zone), after
    while at < until:
        step = min(at + _LOOK, until)
        if _offset(step, zone) != was:
            while step - at > timedelta(seconds=1):
                middle = at + timedelta(seconds=int((step - at).total_seconds()) // 2)
                at, step = (middle, step) if _offset(middle, zone) == was else (at, middle)
            return step
        at = step
    return None


def _skipped(naive: datetime, zone: tzinfo) -> datetime:
    """When the clocks have been changed over a local time that there is not: between it by the clocks after and before."""
    found = _change(
        naive.replace(tzinfo=zone, fold=1).astimezone(UTC), naive.replace(tzinfo=zone, fold=0).astimezone(UTC), zone
    )
    assert found is not None
    return found
