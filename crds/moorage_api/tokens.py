"""Sandbox tokens: who a sandbox is, signed, verified without a look-up; the secrets of sandboxes in pods; who a build is.

Layer: the floor; stdlib only. The provider signs, the gateway's sandbox and egress ports verify. In a cluster the token may stand
in a pod's spec, for there it is worth nothing without the pod's projected service-account token (`pod_tokens.py`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_TOKEN = 2048
MAX_POD_TOKEN = 4096
"""Bytes of a projected service-account token; Kubernetes makes them of 1 to 2 KiB."""

# No token's body begins so: one key, four uses that cannot be mixed up.
_SECRET_OF = b"moorage sandbox secret v1\0"
_STDIO = b"moorage stdio server v1\0"
_BUILD = b"moorage build v1\0"


@dataclass(frozen=True)
class Identity:
    """What a sandbox token proves. `volume` names the folder (or claim) that holds the session's files."""

    sandbox: str
    tenant: str
    agent: str
    revision: str
    volume: str


@dataclass(frozen=True)
class BuildIdentity:
    """What a build's token proves, and all that the build may do.

    `job` begins its pod's name. `source` is the digest (64 hex) of the uploaded bundle it may read, "" for none; `reach` what it may
    connect to, in the words of `spec.egress`.
    """

    job: str
    account: str
    tenant: str
    agent: str
    source: str
    reach: tuple[str, ...]


def sign(identity: Identity, key: str) -> str:
    """The token of one sandbox under the platform's signing key (hex)."""
    return _signed(identity.__dict__, b"", key)


def verify(token: str, key: str) -> Identity | None:
    """The identity a token proves, or None for anything that is not exactly a token signed with this key."""
    found = _verified(token, b"", key)
    return Identity(**found) if found is not None else None


def sign_build(identity: BuildIdentity, key: str) -> str:
    """The token of one build. No sandbox's token is one, and none of these is a sandbox's."""
    return _signed(asdict(identity), _BUILD, key)


def verify_build(token: str, key: str) -> BuildIdentity | None:
    """As `verify`, for builds."""
    found = _verified(token, _BUILD, key)
    return BuildIdentity(**{**found, "reach": tuple(found["reach"])}) if found is not None else None


def sandbox_secret(sandbox: str, key: str) -> str:
    """What gateways show to the shim of a sandbox in a pod (64 hex digits): nobody keeps it, whoever has the signing key derives it."""
    return hmac.digest(bytes.fromhex(key), _SECRET_OF + sandbox.encode(), "sha256").hex()


def stdio_secret(tenant: str, toolbox: str, upstream: str, key: str) -> str:
    """What gateways show to the process that runs a program of a toolbox (64 hex digits). No name has a `/`."""
    return hmac.digest(bytes.fromhex(key), _STDIO + f"{tenant}/{toolbox}/{upstream}".encode(), "sha256").hex()


def secret_sha256(secret: str) -> str:
    """What a shim in a pod is told of its secret (64 hex digits): enough to know it by, worth nothing to who reads the pod's spec."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _signed(said: Mapping[str, Any], use: bytes, key: str) -> str:
    body = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return f"{_b64(body)}.{_b64(_mac(use, body, key))}"


def _verified(token: str, use: bytes, key: str) -> dict[str, Any] | None:
    if len(token) > MAX_TOKEN or token.count(".") != 1:
        return None
    body_text, mac_text = token.split(".")
    try:
        body, mac = _unb64(body_text), _unb64(mac_text)
    except ValueError:
        return None
    if not hmac.compare_digest(mac, _mac(use, body, key)):
        return None
    found: dict[str, Any] = json.loads(body)
    return found


def _mac(use: bytes, body: bytes, key: str) -> bytes:
    return hmac.digest(bytes.fromhex(key), use + body, "sha256")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
