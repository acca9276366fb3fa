"""Everywhere a platform writes, read by its owner and searched for needles: what is packed is unpacked first.

ledger      every key of Valkey with its whole value, by its type: a DUMP is packed, so that a search of it finds nothing
kept        files of the state folder: objects, logs, manifests, sources, volumes
printed     what `moorage dev` printed; in it the lines of gateway, provider and shims
logs        the agent's log as the API tells it
spans       what a collector was sent
metrics     each figure's name and labels
records     each response's record, and the audit log
"""

from __future__ import annotations

import contextlib
import gzip
import re
import urllib.request
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from fakes.objects import bytes_of, files_below
from fakes.otlp import Collector
from fakes.platform import Platform
from fakes.prober import family, listening

KEPT = ("objects", "logs", "manifests", "sources", "volumes")


@dataclass(frozen=True)
class Sinks:
    """The sinks of one platform."""

    platform: Platform
    spans: Collector
    agent: str

    def read(self) -> Iterator[tuple[str, bytes]]:
        """(sink and place, bytes)."""
        for name, value in ledger_values(self.platform.redis_url()):
            yield f"ledger {name}", value
        for folder in KEPT:
            for path in files_below(self.platform.state / folder):
                yield f"kept {path.relative_to(self.platform.state)}", bytes_of(path)
        yield "printed", self.platform.log.read_bytes()
        yield "logs", _text(self.platform.call(f"/v1/agents/{self.agent}/logs?tail=2000"))
        for span in self.spans.all():
            yield f"spans {span.name}", span.raw
        for port in listening(family(self.platform.process.pid)):
            yield "metrics", metrics_of(port)
        yield "audit", _text(self.platform.call("/v1/audit?limit=1000"))

    def holding(self, secrets: Mapping[str, str]) -> list[tuple[str, str]]:
        """(what it is, where it stands) of every secret that stands somewhere."""
        found = []
        for where, data in self.read():
            for each in unpacked(data):
                found += [(what, where) for what, secret in secrets.items() if secret.encode() in each]
        return found


def unpacked(data: bytes) -> Iterator[bytes]:
    """The bytes, and what is packed in them."""
    yield data
    if data[:2] == b"\x1f\x8b":
        with contextlib.suppress(OSError, EOFError, zlib.error):
            yield gzip.decompress(data)
    for found in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data[: 1 << 20]):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj().decompress(data[found.start() :], 1 << 24)


def ledger_values(url: str) -> Iterator[tuple[str, bytes]]:
    """Every key of a Valkey with each part of its value, its own name first."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1000):
            parts: list[Any] = [key]
            match client.type(key):
                case b"string":
                    parts.append(client.get(key))
                case b"hash":
                    parts += [each for pair in client.hgetall(key).items() for each in pair]  # type: ignore[union-attr]
                case b"list":
                    parts += client.lrange(key, 0, -1)  # type: ignore[misc]
                case b"set":
                    parts += client.smembers(key)  # type: ignore[misc]
                case b"zset":
                    parts += client.zrange(key, 0, -1)  # type: ignore[misc]
                case b"stream":
                    entries: Any = client.xrange(key)
                    parts += [each for _, fields in entries for pair in fields.items() for each in pair]
                case b"none":
                    continue  # it ended meanwhile
                case other:
                    raise AssertionError(f"{key!r} is of a type that nobody reads: {other!r}")
            name = key.decode("latin-1")
            for part in parts:
                yield name, part or b""


def metrics_of(port: int) -> bytes:
    """What a port says of itself, nothing where it says none."""
    with (
        contextlib.suppress(OSError, ValueError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer,
    ):
        return bytes(answer.read())
    return b""


def _text(answer: tuple[int, Any]) -> bytes:
    status, body = answer
    assert status == 200, answer
    return body if isinstance(body, bytes) else repr(body).encode()
