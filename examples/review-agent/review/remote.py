"""Two revisions of a repository that the tools have, read a page of files at a time; the review is attached to the newer one.

The sandbox needs neither git nor the network for it. `workshop/` beside this package is a server with such tools.
"""

from pathlib import Path
from typing import Any

from . import archives, errors, model, repositories
from .budget import Budget
from .helpers import ToolLicences, Tools
from .snapshots import Pair, Snapshot

MALFORMED = "The tools answered with something that is not what was asked for."


def compare(tools: Tools, name: str, revisions: tuple[str, str], scratch: Path, budget: Budget) -> Pair:
    """Raises `NotFound`, `Refused`, `Unreachable`, `Hostile`, `TooLarge`."""
    for revision in revisions:
        if not repositories.REVISION.fullmatch(revision) or ".." in revision:
            raise errors.NotFound(f"`{revision[:60]}` is not the name of a revision.")
    commits = [_commit(tools, name, revision, budget) for revision in revisions]
    old, new = (
        _snapshot(tools, name, model.Side(revision, f"commit `{commit[:12]}`"), commit, scratch / side, budget)
        for revision, commit, side in zip(revisions, commits, ("old", "new"), strict=True)
    )
    return Pair(f"{name} {revisions[0]}..{revisions[1]}", old, new, ToolLicences(tools), commit=commits[1])


def attach(tools: Tools, name: str, commit: str, text: str, budget: Budget) -> str:
    """Attaches a review to the commit; the line that says how it went. A note that may be there already is not written again."""
    try:
        found = tools.call("git_note", {"repository": name, "commit": commit, "text": text}, budget)
    except errors.Refused as fault:
        return f"This review is perhaps not attached to `{commit[:12]}`: {fault}\n"
    number = found.get("reviews") if isinstance(found, dict) else None
    if not isinstance(number, int):
        raise errors.Refused(MALFORMED)
    return f"This review is attached to `{commit[:12]}`, as review {number} of it.\n"


def _commit(tools: Tools, name: str, revision: str, budget: Budget) -> str:
    found = tools.call("git_commit", {"repository": name, "revision": revision}, budget)
    commit = found.get("commit") if isinstance(found, dict) else None
    if not isinstance(commit, str) or not repositories.OBJECT.fullmatch(commit):
        raise errors.Refused(MALFORMED)
    return commit


def _snapshot(tools: Tools, name: str, side: model.Side, commit: str, folder: Path, budget: Budget) -> Snapshot:
    root = folder / "tree"
    root.mkdir(parents=True)
    first: int | None = 0
    files = total = oversized = 0
    while first is not None:
        page = tools.call("git_files", {"repository": name, "commit": commit, "first": first}, budget)
        listed, following, oversized = _page(page, first)
        for path, text in listed:
            content = text.encode("utf-8", "surrogatepass")
            files, total = files + 1, total + len(content)
            if files > budget.limits.files or total > budget.limits.unpacked_bytes:
                raise errors.TooLarge(f"The revision holds more source than a review reads ({files} files).")
            target = root / archives.safe_path(path, "The repository")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        first = following
    return repositories.of_folder(root, side, repositories.left_out(oversized))


def _page(page: Any, first: int) -> tuple[list[tuple[str, str]], int | None, int]:
    """Paths and texts, where the next page begins, how many files are too large. Raises `Refused`."""
    try:
        listed = [(str(each["path"]), str(each["text"])) for each in page["files"]]
        following, oversized = page["next"], int(page["oversized"])
    except (TypeError, KeyError, ValueError) as fault:
        raise errors.Refused(MALFORMED) from fault
    if following is not None and (not isinstance(following, int) or following <= first):
        raise errors.Refused(MALFORMED)
    return listed, following, oversized
