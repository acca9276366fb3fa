"""One issue read, and all of them in a few lines. Words decide here; a model could (docs/models.md)."""

import threading
from pathlib import Path

URGENT = ("crash", "traceback", "data loss", "lost", "security", "token")
LATER = ("docs", "readme", "typing mistake", "help")


def read(place: str, path: str, *, pace: float = 0.0) -> dict[str, str]:
    """Title and urgency of an issue. `pace`: seconds that it takes besides, for whoever wants to watch a run die."""
    text = (Path(place) / path).read_text()
    threading.Event().wait(pace)
    title = text.partition("\n")[0].lstrip("# ").strip() or path
    return {"path": path, "title": title, "urgency": urgency(text)}


def urgency(text: str) -> str:
    """urgent, normal or later."""
    low = text.lower()
    if any(word in low for word in URGENT):
        return "urgent"
    return "later" if any(word in low for word in LATER) else "normal"


def summary(notes: list[dict[str, str]], commits: list[dict[str, str]]) -> str:
    """Markdown: what is urgent by name, the rest counted."""
    if not notes and not commits:
        return "Nothing is new."
    urgent = [note for note in notes if note["urgency"] == "urgent"]
    lines = [f"{len(notes)} new issues, {len(urgent)} of them urgent; {len(commits)} commits."]
    lines += [f"- urgent: {note['title']} ({note['path']})" for note in urgent]
    lines += [f"- {one['id']} {one['subject']}" for one in commits[:10]]
    return "\n".join(lines)
