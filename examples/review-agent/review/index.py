"""The package index, read-only: which files a release has, fetching one with its hash verified, the licence of a dependency.

Speaks the simple API in both forms (JSON and HTML), so that any mirror works. The index address comes from pip's and uv's own
settings; its user information goes to that host only and is never printed.
"""

import hashlib
import html.parser
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from . import errors
from .budget import Budget
from .transport import HttpTransport, NetworkSettings, Reply, Sink, Transport

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
HASHES = ("sha256", "sha512", "sha384")


@dataclass(frozen=True)
class ReleaseFile:
    """One file of the index page that a review could use."""

    name: str
    version: Version
    url: str
    hashes: tuple[tuple[str, str], ...]
    is_wheel: bool
    metadata_hashes: tuple[tuple[str, str], ...] | None
    """None: the index does not serve this file's metadata beside it."""
    yanked: bool


def normalised(name: str) -> str:
    """The one spelling under which an index knows a project. Raises `NotFound` for what cannot be a name."""
    if not NAME.fullmatch(name):
        raise errors.NotFound(f"`{name[:60]}` is not the name of a package.")
    return re.sub(r"[-_.]+", "-", name).lower()


class NoIndex:
    """The transport of a machine that names no index: a review falls back to the sample, as with one that does not answer."""

    def get(self, url: str, *, accept: str, limit: int, budget: Budget, sink: Sink | None = None) -> Reply:
        """Nothing. Raises `Unreachable`."""
        raise errors.Unreachable("The package index", "none is configured; set PIP_INDEX_URL")


class Index:
    """One index. Every method raises `Unreachable` if it does not answer."""

    def __init__(self, base: str, transport: Transport) -> None:
        self._base = base.rstrip("/") + "/"
        self._transport = transport

    @classmethod
    def over_http(cls, settings: NetworkSettings) -> "Index":
        """The index of the settings, its credentials taken out of the address and bound to its host."""
        if not settings.index:
            return cls("", NoIndex())
        parts = urlsplit(settings.index)
        login, _, place = parts.netloc.rpartition("@")
        credentials = {parts.hostname: unquote(login)} if login and parts.hostname else {}
        return cls(
            urlunsplit((parts.scheme, place, parts.path, "", "")), HttpTransport(settings, credentials=credentials)
        )

    def files(self, project: str, budget: Budget) -> list[ReleaseFile]:
        """Every usable file of a project, oldest first. Raises `NotFound`."""
        url = urljoin(self._base, normalised(project) + "/")
        reply = self._transport.get(url, accept=ACCEPT, limit=budget.limits.index_page_bytes, budget=budget)
        if reply.status == 404:
            raise errors.NotFound(f"The package index has no project `{project}`.")
        if reply.status != 200:
            raise errors.Unreachable("The package index", f"it answered HTTP {reply.status}")
        try:
            if "json" in reply.content_type:
                links = json.loads(reply.body)["files"]
            else:
                links = _links_of_html(reply.body.decode("utf-8", "replace"))
            found = [file for link in links if (file := _file_of(link, reply.url)) is not None]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as fault:
            raise errors.Unreachable("The package index", "its page could not be understood") from fault
        return sorted(found, key=lambda f: (f.version, f.is_wheel, f.name))

    def download(self, file: ReleaseFile, into: Path, budget: Budget) -> Path:
        """The file in `into`, its hash verified; nothing is left behind otherwise."""
        target = into / file.name
        algorithm, wanted = _strongest(file.hashes, file.name)
        digest = hashlib.new(algorithm)
        into.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") as sink:

                def take(block: bytes) -> None:
                    digest.update(block)
                    sink.write(block)

                limit = budget.limits.download_bytes
                reply = self._transport.get(file.url, accept="*/*", limit=limit, budget=budget, sink=take)
            if reply.status != 200:
                raise errors.Unreachable("The file host of the package index", f"it answered HTTP {reply.status}")
            if digest.hexdigest() != wanted:
                raise errors.Hostile(f"{file.name} does not have the {algorithm} that the index gives for it.")
        except errors.ReviewError:
            target.unlink(missing_ok=True)
            raise
        return target

    def metadata(self, file: ReleaseFile, budget: Budget) -> bytes | None:
        """The METADATA that the index serves beside a wheel; None if it does not."""
        if file.metadata_hashes is None:
            return None
        url = file.url + ".metadata"
        reply = self._transport.get(url, accept="*/*", limit=budget.limits.source_bytes, budget=budget)
        if reply.status != 200:
            return None
        for algorithm, wanted in file.metadata_hashes:
            if algorithm in HASHES and hashlib.new(algorithm, reply.body).hexdigest() != wanted:
                raise errors.Hostile(f"The metadata of {file.name} does not have the {algorithm} the index gives.")
        return reply.body

    def newest(self, project: str, specifier: str, budget: Budget) -> list[ReleaseFile]:
        """The files of the newest release that a requirement allows, smallest effort first; empty if there is none."""
        try:
            allowed = SpecifierSet(specifier)
        except InvalidSpecifier:
            return []
        files = [f for f in self.files(project, budget) if not f.yanked]
        versions = {f.version for f in files}
        match = sorted(allowed.filter(versions)) or sorted(allowed.filter(versions, prereleases=True))
        if not match:
            return []
        chosen = [f for f in files if f.version == match[-1]]
        return sorted(chosen, key=lambda f: (f.metadata_hashes is None, not f.name.endswith("-none-any.whl"), f.name))


def release(files: list[ReleaseFile], project: str, version: str) -> list[ReleaseFile]:
    """The files of one release, the sdist first, then wheels from the most portable on. Raises `NotFound`."""
    try:
        asked = Version(version)
    except InvalidVersion as fault:
        raise errors.NotFound(f"`{version[:60]}` is not a version number.") from fault
    found = [f for f in files if f.version == asked]
    if not found:
        known = sorted({f.version for f in files if not f.version.is_prerelease and not f.yanked})
        newest = ", ".join(str(v) for v in known[-5:]) or "none"
        raise errors.NotFound(f"The package index has no release {version} of {project} (newest: {newest}).")
    return sorted(found, key=lambda f: (f.is_wheel, not f.name.endswith("-none-any.whl"), f.name))


def _strongest(hashes: Iterable[tuple[str, str]], name: str) -> tuple[str, str]:
    known = dict(hashes)
    for algorithm in HASHES:
        if algorithm in known:
            return algorithm, known[algorithm].lower()
    raise errors.Hostile(f"The index gives no usable hash for {name}, so it cannot be verified.")


def _file_of(link: dict[str, Any], page: str) -> ReleaseFile | None:
    """None for what is not a release file that a review reads."""
    name = str(link["filename"])
    try:
        if name.endswith(".whl"):
            version = parse_wheel_filename(name)[1]
        elif name.endswith((".tar.gz", ".zip")):
            version = parse_sdist_filename(name)[1]
        else:
            return None
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None
    if "/" in name or name.startswith("."):
        return None
    offered = link.get("core-metadata", link.get("data-dist-info-metadata", link.get("dist-info-metadata", False)))
    metadata = tuple(sorted(offered.items())) if isinstance(offered, dict) else (() if offered else None)
    hashes = tuple(sorted((str(k), str(v)) for k, v in link.get("hashes", {}).items()))
    url = urljoin(page, str(link["url"]))
    return ReleaseFile(name, version, url, hashes, name.endswith(".whl"), metadata, bool(link.get("yanked", False)))


def _links_of_html(page: str) -> list[dict[str, Any]]:
    reader = _Anchors()
    reader.feed(page)
    return reader.links


class _Anchors(html.parser.HTMLParser):
    """The anchors of an HTML index page in the shape of the JSON form."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        href = given.get("href")
        if tag != "a" or not href:
            return
        address, _, fragment = href.partition("#")
        algorithm, _, value = fragment.partition("=")
        name = unquote(urlsplit(address).path.rpartition("/")[2])
        link: dict[str, Any] = {"filename": name, "url": address, "hashes": {algorithm: value} if value else {}}
        offered = given.get("data-core-metadata", given.get("data-dist-info-metadata"))
        if offered:
            kind, _, digest = offered.partition("=")
            link["core-metadata"] = {kind: digest} if digest else True
        link["yanked"] = "data-yanked" in given
        self.links.append(link)
