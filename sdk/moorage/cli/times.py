"""Instants in words: `tomorrow at 06:00 Europe/Berlin, in 14 hours`. Layer: CLI; pure."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def ahead(at: str, zone: str, now: datetime) -> str:
    """An instant to come (ISO 8601) as seen in `zone`; in UTC where this machine does not know the zone."""
    place, named = _place(zone)
    then, here = datetime.fromisoformat(at).astimezone(place), now.astimezone(place)
    clock = then.strftime("%H:%M:%S" if then.second else "%H:%M")
    return f"{_day(then, here)} at {clock} {named}, {_span((then - now).total_seconds())}"


def _place(zone: str) -> tuple[tzinfo, str]:
    try:
        return (ZoneInfo(zone), zone) if zone else (UTC, "UTC")
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        return UTC, "UTC"


def _day(then: datetime, here: datetime) -> str:
    days = (then.date() - here.date()).days
    if days in (0, 1):
        return ("today", "tomorrow")[days]
    return f"on {DAYS[then.weekday()]}" if 1 < days < 7 else f"on {then.date().isoformat()}"


def _span(seconds: float) -> str:
    if seconds < 1:
        return "now"
    for unit, size, most in (("second", 1, 90), ("minute", 60, 90), ("hour", 3600, 36)):
        if seconds < size * most:
            count = round(seconds / size)
            return f"in {count} {unit}{'' if count == 1 else 's'}"
    return f"in {round(seconds / 86_400)} days"
