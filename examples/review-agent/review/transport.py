"""HTTP GET for the package index: deadlines that hold, sizes that are counted, the machine's own proxy and CA settings.

`Transport` is the seam: `HttpTransport` talks to the network, `MemoryTransport` answers from a table. urllib's opener is not used
because it can neither bound a whole reply (only a single read) nor keep a header from a redirect to another host.
"""

import base64
import ensurepip
import functools
import http.client
import importlib.util
import re
import socket
import ssl
import threading
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from . import errors
from .budget import Budget

USER_AGENT = "moorage-review-agent/0.1"
MAX_REDIRECTS = 5
BLOCK = 64 * 1024
SCHEMES = ("http", "https", "all", "no")

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Reply:
    """What came back; `body` is empty when a sink took it."""

    status: int
    content_type: str
    url: str
    body: bytes


class Transport(Protocol):
    """One GET. Raises `Unreachable` (no answer), `TooLarge` (more than `limit` bytes), `OutOfTime`, `Cancelled`."""

    def get(self, url: str, *, accept: str, limit: int, budget: Budget, sink: Sink | None = None) -> Reply: ...


class MemoryTransport:
    """Answers from a table of URL → (content type, body); other URLs are 404, an exception in the table is raised."""

    def __init__(self, pages: Mapping[str, tuple[str, bytes] | errors.ReviewError]) -> None:
        self._pages = pages
        self.asked: list[str] = []

    def get(self, url: str, *, accept: str, limit: int, budget: Budget, sink: Sink | None = None) -> Reply:
        budget.check()
        self.asked.append(url)
        page = self._pages.get(url)
        if isinstance(page, errors.ReviewError):
            raise page
        if page is None:
            return Reply(404, "text/plain", url, b"")
        content_type, body = page
        if len(body) > limit:
            raise errors.TooLarge(f"{shown(url)} is larger than {limit} bytes.")
        if sink is not None:
            sink(body)
            body = b""
        return Reply(200, content_type, url, body)


@dataclass(frozen=True)
class NetworkSettings:
    """Taken from the environment once, at the edge."""

    proxies: Mapping[str, str]
    """By scheme: http, https, all; under "no" the hosts to go to directly."""
    ca_files: tuple[str, ...]
    index: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "NetworkSettings":
        """The names that pip, uv, requests and OpenSSL read, in the order in which they usually win."""
        index = next((environ[k] for k in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL") if environ.get(k)), "")
        names = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
        files = tuple(dict.fromkeys(environ[k] for k in names if environ.get(k)))
        found = {k: environ.get(f"{k}_proxy") or environ.get(f"{k.upper()}_PROXY") or "" for k in SCHEMES}
        return cls({k: v for k, v in found.items() if v}, files, index or pips_own_index())


def pips_own_index() -> str:
    """The index that the Python installation's own pip would ask, read from pip's text; "" without a pip."""
    spec = importlib.util.find_spec("pip")
    name = "pip/_internal/models/index.py"
    text = ""
    if spec is not None and spec.origin is not None:
        text = (Path(spec.origin).parent.parent / name).read_text(encoding="utf-8")
    else:
        for wheel in sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")):
            text = zipfile.ZipFile(wheel).read(name).decode()
    found = re.search(r'PackageIndex\(\s*"(https://[^"]+)"', text)
    return f"{found.group(1).rstrip('/')}/simple" if found else ""


class HttpTransport:
    """http.client with a watchdog: at the deadline the socket is shut down under whatever waits on it."""

    def __init__(self, settings: NetworkSettings, *, credentials: Mapping[str, str] | None = None) -> None:
        """`credentials`: host → `user:password`, sent to that host and to no other."""
        self._settings = settings
        self._credentials = dict(credentials or {})

    def get(self, url: str, *, accept: str, limit: int, budget: Budget, sink: Sink | None = None) -> Reply:
        for _ in range(MAX_REDIRECTS + 1):
            reply, location = self._once(url, accept, limit, budget, sink)
            if location is None:
                return reply
            following = _address(url, location)
            if _parts(url).scheme == "https" and _parts(following).scheme != "https":
                raise errors.Unreachable(shown(url), "it redirects from https to something else")
            url = following
        raise errors.Unreachable(shown(url), "too many redirects")

    def _once(self, url: str, accept: str, limit: int, budget: Budget, sink: Sink | None) -> tuple[Reply, str | None]:
        parts = _parts(url)
        connection, target, headers = self._route(parts, budget)
        headers |= {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        if parts.hostname in self._credentials:
            headers["Authorization"] = _basic(self._credentials[parts.hostname])
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            if connection.sock is not None:
                _shut(connection.sock)

        watchdog = threading.Timer(budget.seconds(budget.limits.review_seconds), expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            if expired.is_set():  # a socket shut down in the middle of the headers looks like their end
                raise TimeoutError
            location = response.getheader("Location") if response.status in (301, 302, 303, 307, 308) else None
            if location is not None:
                return Reply(response.status, "", url, b""), location
            body = _read(response, limit, budget, sink if response.status == 200 else None, url)
            return Reply(response.status, response.getheader("Content-Type", "") or "", url, body), None
        except (OSError, http.client.HTTPException, ValueError) as fault:
            budget.check()
            raise errors.Unreachable(shown(url), _reason(fault, expired.is_set())) from fault
        finally:
            watchdog.cancel()
            connection.close()

    def _route(self, parts: SplitResult, budget: Budget) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """The connection (direct or through the proxy), the request target, and headers for the proxy."""
        host, timeout = parts.hostname or "", budget.seconds(budget.limits.reply_seconds)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        proxy = self._settings.proxies.get(parts.scheme) or self._settings.proxies.get("all")
        if not proxy or _goes_direct(host, self._settings.proxies.get("no", "")):
            if secure:
                return http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls), path, {}
            return http.client.HTTPConnection(host, port, timeout=timeout), path, {}
        via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if via.scheme != "http" or not via.hostname:
            raise errors.Unreachable("The proxy", "only http:// proxies are understood")
        login = f"{unquote(via.username)}:{unquote(via.password or '')}" if via.username else ""
        auth = {"Proxy-Authorization": _basic(login)} if login else {}
        if secure:
            tunnel = http.client.HTTPSConnection(via.hostname, via.port or 80, timeout=timeout, context=self._tls)
            tunnel.set_tunnel(host, port, headers=auth)
            return tunnel, path, {}
        plain = http.client.HTTPConnection(via.hostname, via.port or 80, timeout=timeout)
        return plain, f"http://{parts.netloc.rpartition('@')[2]}{path}", auth

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for name in self._settings.ca_files:
            if Path(name).is_file():
                context.load_verify_locations(cafile=name)
        return context


def shown(url: str) -> str:
    """A URL as it may be printed: without user information and query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _read(response: http.client.HTTPResponse, limit: int, budget: Budget, sink: Sink | None, url: str) -> bytes:
    pieces: list[bytes] = []
    total = 0
    expected = response.length
    while block := response.read1(BLOCK):
        budget.check()
        total += len(block)
        if total > limit:
            raise errors.TooLarge(f"{shown(url)} is larger than {limit} bytes.")
        if sink is not None:
            sink(block)
        else:
            pieces.append(block)
    if expected is not None and total < expected:
        raise http.client.IncompleteRead(b"", expected - total)
    return b"".join(pieces)


def _parts(url: str) -> SplitResult:
    """Raises `Unreachable` for what is no http or https address."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise errors.Unreachable("An address given by the package index", "it is not a valid http or https address")
    return parts


def _address(base: str, location: str) -> str:
    try:
        return urljoin(base, location)
    except ValueError as fault:
        raise errors.Unreachable(shown(base), "it redirects to an invalid address") from fault


def _goes_direct(host: str, exceptions: str) -> bool:
    """Whether NO_PROXY names the host, a domain above it, or everything."""
    names = [name.strip().lstrip(".").lower() for name in exceptions.split(",") if name.strip()]
    return any(name == "*" or host.lower() == name or host.lower().endswith("." + name) for name in names)


def _basic(login: str) -> str:
    return "Basic " + base64.b64encode(login.encode()).decode()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # already closed by the other side: what waited on it is awake


def _reason(fault: Exception, expired: bool) -> str:
    """One phrase a fault, the same on every attempt: it becomes part of the answer's text."""
    if expired or isinstance(fault, TimeoutError):
        return "no answer in time"
    if isinstance(fault, ssl.SSLCertVerificationError):
        return "its TLS certificate could not be verified"
    if isinstance(fault, ssl.SSLError):
        return "TLS failed"
    if isinstance(fault, socket.gaierror):
        return "its name could not be resolved"
    if isinstance(fault, ConnectionRefusedError):
        return "connection refused"
    if isinstance(fault, http.client.HTTPException):
        return "the reply was cut or malformed"
    if "Tunnel connection failed" in str(fault):
        return "the egress proxy refused it: " + str(fault).rpartition("failed: ")[2].strip()
    return "the connection failed"
