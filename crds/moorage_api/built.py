"""What a build in a cluster makes of a source: one bundle with code and environment, and the words it ends with. Layer: the floor.

A built bundle holds two folders, `CODE` and `ENVIRONMENT`. It is packed and unpacked as any bundle is (`bundles`), so it holds files
and folders only; the interpreter's links are made where it is unpacked. Whoever ran the build is not trusted: what it says is checked
for its shape, what it made by its digest.

A pod's termination message has at most 4096 bytes, whence `MESSAGE`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from moorage_api import conditions
from moorage_api.printed import shown
from moorage_api.source_tree import Contract
from moorage_api.unpacking import Limits

CODE = "code"
ENVIRONMENT = "env"
CODE_AT = "/app"
"""Where an agent's container sees its code, read-only."""
ENVIRONMENT_AT = "/opt/agent"
"""Where it sees its environment, read-only."""

INDEX = "index"
INDEX_AT = "/opt/moorage-index"
"""Where an agent's container that may reach the package index sees how, read-only: the folder `INDEX` of what is fetched."""
INDEX_VARIABLES = "variables.json"
INDEX_CA = "ca.pem"
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""By which the clients of an index find its authorities."""

LIMITS = Limits(files=100_000, octets=4 * 2**30)
"""Of a built bundle: an environment may be large."""
PACKED = 2 * 2**30
"""Bytes of a built bundle as it is stored, at most."""

FAULT = 3
"""Exit status of a build whose source is at fault: trying again helps nothing."""
MESSAGE = 3500
"""Characters of a failure's message that travel."""
REASONS = (conditions.SOURCE_REFUSED, conditions.SOURCE_MISSING, conditions.ENVIRONMENT_FAILED)

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_ENTRY = re.compile(r"[^\x00-\x1f\x7f]+\Z")
_ENTRY_BYTES = 1024  # twice as many when each is escaped: all that is said is less than a termination message holds
_CONTRACTS = ("moorage", "foundry", "agentcore")


@dataclass(frozen=True)
class Built:
    """`digest`: of the built bundle (64 hex); `commit`: what a git ref was resolved to, "" for a bundle."""

    digest: str
    entry: str
    contract: Contract
    commit: str = ""

    def to_json(self) -> str:
        """The text `from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Built:
        """Raises ValueError for anything that is not exactly a built bundle's description."""
        found = json.loads(text)
        if not isinstance(found, dict) or not all(isinstance(part, str) for part in found.values()):
            raise ValueError("not an object of texts")
        if found.keys() != {"digest", "entry", "contract", "commit"} or found["contract"] not in _CONTRACTS:
            raise ValueError("not what a build says")
        checked = ((_DIGEST, "digest"), (_ENTRY, "entry"), *(((_COMMIT, "commit"),) if found["commit"] else ()))
        if any(pattern.match(found[name]) is None for pattern, name in checked):
            raise ValueError("a digest, a commit or an entry of a wrong shape")
        if len(found["entry"].encode()) > _ENTRY_BYTES:
            raise ValueError(f"an entry has at most {_ENTRY_BYTES} bytes")
        return cls(**found)


@dataclass(frozen=True)
class Failed:
    """`reason` is one of `REASONS`; `message` says what to do, with the last lines of what failed."""

    reason: str
    message: str


Outcome = Built | Failed


def told(outcome: Outcome) -> str:
    """How a build says its outcome: `heard` reads it."""
    if isinstance(outcome, Built):
        return outcome.to_json()
    return json.dumps({"reason": outcome.reason, "message": _cut(outcome.message)}, ensure_ascii=False)


def heard(text: str) -> Outcome | None:
    """What a build said; None for anything else."""
    try:
        found = json.loads(text)
        if isinstance(found, dict) and found.keys() == {"reason", "message"}:
            reason = found["reason"] if found["reason"] in REASONS else conditions.SOURCE_REFUSED
            return Failed(reason, _cut(str(found["message"])))
        return Built.from_json(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _cut(text: str) -> str:
    """At most `MESSAGE` bytes of UTF-8 as JSON has them, from the beginning and, where it is longer, from the end."""
    whole = shown(text)
    if _size(whole) <= MESSAGE:
        return whole
    head, _, tail = whole.partition("\n")
    head, tail = head[:500], tail or whole
    while _size(head + tail) > MESSAGE - 8 and tail:
        tail = tail[max(1, len(tail) // 8) :]
    return f"{head}\n…\n{tail}"


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())
