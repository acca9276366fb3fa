"""What the tools do: repositories by name, read as the review reads them, and notes. One call at a time."""

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from review import errors
from review.budget import Budget
from review.licences import Licences
from review.repositories import OBJECT, REVISION, Git, commit_of, contents, listed

PAGE_BYTES = 256 * 1024
"""Of one answer of `files`; a larger file is a page of its own."""
NOTES = "review"
LARGEST_NOTE = 1024 * 1024
TITLE = "# Review of "
_WRITER = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Review"), ("EMAIL", "review@example.invalid"))
}


class Shelf:
    """Git repositories under the names that agents call them by, and where licences are looked up."""

    def __init__(self, repositories: Mapping[str, Path], git: Git, licences: Licences) -> None:
        self._repositories = repositories
        self._git = git
        self._licences = licences
        self._one = threading.Lock()

    def commit(self, repository: str, revision: str) -> dict[str, Any]:
        """The hash that a revision stands for. Raises `ReviewError`, as all of these."""
        if not REVISION.fullmatch(revision) or ".." in revision:
            raise errors.NotFound(f"`{revision[:60]}` is not the name of a revision.")
        with self._one:
            return {"commit": commit_of(self._git, self._path(repository), revision, Budget.start())}

    def files(self, repository: str, commit: str, first: int) -> dict[str, Any]:
        """A page of a commit's source files from number `first` on; `next` begins the following one, None is the end.

        `oversized`: how many files are left out as too large. What is no UTF-8 is read with its other bytes replaced.
        """
        budget = Budget.start()
        with self._one:
            path = self._path(repository)
            entries, oversized = listed(self._git, path, _hash(commit), budget)
            end, size = first, 0
            while end < len(entries) and (end == first or size + entries[end].size <= PAGE_BYTES):
                size += entries[end].size
                end += 1
            found = contents(self._git, path, entries[first:end], budget)
            files = [{"path": entry.path, "text": content.decode("utf-8", "replace")} for entry, content in found]
        return {"files": files, "next": end if end < len(entries) else None, "oversized": oversized}

    def note(self, repository: str, commit: str, text: str) -> dict[str, Any]:
        """Appends a text to the commit's note in `refs/notes/review`; how many reviews are there now. Done twice, it is there twice."""
        if len(text) > LARGEST_NOTE:
            raise errors.TooLarge(f"A note is no longer than {LARGEST_NOTE} characters.")
        budget = Budget.start()
        with self._one:
            where = ("-C", str(self._path(repository)), "notes", f"--ref={NOTES}")
            limit = budget.limits.clone_bytes
            file = self._git.scratch / "note"
            file.write_text(text)
            appended = (*where, "append", "-F", str(file), _hash(commit))
            done, _ = self._git(*appended, budget=budget, limit=limit, extra=_WRITER)
            if done.code != 0:
                raise errors.NotFound("git did not take the note.")
            _, output = self._git(*where, "show", commit, budget=budget, limit=limit)
            whole = output.read_text("utf-8", "replace").splitlines()
        return {"reviews": sum(1 for line in whole if line.startswith(TITLE))}

    def licence(self, name: str, requirement: str) -> dict[str, Any]:
        """The licence of the newest release of a package that the requirement allows; None where it does not say."""
        with self._one:
            return {"licence": self._licences.of(name, requirement, Budget.start())}

    def _path(self, repository: str) -> Path:
        found = self._repositories.get(repository)
        if found is None:
            named = ", ".join(sorted(self._repositories)) or "none"
            raise errors.NotFound(f"There is no repository `{repository[:60]}`; there are: {named}.")
        return found


def found_in(folder: Path) -> dict[str, Path]:
    """The repositories that lie in a folder, by their folders' names without `.git`."""
    inside = [path for path in sorted(folder.iterdir()) if (path / ".git").exists() or (path / "HEAD").is_file()]
    return {path.name.removesuffix(".git"): path for path in inside}


def binary() -> str:
    """The path of git. Raises `NotFound`."""
    found = shutil.which("git")
    if found is None:
        raise errors.NotFound("There is no git on this machine; the tools need it.")
    return found


def _hash(commit: str) -> str:
    if not OBJECT.fullmatch(commit):
        raise errors.NotFound(f"`{commit[:60]}` is not the full hash of a commit; git_commit gives it.")
    return commit
