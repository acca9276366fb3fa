"""Two revisions of a git repository, local or fetched, read as objects: nothing is checked out and no filter or hook runs.

A repository's own configuration can name programs (hooks, filters, ssh commands, fsmonitor). So the working tree is never touched,
every transport but the needed one is forbidden, and the content is taken with `ls-tree` and `cat-file`, which run none of them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import archives, dependencies, errors, layout, model, processes
from .budget import Budget
from .licences import Licences
from .snapshots import Pair, Snapshot

REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./@{}^~+-]{0,199}")
OBJECT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
KEPT_VARIABLES = (
    "http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY "
    "SSL_CERT_FILE SSL_CERT_DIR GIT_SSL_CAINFO CURL_CA_BUNDLE PATH"
).split()
OPTIONS = (
    "--no-pager", "--no-optional-locks", "--no-replace-objects",
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "credential.helper=",
    "-c", "fetch.unpackLimit=1", "-c", "gc.auto=0", "-c", "fetch.fsckObjects=false",
    "-c", "http.lowSpeedLimit=1", "-c", "http.lowSpeedTime=20", "-c", "maintenance.auto=false",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One file of a revision that a review reads: `object` is its blob, `size` in bytes."""

    path: str
    object: str
    size: int


class Git:
    """The git binary with a scratch folder of its own. `protocols` is what a fetch may use."""

    def __init__(
        self, binary: str, environ: Mapping[str, str], scratch: Path, protocols: tuple[str, ...] = ("https", "http")
    ) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        home = scratch / "home"
        home.mkdir(exist_ok=True)
        # Mounted repositories belong to another user; only the user's own file may say that this is fine.
        (home / ".gitconfig").write_text("[safe]\n\tdirectory = *\n")
        self._binary = binary
        self._scratch = scratch
        self._protocols = ":".join(protocols)
        kept = {name: environ[name] for name in KEPT_VARIABLES if name in environ}
        ca = next((environ[k] for k in ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") if environ.get(k)), "")
        self._environment = kept | {
            "HOME": str(home),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "SSH_ASKPASS": "/bin/false",
            "GIT_SSH_COMMAND": "/bin/false",
            **({"GIT_SSL_CAINFO": ca} if ca else {}),
        }

    def __call__(
        self,
        *arguments: str,
        budget: Budget,
        limit: int,
        remote: bool = False,
        stdin: Path | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> tuple[processes.Outcome, Path]:
        """Run one command; the outcome, and the file with its output."""
        output = self._scratch / "stdout"
        # No protocol at all for reading: a partial clone would otherwise fetch what is missing, by its own configuration.
        allowed = {"GIT_ALLOW_PROTOCOL": self._protocols if remote else "none"}
        job = processes.Job(
            command=(self._binary, *OPTIONS, *arguments),
            environment=self._environment | allowed | dict(extra or {}),
            watched=self._scratch,
            stdout=output,
            stdin=stdin,
        )
        return processes.run(job, budget, limit), output

    @property
    def scratch(self) -> Path:
        """Where its repositories and outputs lie."""
        return self._scratch


def compare(
    git: Git, location: str, revisions: tuple[str, str], lookup: Licences, scratch: Path, budget: Budget
) -> Pair:
    """Raises `NotFound`, `Unreachable`, `Hostile`, `TooLarge`."""
    for revision in revisions:
        if not REVISION.fullmatch(revision) or ".." in revision:
            raise errors.NotFound(f"`{revision[:60]}` is not the name of a revision.")
    remote = "://" in location
    repository, commits = (_fetched if remote else _local)(git, location, revisions, budget)
    old, new = (
        _snapshot(git, repository, revision, commit, scratch / side, budget)
        for revision, commit, side in zip(revisions, commits, ("old", "new"), strict=True)
    )
    name = urlsplit(location).path.rstrip("/").rpartition("/")[2].removesuffix(".git") or "repository"
    return Pair(f"{name} {revisions[0]}..{revisions[1]}", old, new, lookup)


def _local(git: Git, location: str, revisions: tuple[str, str], budget: Budget) -> tuple[Path, list[str]]:
    path = Path(location)
    if not path.is_dir():
        raise errors.NotFound(f"There is no folder `{location[:200]}` in this sandbox; name it under `mounts`.")
    outcome, _ = git("-C", str(path), "rev-parse", "--git-dir", budget=budget, limit=budget.limits.clone_bytes)
    if outcome.code != 0:
        raise errors.NotFound(f"`{location[:200]}` is not a git repository.")
    return path, [commit_of(git, path, revision, budget) for revision in revisions]


def commit_of(git: Git, repository: Path, revision: str, budget: Budget) -> str:
    """The full hash of a revision. Raises `NotFound`."""
    outcome, output = git(
        "-C", str(repository), "rev-parse", "--verify", "--quiet", "--end-of-options", revision + "^{commit}",
        budget=budget, limit=budget.limits.clone_bytes,
    )  # fmt: skip
    found = output.read_text("utf-8", "replace").strip()
    if outcome.code != 0 or not OBJECT.fullmatch(found):
        raise errors.NotFound(f"The repository has no revision `{revision}`.")
    return found


def _fetched(git: Git, location: str, revisions: tuple[str, str], budget: Budget) -> tuple[Path, list[str]]:
    """Only the two revisions where the server can name them, everything otherwise; within the caps."""
    _check_address(location)
    limit, repository = budget.limits.clone_bytes, git.scratch / "repository.git"
    git("init", "--quiet", "--bare", str(repository), budget=budget, limit=limit)
    outcome, output = git("ls-remote", "--quiet", "--", location, budget=budget, limit=limit, remote=True)
    _must_work(outcome, location)
    names = {line.partition("\t")[2] for line in output.read_text("utf-8", "replace").splitlines()}
    asked = [_ref(revision, names) for revision in revisions]
    if all(asked):
        # Both in one fetch: two objects of the same history share most of their content.
        targets = [f"+{ref}:refs/review/{n}" for n, ref in enumerate(asked)]
        outcome, _ = git(
            "--git-dir", str(repository), "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head",
            "--", location, *targets, budget=budget, limit=limit, remote=True,
        )  # fmt: skip
        if outcome.code == 0:
            return repository, [commit_of(git, repository, f"refs/review/{n}", budget) for n in range(2)]
    outcome, _ = git(
        "--git-dir", str(repository), "fetch", "--quiet", "--no-write-fetch-head", "--", location,
        "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*",
        *(["+HEAD:refs/review/head"] if "HEAD" in names else []), budget=budget, limit=limit, remote=True,
    )  # fmt: skip
    _must_work(outcome, location)
    # A bare copy has a HEAD of its own; the one that is meant is the server's.
    named = [re.sub(r"^HEAD(?![\w./-])", "refs/review/head", revision) for revision in revisions]
    return repository, [commit_of(git, repository, revision, budget) for revision in named]


def _check_address(location: str) -> None:
    try:
        parts = urlsplit(location)
        address = (parts.hostname, parts.port)
    except ValueError as fault:
        raise errors.NotFound("That is not a valid URL.") from fault
    if not address[0]:
        raise errors.NotFound("That is not a valid URL.")
    if parts.username or parts.password:
        raise errors.NotFound("A review takes no credentials: give a URL without user and password.")


def _ref(revision: str, names: set[str]) -> str | None:
    """What to ask the server for; None for what only a full history can resolve (`HEAD~3`, a short hash)."""
    if OBJECT.fullmatch(revision) or (revision == "HEAD" and "HEAD" in names):
        return revision
    for name in (revision, f"refs/tags/{revision}", f"refs/heads/{revision}"):
        if name in names and name.startswith("refs/"):
            return name
    return None


def _must_work(outcome: processes.Outcome, location: str) -> None:
    if outcome.code == 0:
        return
    text, host = outcome.stderr.lower(), urlsplit(location).hostname or "The repository"
    if "could not resolve" in text:
        raise errors.Unreachable(host, "its name could not be resolved")
    if "tunnel failed" in text or "from proxy after connect" in text:
        raise errors.Unreachable(host, "the egress proxy refused it: name the host under `egress` in the manifest")
    if "failed to connect" in text or "couldn't connect" in text or "timed out" in text or "too slow" in text:
        raise errors.Unreachable(host, "no connection")
    if "certificate" in text:
        raise errors.Unreachable(host, "its TLS certificate could not be verified")
    if "not found" in text or "authentication" in text or "could not read username" in text or "403" in text:
        raise errors.NotFound(f"{host} has no such repository, or it needs credentials, which a review does not take.")
    raise errors.Unreachable(host, "git could not read the repository")


def _snapshot(git: Git, repository: Path, revision: str, commit: str, folder: Path, budget: Budget) -> Snapshot:
    root = folder / "tree"
    root.mkdir(parents=True)
    notes = _write_tree(git, repository, commit, root, budget)
    return of_folder(root, model.Side(revision, f"commit `{commit[:12]}`"), notes)


def of_folder(root: Path, side: model.Side, notes: tuple[str, ...] = ()) -> Snapshot:
    """A source tree that lies in a folder already."""
    tree = layout.examine(root)
    return Snapshot(side, tree, tree.tests, tree.root, dependencies.from_tree(root), notes)


def _write_tree(git: Git, repository: Path, commit: str, root: Path, budget: Budget) -> tuple[str, ...]:
    """Write the files a review reads; the note says what was left out."""
    entries, oversized = listed(git, repository, commit, budget)
    for entry, content in contents(git, repository, entries, budget):
        target = root / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return left_out(oversized)


def left_out(oversized: int) -> tuple[str, ...]:
    """What a report says of files that are too large to be source."""
    return (f"{oversized} files are too large to be read as source.",) if oversized else ()


def listed(git: Git, repository: Path, commit: str, budget: Budget) -> tuple[list[Entry], int]:
    """The files of a commit that a review reads, and how many more are too large. Raises `NotFound`, `TooLarge`, `Hostile`."""
    outcome, output = git(
        "-C", str(repository), "ls-tree", "-r", "-l", "-z", "--full-tree", commit,
        budget=budget, limit=budget.limits.clone_bytes,
    )  # fmt: skip
    if outcome.code != 0:
        raise errors.NotFound("The repository does not hold that revision completely.")
    return _entries(output, budget)


def contents(git: Git, repository: Path, entries: list[Entry], budget: Budget) -> Iterator[tuple[Entry, bytes]]:
    """Each of these files with what is in it. Raises `NotFound`."""
    wanted = git.scratch / "objects"
    wanted.write_text("".join(f"{entry.object}\n" for entry in entries))
    outcome, output = git(
        "-C", str(repository), "cat-file", "--batch", stdin=wanted, budget=budget, limit=budget.limits.clone_bytes * 2,
    )  # fmt: skip
    with output.open("rb") as stream:
        for entry in entries:
            budget.check()
            header = stream.readline(256).split()
            if len(header) != 3 or header[1] != b"blob" or int(header[2]) != entry.size:
                raise errors.NotFound("The repository does not hold that revision completely.")
            yield entry, stream.read(entry.size)
            stream.read(1)


def _entries(listing: Path, budget: Budget) -> tuple[list[Entry], int]:
    """Regular files only: links and submodules have no content of their own here."""
    found: list[Entry] = []
    oversized = total = 0
    for record in listing.read_bytes().split(b"\0"):
        head, _, name = record.partition(b"\t")
        fields = head.split()
        path = name.decode("utf-8", "surrogateescape")
        if len(fields) != 4 or fields[0] not in (b"100644", b"100755") or not archives.wanted(path):
            continue
        size = int(fields[3])
        if size > budget.limits.source_bytes:
            oversized += 1
            continue
        total += size
        if len(found) >= budget.limits.files or total > budget.limits.unpacked_bytes:
            raise errors.TooLarge(f"The revision holds more source than a review reads ({len(found)} files).")
        found.append(Entry(str(archives.safe_path(path, "The repository")), fields[2].decode(), size))
    return found, oversized
