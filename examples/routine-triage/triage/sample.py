"""A repository for who has none at hand: three issues and two commits at first, one of each more by every further run."""

import json
from pathlib import Path

LOG = "commits.json"
FIRST = {
    "0001-crash.md": "# Import crashes on an empty file\n\nTraceback in `reader.py` when the file has no line.\n",
    "0002-docs.md": "# The README names a flag that is gone\n\n`--fast` was removed in 2.0.\n",
    "0003-lost.md": "# Rows are lost when two writers save at once\n\nData loss, seen twice a week.\n",
}
COMMITS = [
    {"id": "a1c0002", "subject": "reader: say which line is wrong"},
    {"id": "a1c0001", "subject": "first import"},
]
FURTHER = ("Search is slow with many tags", "A typing mistake in the help", "Security: a token stands in the log")


def grow(place: Path) -> None:
    """Makes it, or adds what a night brings."""
    issues = place / "issues"
    if not (place / LOG).exists():
        issues.mkdir(parents=True, exist_ok=True)
        for name, text in FIRST.items():
            (issues / name).write_text(text)
        _write(place, COMMITS)
        return
    number = len(list(issues.glob("*.md"))) + 1
    title = FURTHER[(number - len(FIRST) - 1) % len(FURTHER)]
    (issues / f"{number:04d}-new.md").write_text(f"# {title}\n\nReported at night.\n")
    log = json.loads((place / LOG).read_text())
    _write(place, [{"id": f"a1c{number:04d}", "subject": f"look into #{number}"}, *log])


def _write(place: Path, log: list[dict[str, str]]) -> None:
    fresh = place / f"{LOG}.new"
    fresh.write_text(json.dumps(log))
    fresh.replace(place / LOG)
