"""The package index this machine uses, read from its own uv and pip settings.

Layer: local. Environments are resolved with it, and agents whose `egress` names `package-index` get it inside, without its
credentials: the URL, the hosts to reach, and the CA file to bind.
"""

from __future__ import annotations

import asyncio
import configparser
import ssl
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

DEFAULT_INDEX = "https://pypi.org/simple"
_PROBE = "pip"  # a project every index has; its page shows where files lie
_PAGE_LIMIT = 4 * 2**20
_KNOWN_FILE_HOSTS = {"pypi.org": ("files.pythonhosted.org",)}


@dataclass(frozen=True)
class PackageIndex:
    """`url` may hold credentials and stays on this side; `public_url` is what agents see. `extra` are further indexes."""

    url: str = DEFAULT_INDEX
    extra: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    ca_file: str | None = None

    @property
    def public_url(self) -> str:
        """The index without user and password."""
        return without_credentials(self.url)

    def uv_environment(self) -> dict[str, str]:
        """Variables that make uv on this machine use the same index as pip does."""
        found = {"UV_DEFAULT_INDEX": self.url}
        if self.extra:
            found["UV_INDEX"] = " ".join(self.extra)
        if self.find_links:
            found["UV_FIND_LINKS"] = ",".join(self.find_links)
        if self.ca_file:
            found["SSL_CERT_FILE"] = self.ca_file
        return found

    def agent_environment(self) -> dict[str, str]:
        """Variables for an agent that may use the index: no credentials, no folders of this machine but the CA file."""
        found = {"PIP_INDEX_URL": self.public_url, "UV_DEFAULT_INDEX": self.public_url}
        found |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "UV_PYTHON_DOWNLOADS": "never"}
        if self.ca_file:
            names = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
            found |= dict.fromkeys(names, self.ca_file)
        return found


def read(environment: Mapping[str, str], home: Path) -> PackageIndex:
    """The settings as uv and pip themselves read them: variables first, then uv's file, then pip's files."""
    pip = _pip_files(environment, home)
    uv_url, uv_extra = _uv_file(environment, home)
    url = (
        environment.get("UV_DEFAULT_INDEX")
        or environment.get("UV_INDEX_URL")
        or uv_url
        or environment.get("PIP_INDEX_URL")
        or pip.get("index-url")
        or DEFAULT_INDEX
    )
    extra = (
        environment.get("UV_INDEX", "").split()
        or environment.get("UV_EXTRA_INDEX_URL", "").split()
        or uv_extra
        or environment.get("PIP_EXTRA_INDEX_URL", "").split()
        or pip.get("extra-index-url", "").split()
    )
    links = (
        environment.get("UV_FIND_LINKS", "").split(",")
        if environment.get("UV_FIND_LINKS")
        else environment.get("PIP_FIND_LINKS", "").split() or pip.get("find-links", "").split()
    )
    ca_file = environment.get("SSL_CERT_FILE") or environment.get("PIP_CERT") or pip.get("cert")
    return PackageIndex(
        url=url.partition("=")[2] if "=" in url.split("://", 1)[0] else url,
        extra=tuple(extra),
        find_links=tuple(link for link in links if "://" in link or Path(link).exists()),
        ca_file=ca_file if ca_file and Path(ca_file).is_file() else None,
    )


async def hosts(index: PackageIndex, *, timeout: float = 5.0) -> tuple[str, ...]:
    """`host:port` of the index and of the file hosts its pages link to. Without an answer: the index and what is known of it."""
    found: list[str] = []
    for url in (index.url, *index.extra):
        if urlsplit(url).scheme not in ("http", "https"):
            continue
        _note(found, url)
        host = urlsplit(url).hostname or ""
        found += [f"{name}:443" for name in _KNOWN_FILE_HOSTS.get(host, ()) if f"{name}:443" not in found]
        for link in await asyncio.to_thread(_links, url, index.ca_file, timeout):
            _note(found, link)
    return tuple(found)


def without_credentials(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _note(found: list[str], url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return
    entry = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if entry not in found:
        found.append(entry)


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _links(index_url: str, ca_file: str | None, timeout: float) -> list[str]:
    page = f"{index_url.rstrip('/')}/{_PROBE}/"
    request = urllib.request.Request(without_credentials(page), headers={"Accept": "text/html"})
    parts = urlsplit(page)
    if parts.username:
        import base64

        pair = base64.b64encode(f"{parts.username}:{parts.password or ''}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
    try:
        context = ssl.create_default_context(cafile=ca_file)
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            text = answer.read(_PAGE_LIMIT).decode("utf-8", "replace")
    except (OSError, ValueError, urllib.error.URLError):
        return []
    anchors = _Anchors()
    anchors.feed(text)
    return [urljoin(without_credentials(page), link) for link in anchors.links[:20]]


def _pip_files(environment: Mapping[str, str], home: Path) -> dict[str, str]:
    config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config_home / "pip" / "pip.conf"]
    if environment.get("PIP_CONFIG_FILE"):
        files.append(Path(environment["PIP_CONFIG_FILE"]))
    parser = configparser.RawConfigParser()
    try:
        parser.read(files, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    return dict(parser["global"]) if parser.has_section("global") else {}


def _uv_file(environment: Mapping[str, str], home: Path) -> tuple[str | None, list[str]]:
    config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    path = Path(environment.get("UV_CONFIG_FILE") or config_home / "uv" / "uv.toml")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, []
    entries = [entry for entry in data.get("index", []) if isinstance(entry, dict) and "url" in entry]
    default = next((str(entry["url"]) for entry in entries if entry.get("default")), None)
    extra = [str(entry["url"]) for entry in entries if not entry.get("default")]
    return default or data.get("index-url"), extra or list(data.get("extra-index-url", []))
