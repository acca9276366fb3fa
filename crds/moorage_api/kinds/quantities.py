"""Quantities of a manifest: CPU, bytes and durations, written as people write them.

Layer: the floor; stdlib only, pure. A manifest keeps the text (`500m`, `512Mi`, `15m`), so that what a person wrote
is what they read back; whoever needs a number calls one of the three functions here, also on the `spec` of a catalog
entry.
"""

from __future__ import annotations

import re

_BINARY = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)(Ki|Mi|Gi|Ti|Pi|k|K|M|G|T|P|)\Z")
_CPU = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(m|)\Z")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|[smhdw]))+\Z")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")

LONGEST = 10 * 366 * 86400.0


def millicores(text: str) -> int:
    """CPU in thousandths of a core: `500m` → 500, `1` → 1000, `0.25` → 250. ValueError says what is accepted."""
    found = _CPU.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not an amount of CPU; write it like 500m, 0.5 or 2")
    number, unit = found.groups()
    if unit and "." in number:
        raise ValueError(f"{text!r} is not an amount of CPU; thousandths have no fraction: 500m")
    value = int(number) if unit else round(float(number) * 1000)
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def octets(text: str) -> int:
    """Bytes: `512Mi`, `1Gi`, `500M`, `1048576`. ValueError says what is accepted."""
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a size; write it like 512Mi, 1Gi or 500M")
    number, unit = found.groups()
    value = int(float(number) * (_BINARY.get(unit) or _DECIMAL[unit]))
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def seconds(text: str) -> float:
    """Seconds: `15m`, `8h`, `30d`, `1h30m`, `250ms`. ValueError says what is accepted."""
    if _DURATION.match(text) is None:
        raise ValueError(f"{text!r} is not a duration; write it like 30s, 15m, 8h or 30d")
    value = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if value <= 0:
        raise ValueError("must be more than 0")
    if value > LONGEST:
        raise ValueError("must be at most 10 years")
    return value


def text_of(value: object) -> object:
    """A quantity as text: YAML reads `cpu: 1` and `memory: 1048576` as numbers.

    Other types are left for the model to refuse.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:g}"
    return value
