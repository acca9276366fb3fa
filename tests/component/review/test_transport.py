"""The HTTP client of the engine against real servers on loopback that misbehave."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from review import errors
from review.budget import Budget, Limits
from review.transport import HttpTransport, NetworkSettings

pytestmark = pytest.mark.component


class Server:
    """Answers every connection with what `talk` does; remembers the requests. Ends with the test."""

    def __init__(self, talk: Callable[[socket.socket, bytes], None]) -> None:
        self._talk = talk
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with closing(connection):
                connection.settimeout(10)
                head = b""
                try:
                    while b"\r\n\r\n" not in head and (block := connection.recv(4096)):
                        head += block
                    self.requests.append(head)
                    self._talk(connection, head)
                except OSError:
                    continue

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(talk: Callable[[socket.socket, bytes], None]) -> Server:
        servers.append(Server(talk))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def answering(body: bytes, status: str = "200 OK", headers: str = "") -> Callable[[socket.socket, bytes], None]:
    def talk(connection: socket.socket, head: bytes) -> None:
        length = f"Content-Length: {len(body)}\r\n"
        connection.sendall(f"HTTP/1.1 {status}\r\n{headers}{length}Connection: close\r\n\r\n".encode() + body)

    return talk


def get(url, *, limit=1000, seconds=5.0, transport=None, sink=None):
    transport = transport or HttpTransport(NetworkSettings({}, (), ""))
    budget = Budget.start(Limits(review_seconds=seconds, reply_seconds=seconds))
    return transport.get(url, accept="text/plain", limit=limit, budget=budget, sink=sink)


def test_a_reply_is_read_whole(serve):
    server = serve(answering(b"hello", headers="Content-Type: text/x\r\n"))
    reply = get(f"http://127.0.0.1:{server.port}/a?b=c")
    assert (reply.status, reply.content_type, reply.body) == (200, "text/x", b"hello")
    assert server.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")


def test_a_body_over_the_limit_ends_the_reply_whatever_length_it_claims(serve):
    server = serve(answering(b"x" * 5000))
    with pytest.raises(errors.TooLarge):
        get(f"http://127.0.0.1:{server.port}/", limit=100)


def test_a_reply_that_is_cut_is_not_taken_for_a_whole_one(serve):
    server = serve(lambda c, _: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf"))
    with pytest.raises(errors.Unreachable, match="cut or malformed"):
        get(f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize("piece", [b"X-Slow: 1\r\n", b""], ids=["trickled headers", "silence"])
def test_a_server_that_never_ends_its_headers_is_left_at_the_deadline(serve, piece):
    done = threading.Event()

    def trickle(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not done.wait(0.05):
            connection.sendall(piece)

    server = serve(trickle)
    began = time.monotonic()
    try:
        with pytest.raises((errors.Unreachable, errors.OutOfTime)):
            get(f"http://127.0.0.1:{server.port}/", seconds=0.5)
    finally:
        done.set()
    assert time.monotonic() - began < 5


def test_credentials_go_to_their_host_and_do_not_follow_a_redirect(serve):
    target = serve(answering(b"there"))
    there = f"http://localhost:{target.port}/x"
    first = serve(answering(b"", "302 Found", f"Location: {there}\r\n"))
    transport = HttpTransport(NetworkSettings({}, (), ""), credentials={"127.0.0.1": "user:secret"})
    reply = get(f"http://127.0.0.1:{first.port}/", transport=transport)
    assert (reply.body, reply.url) == (b"there", there)
    assert b"Authorization: Basic" in first.requests[0]
    assert b"uthorization" not in target.requests[0]


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1", "http://x:0/", "http:///"]
)
def test_a_redirect_to_anything_but_http_is_not_followed(serve, location):
    server = serve(answering(b"", "302 Found", f"Location: {location}\r\n"))
    with pytest.raises(errors.Unreachable):
        get(f"http://127.0.0.1:{server.port}/")


def test_redirects_in_a_circle_end(serve):
    server = serve(answering(b"", "302 Found", "Location: /again\r\n"))
    with pytest.raises(errors.Unreachable, match="too many redirects"):
        get(f"http://127.0.0.1:{server.port}/")
    assert len(server.requests) < 10


def test_a_proxy_that_refuses_the_host_is_named_as_the_reason(serve):
    proxy = serve(answering(b"", "403 Forbidden"))
    settings = NetworkSettings({"https": f"http://u:p@127.0.0.1:{proxy.port}"}, (), "")
    with pytest.raises(errors.Unreachable, match="egress proxy refused it: 403 Forbidden"):
        get("https://undeclared.test/", transport=HttpTransport(settings))
    assert proxy.requests[0].startswith(b"CONNECT undeclared.test:443")
    assert b"Proxy-Authorization: Basic dTpw" in proxy.requests[0]


def test_a_plain_request_goes_through_the_proxy_in_absolute_form_unless_excepted(serve):
    proxy, direct = serve(answering(b"proxied")), serve(answering(b"direct"))
    settings = NetworkSettings({"http": f"http://127.0.0.1:{proxy.port}", "no": "localhost, .inner.test"}, (), "")
    transport = HttpTransport(settings)
    assert get("http://index.test/p/", transport=transport).body == b"proxied"
    assert proxy.requests[0].startswith(b"GET http://index.test/p/ HTTP/1.1\r\n")
    assert get(f"http://localhost:{direct.port}/", transport=transport).body == b"direct"


def test_a_port_that_nobody_listens_on_gives_the_same_words_each_time():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for _ in range(2):
        with pytest.raises(errors.Unreachable, match=r"\(connection refused\)"):
            get(f"http://127.0.0.1:{port}/")
