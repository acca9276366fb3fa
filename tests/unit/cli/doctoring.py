"""Answers that the doctor gets, and what it is to say of them."""

from __future__ import annotations

import json

from moorage.cli.doctor.asked import Answer
from moorage.cli.doctor.findings import Finding

FORBIDDEN = Answer("forbidden", why="no")
ABSENT = Answer("absent", why="no")
LOST = Answer("refused", why="the connection broke")


def said(value: object) -> Answer:
    return Answer("answered", json.dumps(value))


def items(*values: object) -> Answer:
    return said({"kind": "List", "items": values})


def told(found: Finding, level: str, *words: str) -> None:
    """Its level, and words of what it says or what mends it; what is wrong or unseen names a next step."""
    whole = "\n".join((found.says, *found.mend))
    assert found.level == level, whole
    assert [word for word in words if word not in whole] == [], whole
    assert found.mend or level == "ok"
