"""What kubectl printed, without what chance and its version decide. Pure.

Put in place of a value of the right shape: `<age>`, `<revision>`, `<time>`, `<uid>`, `<version>` (a resource version). A value of
another shape stays as it is, and is seen as a difference. Left out: blanks that only align, and `Managed Fields` and `Self Link`, which
kubectl showed up to 1.20. Addresses need no rule: the operator of the tests is given the one that it shows. What is said otherwise
elsewhere (`Words`: a pattern of a whole value → what stands for it) is put in its place first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

AGE = r"([0-9]+[smhdy])+"
TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
REVISION = r"[0-9a-f]{12}"
COLUMNS = {"AGE": (AGE, "<age>"), "REVISION": (REVISION, "<revision>")}
FIELDS = {
    "Creation Timestamp": (TIME, "<time>"),
    "Last Transition Time": (TIME, "<time>"),
    "UID": (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>"),
    "Resource Version": (r"[0-9]+", "<version>"),
    "Revision": (REVISION, "<revision>"),
    "Message": (rf"Revision {REVISION}\.", "Revision <revision>."),
}
OF_OLD = ("Managed Fields", "Self Link")
FIELD = re.compile(r"( *)([A-Z][A-Za-z ]*):(?: +(.*))?")

Words = Mapping[str, str]


def table(printed: str, words: Words | None = None) -> str:
    """What `kubectl get` printed: a column is where its head stands, and as wide as what is left in it."""
    head, *lines = printed.splitlines()
    found = [(hit[0], hit.start()) for hit in re.finditer(r"\S+", head)]
    ends = [start for _, start in found[1:]] + [max(map(len, [head, *lines]))]
    rows = [[name for name, _ in found]]
    for line in lines:
        cells = [(name, line[start:end].strip()) for (name, start), end in zip(found, ends, strict=True)]
        rows.append([_plain(COLUMNS, name, cell, words or {}) for name, cell in cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join(
        "   ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def described(printed: str, words: Words | None = None) -> str:
    """What `kubectl describe` printed: a field a line, its value one blank behind its name."""
    return "".join(f"{line}\n" for line in _fields(printed, words or {}))


def _fields(printed: str, words: Words) -> Iterator[str]:
    left_out: int | None = None  # how far a field that is left out is indented: what belongs to it is so further
    for line in printed.rstrip().splitlines():
        indent = len(line) - len(line.lstrip())
        if left_out is not None and indent > left_out:
            continue
        left_out = None
        field = FIELD.fullmatch(line.rstrip())
        if field is None:
            yield line.rstrip()
        elif field[2] in OF_OLD:
            left_out = indent
        else:
            yield f"{field[1]}{field[2]}: {_plain(FIELDS, field[2], field[3] or '', words)}".rstrip()


def _plain(rules: dict[str, tuple[str, str]], name: str, value: str, words: Words) -> str:
    value = next((there for here, there in words.items() if re.fullmatch(here, value)), value)
    shape, instead = rules.get(name, ("", ""))
    return instead if shape and re.fullmatch(shape, value) else value
