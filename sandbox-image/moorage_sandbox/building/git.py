"""The files of one commit of a repository: `python -m moorage_sandbox.building.git URL REF PATH TARGET`. Layer: I/O rim.

Speaks the protocol itself: no hooks, filters, attributes or configuration of a repository take part, and nothing of it but the files of
that one folder is ever written. Prints the commit on its last line. The proxy is that of the environment.

Exit 0; with a sentence on stderr 3 when there is nothing to be had, and `LOST` when the server could not be asked.
"""

from __future__ import annotations

import re
import stat
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dulwich.client import get_transport_and_path
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.objects import Commit, ObjectID, Tag, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo
from urllib3.exceptions import HTTPError

from moorage_api.built import FAULT
from moorage_api.unpacking import Limits

_SHA = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_REFUSED, _AWAY = re.compile(r"\b403\b"), re.compile(r"\b50[234]\b")
_BROKEN = (HTTPError, OSError, HangupException)
_SUBMODULE = 0o160000
TAGS_OF_TAGS = 8
LOST = 4


class NotHad(Exception):
    """The commit or its files cannot be had; the message says why."""


class Unasked(Exception):
    """The server does not answer, or not to the end; the message says how."""


def wanted(ref: str, refs: Mapping[Ref, ObjectID]) -> ObjectID:
    """What a ref names at a server that shows `refs`, by git's own order. Raises NotHad."""
    if _SHA.match(ref):
        return ObjectID(ref.encode())
    for place in ("{}", "refs/{}", "refs/tags/{}", "refs/heads/{}"):
        found = refs.get(Ref(place.format(ref).encode()))
        if found is not None:
            return found
    short = re.fullmatch("[0-9a-f]{4,39}", ref) is not None
    raise NotHad(f"it has no branch or tag {ref}" + ("; a commit is named by all of its digits" if short else ""))


def fetch(url: str, ref: str, path: str, target: Path, *, limits: Limits) -> str:
    """Writes the folder `path` at `ref` to `target`; the commit in hex. Raises NotHad, Unasked."""
    with tempfile.TemporaryDirectory(prefix="repository-") as folder:
        repo = Repo.init_bare(folder)
        try:
            commit = _commit(repo, _fetched(repo, url, ref))
            tree = _folder(repo, commit, path)
            for entry in repo.object_store.iter_tree_contents(tree):
                _check(entry.path)
            _write(repo, tree, target, limits)
        finally:
            repo.close()
    return commit.id.decode()


def _fetched(repo: Repo, url: str, ref: str) -> ObjectID:
    chosen: list[ObjectID] = []

    def choose(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        chosen[:] = [wanted(ref, refs)]
        return list(chosen)

    try:
        client, place = get_transport_and_path(url)
        client.fetch(place, repo, determine_wants=choose, depth=1)
    except NotGitRepository:
        raise NotHad("there is no repository at that address, or it is not public") from None
    except (GitProtocolError, HTTPError, OSError, ValueError) as fault:
        said = f"{type(fault).__name__}: {fault}"
        if _REFUSED.search(said):  # the proxy's refusal, which a client tells as a connection that failed
            said += "; a host with a private address has to be one of the platform's builds.hosts"
        elif any(isinstance(one, _BROKEN) for one in (fault, fault.__cause__)) or _AWAY.search(said):
            raise Unasked(said) from fault
        raise NotHad(said) from fault
    return chosen[0]


def _commit(repo: Repo, name: ObjectID) -> Commit:
    found: Any = _object(repo, name)
    for _ in range(TAGS_OF_TAGS):
        if not isinstance(found, Tag):
            break
        found = _object(repo, found.object[1])
    if not isinstance(found, Commit):
        raise NotHad("the ref names no commit")
    return found


def _folder(repo: Repo, commit: Commit, path: str) -> ObjectID:
    here: ObjectID = commit.tree
    for part in [part for part in path.split("/") if part not in ("", ".")]:
        tree = _object(repo, here)
        entry = next((e for e in tree.items() if e.path == part.encode()), None) if isinstance(tree, Tree) else None
        if entry is None or not stat.S_ISDIR(entry.mode):
            raise NotHad(f"there is no folder {path} at {commit.id.decode()[:12]}")
        here = entry.sha
    return here


def _object(repo: Repo, name: ObjectID) -> Any:
    try:
        return repo[name]
    except KeyError:
        raise NotHad(f"the server did not send {name.decode()[:12]}") from None


def _check(name: bytes) -> None:
    """A tree is whatever its author wrote: a name must stay where it is."""
    parts = name.split(b"/")
    if any(part in (b"", b".", b"..") or b"\0" in part or part.lower() == b".git" for part in parts):
        raise NotHad(f"the repository has a file named {name[:200]!r}")


def _write(repo: Repo, tree: ObjectID, target: Path, limits: Limits) -> None:
    files = octets = 0
    for entry in repo.object_store.iter_tree_contents(tree):
        if entry.mode == _SUBMODULE:
            sys.stdout.write(f"left out: the submodule {entry.path.decode(errors='replace')}\n")
            continue
        data = _object(repo, entry.sha).as_raw_string()
        files, octets = files + 1, octets + len(data)
        if files > limits.files or octets > limits.octets:
            raise NotHad(f"the folder has more than {limits.files} files or {limits.octets} bytes")
        try:
            place = target / entry.path.decode()
        except UnicodeDecodeError:
            raise NotHad(f"{entry.path[:200]!r} is no UTF-8 name") from None
        place.parent.mkdir(parents=True, exist_ok=True)
        # A link becomes a file that holds where it led to: what it means elsewhere is nobody's to decide.
        place.write_bytes(data)
        place.chmod(0o755 if entry.mode & stat.S_IXUSR and stat.S_ISREG(entry.mode) else 0o644)
    if files == 0:
        raise NotHad("the folder is empty")


def main(arguments: list[str], say: Callable[[str], object]) -> int:
    """The command; the exit status."""
    url, ref, path, target = arguments
    try:
        commit = fetch(url, ref, path, Path(target), limits=Limits())
    except NotHad as why:
        say(f"{why}\n")
        return FAULT
    except Unasked as why:
        say(f"{why}\n")
        return LOST
    sys.stdout.write(f"{commit}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stderr.write))
