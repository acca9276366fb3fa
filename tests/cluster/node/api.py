"""The API server over the standard library's HTTP client, as the administrator. Layer: I/O rim.

For what the node itself asks all the time: starting kubectl for it would cost more than everything else the node does.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from cluster.node import plan

Object = Mapping[str, Any]

JSON = "application/json"
MERGE = "application/merge-patch+json"
ASK_SECONDS = 10.0
WATCH_SECONDS = 240
"""The server ends a watch after so long; the client waits a little longer, and then takes the server for gone."""
SPARE_SECONDS = 30.0
LONGEST = 4 * 2**20
"""Bytes of one watch event; etcd holds no object of half that size."""
LARGEST = 64 * 2**20
"""Bytes of one list."""


class Away(Exception):
    """The API server cannot be reached, or broke off in the middle."""


class Refused(Exception):
    """The API server said no. `status`: HTTP's."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"{status}: {said}")
        self.status = status


class Watch:
    """The events of one collection, as (type, object). `end` may be called by any thread and ends the iteration."""

    def __init__(self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._socket: socket.socket = connection.sock
        self._response = response

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        """Ends when the server ends the watch. Raises Away."""
        while True:
            try:
                line = self._response.readline(LONGEST)
            except (OSError, http.client.HTTPException, ValueError, AttributeError) as fault:
                # The last two are the standard library's words for a response closed under its reader.
                raise Away(f"the watch broke: {fault}") from fault
            if not line:
                return
            try:
                event = json.loads(line)
            except ValueError as fault:
                raise Away("an event was cut off") from fault
            yield event["type"], event["object"]

    def end(self) -> None:
        """Wakes who reads."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """By the thread that reads."""
        self._response.close()
        self._connection.close()


class Api:
    """Paths are the API server's own, with their query. `kept`: each thread keeps one connection, for those who ask hundreds of times a
    second; what is asked on one that the server has closed is asked once more."""

    def __init__(self, place: plan.Place, *, kept: bool = False) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._mine = threading.local() if kept else None
        self._trust: ssl.SSLContext | None = None

    def get(self, path: str) -> Object:
        """One object or one list. Raises Away, Refused."""
        found: Object = json.loads(self._ask("GET", path))
        return found

    def create(self, path: str, thing: Object) -> bool:
        """Makes it; False when it is there already. Raises Away, Refused."""
        return self._unless(409, "POST", path, thing)

    def delete(self, path: str, options: Object | None = None) -> bool:
        """Takes it away; False when it is gone already. Raises Away, Refused."""
        return self._unless(404, "DELETE", path, options)

    def merge(self, path: str, change: Object) -> bool:
        """Changes some fields; False when it is gone already. Raises Away, Refused."""
        return self._unless(404, "PATCH", path, change, MERGE)

    def watch(self, path: str, version: str) -> Watch:
        """What happens to the collection after `version`. Raises Away, Refused."""
        connection = self._connection(WATCH_SECONDS + SPARE_SECONDS)
        query = f"watch=1&resourceVersion={version}&timeoutSeconds={WATCH_SECONDS}"
        try:
            connection.request("GET", f"{path}{'&' if '?' in path else '?'}{query}")
            response = connection.getresponse()
            if response.status != http.HTTPStatus.OK:
                raise Refused(response.status, response.read(LONGEST).decode(errors="replace"))
            return Watch(connection, response)
        except (OSError, http.client.HTTPException) as fault:
            connection.close()
            raise Away(f"{path}: {fault}") from fault
        except Refused:
            connection.close()
            raise

    def _unless(self, status: int, method: str, path: str, thing: Object | None = None, content: str = JSON) -> bool:
        try:
            self._ask(method, path, thing, content)
        except Refused as refusal:
            if refusal.status != status:
                raise
            return False
        return True

    def _ask(self, method: str, path: str, thing: Object | None = None, content: str = JSON) -> bytes:
        body = None if thing is None else json.dumps(thing).encode()
        held: http.client.HTTPSConnection | None = getattr(self._mine, "connection", None)
        try:
            status, said = self._exchange(held or self._connection(ASK_SECONDS), method, path, body, content)
        except Away:
            if held is None:
                raise
            status, said = self._exchange(self._connection(ASK_SECONDS), method, path, body, content)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise Refused(status, said.decode(errors="replace"))
        return said

    def _exchange(
        self, connection: http.client.HTTPSConnection, method: str, path: str, body: bytes | None, content: str
    ) -> tuple[int, bytes]:
        """Status and body of one answer. Raises Away; then the connection is closed and not kept."""
        keep = False
        try:
            connection.request(method, path, body, {"content-type": content})
            response = connection.getresponse()
            said = response.read(LARGEST)
            keep = self._mine is not None and not response.will_close
            return response.status, said
        except (OSError, http.client.HTTPException) as fault:
            raise Away(f"{method} {path}: {fault}") from fault
        finally:
            if self._mine is not None:
                self._mine.connection = connection if keep else None
            if not keep:
                connection.close()

    def _connection(self, seconds: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._place.host, self._place.port, timeout=seconds, context=self._context())

    def _context(self) -> ssl.SSLContext:
        """Made when it is first asked for: the certificates are not there before the node is."""
        with self._lock:
            if self._trust is None:
                pki = self._place.pki
                trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                trust.load_verify_locations(pki / "ca.crt")
                trust.load_cert_chain(pki / "admin.crt", pki / "admin.key")
                self._trust = trust
            return self._trust
