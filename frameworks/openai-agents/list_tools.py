"""The tools: a shopping list in the session's workspace. Plain functions; the framework reads their names, types and docstrings."""

import os
from pathlib import Path


def add_item(item: str, amount: int) -> str:
    """Puts `amount` of `item` on the list."""
    with _list().open("a") as file:
        file.write(f"{amount} {item}\n")
    return f"noted: {amount} {item}"


def read_list() -> str:
    """The whole list, an item a line."""
    return _list().read_text() if _list().exists() else "the list is empty"


def _list() -> Path:
    folder = Path(os.environ.get("MOORAGE_WORKSPACE", "workspace"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "list.txt"
