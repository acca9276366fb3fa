"""What programs print, where people are shown it: in an error, a status, an answer. Layer: the floor, pure."""

from __future__ import annotations


def shown(text: str) -> str:
    """The same without what steers a terminal; lines stay lines."""
    return "".join(letter if letter == "\n" or letter.isprintable() else " " for letter in text)
