"""Packs and manifests at a gateway, called without a loop: in the child that saves or restores. Layer: I/O rim.

StoreAway      no gateway took the call in time; later it may
Damaged        what is stored is not what was put there
NoCheckpoint   there is none of that name
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from moorage_api.wire import checkpoints as wire
from moorage_api.wire.checkpoints import Checkpoint
from moorage_api.wire.http1 import Headers

CALL_SECONDS = 20.0
PAUSE = 0.5


class StoreAway(Exception):
    """No gateway answered, or none could."""


class Damaged(Exception):
    """A gateway found an object that is not what was put there."""


class NoCheckpoint(Exception):
    """There is none."""


class GatewayStore:
    """One connection at a time to the gateways in turn. `proof` gives the headers that say who this is.

    `seconds` is for all calls together, `patience` for one that fails again and again: a large tree takes its time, a store that is
    away is not waited for.
    """

    def __init__(self, gateways: Sequence[str], proof: Callable[[], Headers], seconds: float, patience: float) -> None:
        self._gateways = list(gateways)
        self._proof = proof
        self._until = time.monotonic() + seconds
        self._patience = patience
        self._connection: http.client.HTTPConnection | None = None
        self._closed = threading.Event()

    def put(self, kind: str, name: str, data: bytes) -> None:
        """Stores a blob under its digest. Raises StoreAway."""
        self._call("PUT", f"{wire.PATH}/{kind}/{name}", data, wire.MAX_OFFER)

    def get(self, kind: str, name: str, most: int) -> bytes:
        """A blob. Raises StoreAway, Damaged, NoCheckpoint."""
        return self._call("GET", f"{wire.PATH}/{kind}/{name}", None, most)

    def pointer(self, checkpoint: str) -> Checkpoint:
        """One checkpoint by id or `before:TURN`. Raises StoreAway, NoCheckpoint."""
        return Checkpoint.model_validate_json(self._call("GET", f"{wire.PATH}/{checkpoint}", None, wire.MAX_OFFER))

    def close(self) -> None:
        """Lets go of the connection."""
        self._closed.set()
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(self, method: str, path: str, data: bytes | None, most: int) -> bytes:
        why = "there is no gateway"
        until = min(self._until, time.monotonic() + self._patience)
        while True:
            for gateway in list(self._gateways):
                left = until - time.monotonic()
                if left <= 0:
                    raise StoreAway(f"not done in time: {why}")
                try:
                    status, body = self._ask(gateway, method, path, data, most, min(left, CALL_SECONDS))
                except (OSError, http.client.HTTPException) as fault:
                    self._drop()
                    why = f"{gateway} did not answer: {fault!r}"
                else:
                    if status == 200:
                        return body
                    self._refused(status, body)
                    why = f"{gateway} answered {status}: {body[:200].decode('utf-8', 'replace')}"
                self._gateways.append(self._gateways.pop(0))
            if time.monotonic() >= until:
                raise StoreAway(f"not done in time: {why}")
            self._closed.wait(min(PAUSE, max(0.0, until - time.monotonic())))

    def _refused(self, status: int, body: bytes) -> None:
        shown = body[:500].decode("utf-8", "replace")
        if status == 404:
            raise NoCheckpoint(shown)
        if status == 422:
            raise Damaged(shown)
        if status < 500:
            raise StoreAway(f"refused with {status}: {shown}")

    def _ask(
        self, gateway: str, method: str, path: str, data: bytes | None, most: int, timeout: float
    ) -> tuple[int, bytes]:
        place = urlsplit(gateway)
        connection = self._connection
        if connection is None or (connection.host, connection.port) != (place.hostname, place.port or 80):
            self._drop()
            connection = self._connection = http.client.HTTPConnection(place.hostname or "", place.port or 80)
        connection.timeout = timeout
        if isinstance(connection.sock, socket.socket):
            connection.sock.settimeout(timeout)
        head = {name.decode(): value.decode("latin-1") for name, value in self._proof()}
        connection.request(method, path, body=data, headers=head)
        answer = connection.getresponse()
        body = answer.read(most + 1)
        if len(body) > most:
            self._drop()
            raise http.client.HTTPException(f"the answer is longer than {most} bytes")
        return answer.status, body
