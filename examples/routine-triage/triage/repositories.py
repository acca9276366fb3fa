"""A repository with an `issues/` folder: one behind a URL by git, or a sample that is made here and grows by each run."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from . import sample

GIT_SECONDS = 120
MOST_COMMITS = 100
FORMAT = "--pretty=format:%h%x09%s"


def fetch(workspace: str | Path, url: str) -> str:
    """The folder of the repository as it is now. Raises RuntimeError with git's own words."""
    place = Path(workspace) / "repository"
    if not url:
        sample.grow(place)
    elif (place / ".git").is_dir():
        git("-C", str(place), "pull", "--ff-only", "--quiet")
    else:
        fresh = place.with_name("repository.new")  # what a killed clone left is no repository
        shutil.rmtree(fresh, ignore_errors=True)
        git("clone", "--quiet", url, str(fresh))
        fresh.rename(place)
    return str(place)


def news(place: str, known: dict[str, Any]) -> dict[str, Any]:
    """Issues (paths) that no run has seen, and commits since the newest that one has; the newest commit first."""
    folder = Path(place)
    issues = sorted(f"issues/{path.name}" for path in (folder / "issues").glob("*.md"))
    commits = _log(folder)
    ids = [one["id"] for one in commits]
    new = commits[: ids.index(known["commit"])] if known["commit"] in ids else commits
    return {"issues": [path for path in issues if path not in known["issues"]], "commits": new}


def _log(folder: Path) -> list[dict[str, str]]:
    if not (folder / ".git").is_dir():
        return list(json.loads((folder / sample.LOG).read_text()))
    lines = git("-C", str(folder), "log", f"-{MOST_COMMITS}", FORMAT).splitlines()
    return [{"id": line.partition("\t")[0], "subject": line.partition("\t")[2]} for line in lines]


def git(*words: str) -> str:
    """What git printed. Raises RuntimeError."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except FileNotFoundError:
        raise RuntimeError("TRIAGE_REPOSITORY needs git, and this image has none") from None
    if done.returncode:
        raise RuntimeError(f"git {words[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout
