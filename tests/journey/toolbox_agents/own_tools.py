"""Functions as tools that tell in the session's workspace what was done."""

import os
import time


def written(name: str, line: str) -> int:
    """How many lines a file has with this one."""
    with open(f"{os.environ['MOORAGE_WORKSPACE']}/{name}", "a+") as file:
        file.write(f"{line}\n")
        file.seek(0)
        return len(file.readlines())


def note(text: str) -> str:
    """Notes a text."""
    written("notes.txt", text)
    return f"noted {text}"


def hang(text: str) -> str:
    """Is killed in the middle, the first time."""
    if written("hung.txt", text) == 1:
        time.sleep(60)
    return "ended"
