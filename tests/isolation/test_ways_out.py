"""Over a hundred ways out of a sandbox: by none does a byte reach a server that nobody listed, and each would without the sandbox (S2).

The table is `techniques.py`; each row's marker is looked for in every frame on the wire and in all of the machine that could hear it.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from isolation.networks import Outside, within
from isolation.techniques import HERE, MACHINE, PACKETS, PROXY, ROWS, Technique

pytestmark = pytest.mark.isolation

LACKING = (
    errno.ENOSYS,
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.ESOCKTNOSUPPORT,
    errno.EOPNOTSUPP,
    errno.ENOPROTOOPT,
    errno.ENODEV,
)
LISTED = ("tcp 11.22.33.2:80", "tcp 11.22.33.2:443", "tcp 11.22.33.2:8443")
RUN = """
def tried(row):
    number, code = row
    M = f"mark-{number}-{PHASE}-end".encode()
    try:
        return [number, str(eval(code, globals() | {"M": M}))]
    except BaseException as fault:
        return [number, f"{type(fault).__name__}: {fault}"]
with ThreadPoolExecutor(24) as pool:
    result = list(pool.map(tried, ROWS))
"""


@dataclass
class Tried:
    """What became of a row: what its code gave, and where its marker was seen."""

    gave: str = "not run"
    seen: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def tried(outside: Outside) -> dict[str, dict[str, Tried]]:
    """By phase and name: `inside`, in a real sandbox, and `beside`, the same code on the near side of the wire as its owner."""
    rows = [(number, row.code) for number, row in enumerate(ROWS, 1)]
    given = {"NEAR": f"/proc/{outside.near}/ns/net", "HOLDER": outside.near, "DROP": str(outside.drop), "ROWS": rows}
    said = {}
    for phase in ("inside", "beside"):
        begin = "".join(f"{name} = {value!r}\n" for name, value in {**given, "PHASE": phase}.items())
        code = HERE + begin + RUN
        said[phase] = outside.tell("ways-out-1", code) if phase == "inside" else beside(outside, code)
        outside.settled(phase)
    found = {phase: {row.name: Tried() for row in ROWS} for phase in said}
    for phase, answers in said.items():
        for number, gave in answers:
            found[phase][ROWS[number - 1].name].gave = gave
    for where, marker in outside.marked():
        _, number, phase, _ = marker.split("-")
        if number != "0":
            found[phase][ROWS[int(number) - 1].name].seen.append(where)
    return found


def beside(outside: Outside, code: str) -> Any:
    """Runs it in the near network without a sandbox, with a proxy that decides nothing."""
    env = os.environ | {"HTTPS_PROXY": f"http://127.0.0.1:{outside.naive}"}
    run = [*within(outside.near), sys.executable, "-c", code + "\nimport json; print(json.dumps(result))"]
    done = subprocess.run(run, check=True, stdout=subprocess.PIPE, env=env, timeout=120)
    return json.loads(done.stdout.splitlines()[-1])


def lacking(what: Tried) -> bool:
    """Whether this machine's kernel has none of what the row needs: then it proves nothing here."""
    return any(f"[Errno {number}]" in what.gave for number in LACKING)


def reached(row: Technique, what: Tried) -> list[str]:
    """Where its marker was seen and must not be."""
    return [where for where in what.seen if row.anywhere or where not in LISTED]


def test_there_are_enough_of_them() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 120
    assert min(len(PACKETS), len(PROXY)) >= 50 and len(MACHINE) >= 15
    assert sum(not row.opens for row in ROWS) >= 100, "markers that a canary hears"


def test_nearly_all_of_them_prove_something_here(tried: dict[str, dict[str, Tried]]) -> None:
    assert sum(not lacking(what) for what in tried["beside"].values()) >= 120


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_byte_gets_out(tried: dict[str, dict[str, Tried]], row: Technique) -> None:
    inside, beside = tried["inside"][row.name], tried["beside"][row.name]
    assert inside.gave != "not run" and reached(row, inside) == [], inside
    if lacking(beside):
        pytest.skip(f"this kernel has nothing for it: {beside.gave}")
    if row.opens:
        assert inside.gave != "sent" and beside.gave == "sent", (inside, beside)
    else:
        assert reached(row, beside), (
            f"the row proves nothing: its marker is not heard without a sandbox either: {beside}"
        )


def test_what_is_listed_is_reached_in_the_same_way(outside: Outside) -> None:
    """The proxy of the matrix is not simply shut."""
    code = HERE + "M = b'mark-0-listed-end'\nresult = [connect('allowed.test:8443', M), get('http://front.test/', M), "
    given = outside.tell("ways-out-1", code + "connect('front.test:443', client_hello('front.test') + M)]")
    assert all("200" in each for each in given), given
    outside.settled("after")
    seen = {where for where, marker in outside.marked() if marker == "mark-0-listed-end"}
    assert seen == set(LISTED), seen
