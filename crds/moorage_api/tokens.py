"""Sandbox tokens of the local provider: who a sandbox is, signed, verified without a look-up.

Layer: the floor; stdlib only. The provider signs, the gateway's sandbox and egress ports verify. (In a cluster the projected
service-account token takes this place.)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

MAX_TOKEN = 2048


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


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
