"""The package index of the platform's machine, made usable inside sandboxes. Layer: gateway; the local platform calls it too.

What pip and uv of this machine are set to (environment, then files) becomes: the hosts of the named egress set `package-index`
(the index and the file hosts that its pages link to), the CA file to bind, and the environment of an agent's process.
Credentials in an index address never go inside: such an index is refused with a sentence.
"""

from __future__ import annotations

import asyncio
import configparser
import ensurepip
import functools
import importlib.util
import json
import re
import ssl
import tomllib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

from moorage_api.built import CA_VARIABLES
from moorage_gateway.egress.rules import Refused, Target, parse_host

NAME = "package-index"  # the entry of spec.egress
PROBED = "pip"  # a project that every index has, or can answer 404 for

FETCH_WITHIN = 10.0  # seconds
PAGE = 8 << 20  # bytes of a project page at most
REFRESH = 600.0  # seconds
FILE_HOSTS = 8  # hosts taken from one page at most
INSIDE_CA = "/etc/moorage/ca.pem"

_HREF = re.compile(rb"""<a\s[^>]*?href\s*=\s*["']([^"'#]+)""", re.IGNORECASE)

Fetch = Callable[[str, Path | None], bytes]


class IndexRefused(Exception):
    """This machine's index cannot be offered to sandboxes; the message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """What this machine's pip and uv are set to. `extra` are further indexes; `ca_file` None means the usual one."""

    index: str
    extra: tuple[str, ...] = ()
    ca_file: Path | None = None


@dataclass(frozen=True)
class PackageIndex:
    """What sandboxes get. `env` is for an agent's process; `ca_file` is bound to `INSIDE_CA` where it is not None."""

    hosts: frozenset[Target]
    env: Mapping[str, str]
    ca_file: Path | None


@dataclass(frozen=True)
class PipsOwn:
    """The index that pip asks when nothing is set, and the host of its files; both empty without a pip."""

    index: str = ""
    file_host: str = ""


@functools.cache
def pips_own() -> PipsOwn:
    """Read from the text of this Python's pip, installed or bundled, so that no index is named in our own code."""
    name = "pip/_internal/models/index.py"
    spec = importlib.util.find_spec("pip")
    text = ""
    if spec is not None and spec.origin is not None:
        text = (Path(spec.origin).parent.parent / name).read_text(encoding="utf-8")
    else:
        for wheel in sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                text = archive.read(name).decode()
    found = re.search(r'PackageIndex\(\s*"(https://[^"]+)",\s*file_storage_domain="([^"]+)"', text)
    return PipsOwn(f"{found.group(1).rstrip('/')}/simple", found.group(2)) if found else PipsOwn()


def read_settings(environ: Mapping[str, str], home: Path, *, root: Path = Path("/")) -> Settings:
    """The settings, by precedence: uv's environment, pip's, uv's files, pip's files, the default."""
    uv, pip = _uv_file(environ, home, root), _pip_file(environ, home, root)
    index = (
        environ.get("UV_DEFAULT_INDEX")
        or environ.get("UV_INDEX_URL")
        or environ.get("PIP_INDEX_URL")
        or uv.index
        or pip.index
        or pips_own().index
    )
    extra = _words(
        environ.get("UV_INDEX"),
        environ.get("UV_EXTRA_INDEX_URL"),
        environ.get("PIP_EXTRA_INDEX_URL"),
        *uv.extra,
        *pip.extra,
    )
    ca = next((environ[name] for name in CA_VARIABLES if environ.get(name)), None) or pip.ca
    ca_file = Path(ca) if ca and Path(ca).is_file() else None
    return Settings(_unnamed(index), tuple(dict.fromkeys(extra)), ca_file)


async def discover(settings: Settings, *, fetch: Fetch | None = None) -> PackageIndex:
    """Hosts and environment of these settings. Raises IndexRefused.

    An index that does not answer now still gets its own host in, and the file host where that is known.
    """
    if not settings.index:
        raise IndexRefused("no package index is known here: set UV_DEFAULT_INDEX (the chart's builds.packageIndex.url)")
    hosts: set[Target] = set()
    indexes = [settings.index, *settings.extra]
    for url in indexes:
        hosts.add(_target(_checked(url)))
    found = await asyncio.gather(*(_file_hosts(url, settings.ca_file, fetch or _fetch) for url in indexes))
    return PackageIndex(frozenset(hosts.union(*found)), _environment(settings), settings.ca_file)


class Offer:
    """This machine's index, looked at when somebody asks for it, and anew after `REFRESH` seconds.

    `named` is the set of egress hosts as the proxy holds it: filled in, and later replaced, by `found`.
    """

    def __init__(self, settings: Settings, *, now: Callable[[], float]) -> None:
        self.named: dict[str, frozenset[Target]] = {NAME: frozenset()}
        self._settings = settings
        self._now = now
        self._looking = asyncio.Lock()
        self._known: PackageIndex | None = None
        self._at = 0.0

    async def found(self) -> PackageIndex:
        """The index. Raises IndexRefused."""
        async with self._looking:
            if self._known is None or self._now() - self._at > REFRESH:
                self._known = await discover(self._settings)
                self._at = self._now()
                self.named[NAME] = self._known.hosts
            return self._known


def _environment(settings: Settings) -> dict[str, str]:
    env = {"PIP_INDEX_URL": settings.index, "UV_DEFAULT_INDEX": settings.index, "UV_INDEX_URL": settings.index}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    if settings.extra:
        env |= {"PIP_EXTRA_INDEX_URL": " ".join(settings.extra), "UV_INDEX": " ".join(settings.extra)}
    if settings.ca_file is not None:
        env |= dict.fromkeys(CA_VARIABLES, INSIDE_CA)
    return env


def _checked(url: str) -> SplitResult:
    """The parts of an index address that may be told to a sandbox. Raises IndexRefused."""
    shown = re.sub(r"//[^/@]*@", "//…@", url)[:200]
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise IndexRefused(f"the package index {shown!r} is not an address") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise IndexRefused(
            f"the package index {shown} carries credentials, which never go into a sandbox: set an index without them, "
            "or put a proxy that adds them in front of it"
        )
    if parts.query or parts.fragment:
        raise IndexRefused(f"the package index {shown} has a query, which may carry a credential: set one without it")
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise IndexRefused(f"the package index {shown} is not reached over http: sandboxes need an http(s) index")
    return parts


def _target(parts: SplitResult) -> Target:
    try:
        host = parse_host(parts.hostname or "")
    except Refused as error:
        raise IndexRefused(f"the package index at {parts.hostname} cannot be offered to sandboxes: {error}") from None
    return Target(host, parts.port or (443 if parts.scheme == "https" else 80))


async def _file_hosts(index: str, ca_file: Path | None, fetch: Fetch) -> set[Target]:
    """Where the files of this index are: the hosts that a page of it links to."""
    own = pips_own()
    hosts = {Target(own.file_host, 443)} if own.file_host and index.rstrip("/") == own.index else set()
    page = f"{index.rstrip('/')}/{PROBED}/"
    try:
        async with asyncio.timeout(FETCH_WITHIN + 1):
            body = await asyncio.to_thread(fetch, page, ca_file)
    except (OSError, TimeoutError, ValueError):
        return hosts
    for link in links_of(body):
        try:
            hosts.add(_target(_checked(urljoin(page, link))))
        except IndexRefused:
            continue
        if len(hosts) >= FILE_HOSTS:
            break
    return hosts


def links_of(body: bytes) -> tuple[str, ...]:
    """The file addresses of a project page, in either form of the simple index."""
    if body.lstrip().startswith(b"{"):
        try:
            files = json.loads(body)["files"]
            return tuple(str(one["url"]) for one in files if isinstance(one, dict) and "url" in one)
        except (ValueError, KeyError, TypeError):
            return ()
    return tuple(found.decode("latin-1") for found in _HREF.findall(body))


def _fetch(url: str, ca_file: Path | None) -> bytes:
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    request = urllib.request.Request(url, headers={"Accept": "text/html, application/vnd.pypi.simple.v1+json;q=0.9"})
    with urllib.request.urlopen(request, timeout=FETCH_WITHIN, context=context) as answer:
        return bytes(answer.read(PAGE))


@dataclass(frozen=True)
class _File:
    index: str | None = None
    extra: tuple[str, ...] = ()
    ca: str | None = None


def _pip_file(environ: Mapping[str, str], home: Path, root: Path) -> _File:
    """pip's files, the later ones over the earlier; a file that cannot be read says nothing."""
    if environ.get("PIP_CONFIG_FILE") == "/dev/null":
        return _File()
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    paths = [root / "etc/pip.conf", home / ".pip/pip.conf", config_home / "pip/pip.conf"]
    if environ.get("VIRTUAL_ENV"):
        paths.append(Path(environ["VIRTUAL_ENV"]) / "pip.conf")
    if environ.get("PIP_CONFIG_FILE"):
        paths.append(Path(environ["PIP_CONFIG_FILE"]))
    parser = configparser.RawConfigParser(strict=False)
    for path in paths:
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError, OSError):
            continue

    def value(name: str) -> str | None:
        for section in ("install", "global"):
            found = parser.get(section, name, fallback=None)
            if found:
                return found.strip()
        return None

    return _File(value("index-url"), _words(value("extra-index-url")), value("cert"))


def _uv_file(environ: Mapping[str, str], home: Path, root: Path) -> _File:
    """uv's first file that is there; a file that cannot be read says nothing."""
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    given = environ.get("UV_CONFIG_FILE")
    paths = [Path(given)] if given else [config_home / "uv/uv.toml", root / "etc/uv/uv.toml"]
    for path in paths:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        pip = data.get("pip") if isinstance(data.get("pip"), dict) else {}
        assert isinstance(pip, dict)
        listed = [one for one in data.get("index", ()) if isinstance(one, dict) and isinstance(one.get("url"), str)]
        default = next((str(one["url"]) for one in listed if one.get("default") is True), None)
        index = default or data.get("index-url") or pip.get("index-url")
        extra = data.get("extra-index-url") or pip.get("extra-index-url") or ()
        others = [str(one["url"]) for one in listed if one.get("default") is not True and not one.get("explicit")]
        more = [extra] if isinstance(extra, str) else [str(one) for one in extra]
        return _File(index if isinstance(index, str) else None, (*others, *more))
    return _File()


def _words(*texts: str | None) -> tuple[str, ...]:
    return tuple(_unnamed(word) for text in texts if text for word in text.split())


def _unnamed(index: str) -> str:
    """uv allows `name=URL`."""
    name, equals, url = index.partition("=")
    return url if equals and re.fullmatch(r"[A-Za-z0-9._-]+", name) else index
