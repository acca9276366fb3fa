"""Tokens at rest: AES-256-GCM, bound to where they are kept. Layer: pure.

A sealed text is `KEY.NONCE+CIPHERTEXT`, the first in hex, which names the key, the rest in base64. The first key of the settings seals;
all of them open, so that a key can be replaced.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from moorage_gateway.consents.shapes import NoKey

_NONCE = 12
"""Bytes, random: at one a token and hour, 2^32 of one key are far."""


class Sealing:
    """`keys`: 32 bytes each, as hex; none: nothing is sealed or opened."""

    def __init__(self, keys: Sequence[str]) -> None:
        made = [bytes.fromhex(each) for each in keys]
        self._keys = {hashlib.sha256(b"moorage consent key" + each).hexdigest()[:8]: AESGCM(each) for each in made}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def seal(self, data: bytes, place: str) -> str:
        """Text that only these keys open, and only as what is kept at `place`. Raises NoKey."""
        for name, key in self._keys.items():
            nonce = secrets.token_bytes(_NONCE)
            return f"{name}.{base64.b64encode(nonce + key.encrypt(nonce, data, place.encode())).decode()}"
        raise NoKey("this platform has no key to keep consents with: set MOORAGE_CONSENT_KEYS")

    def open(self, text: str, place: str) -> bytes:
        """What was sealed there. Raises NoKey."""
        name, _, rest = text.partition(".")
        key = self._keys.get(name)
        try:
            raw = base64.b64decode(rest, validate=True)
            if key is not None:
                return key.decrypt(raw[:_NONCE], raw[_NONCE:], place.encode())
        except (binascii.Error, InvalidTag, ValueError):
            pass
        raise NoKey(
            "a consent was kept with a key that MOORAGE_CONSENT_KEYS does not name any more: its user consents anew"
        )
