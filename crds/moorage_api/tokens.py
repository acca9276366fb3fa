"""Sandbox tokens: who a sandbox is, signed, verified without a look-up; and the secrets of sandboxes in pods.

Layer: the floor; stdlib only. The provider signs, the gateway's sandbox and egress ports verify. In a cluster the token may stand
in a pod's spec, for there it is worth nothing without the pod's projected service-account token (`pod_tokens.py`).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

MAX_TOKEN = 2048
MAX_POD_TOKEN = 4096
"""Bytes of a projected service-account token; Kubernetes makes them of 1 to 2 KiB."""

_SECRET_OF = b"moorage sandbox secret v1\0"  # no token's body begins so: one key, two uses that cannot be mixed up


@dataclass(frozen=True)
class Identity:
    """What a sandbox token proves. `volume` names the folder (or claim) that holds the session's files."""

    sandbox: str
    tenant: str
    agent: str
    revision: str
    volume: str


def sign(identity: Identity, key: str) -> str:
    """The token of one sandbox under the platform's signing key (hex)."""
    body = json.dumps(asdict(identity), sort_keys=True, separators=(",", ":")).encode()
    mac = hmac.new(bytes.fromhex(key), body, hashlib.sha256).digest()
    return f"{_b64(body)}.{_b64(mac)}"


def verify(token: str, key: str) -> Identity | None:
    """The identity a token proves, or None for anything that is not exactly a token signed with this key."""
    if len(token) > MAX_TOKEN or token.count(".") != 1:
        return None
    body_text, mac_text = token.split(".")
    try:
        body, mac = _unb64(body_text), _unb64(mac_text)
    except ValueError:
        return None
    if not hmac.compare_digest(mac, hmac.new(bytes.fromhex(key), body, hashlib.sha256).digest()):
        return None
    return Identity(**json.loads(body))


def sandbox_secret(sandbox: str, key: str) -> str:
    """What gateways show to the shim of a sandbox in a pod (64 hex digits): nobody keeps it, whoever has the signing key derives it."""
    return hmac.new(bytes.fromhex(key), _SECRET_OF + sandbox.encode(), hashlib.sha256).hexdigest()


def secret_sha256(secret: str) -> str:
    """What a shim in a pod is told of its secret (64 hex digits): enough to know it by, worth nothing to who reads the pod's spec."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
