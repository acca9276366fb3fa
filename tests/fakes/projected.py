"""Projected service-account tokens as a kubelet writes them, and a token server that takes them. Layer: tests.

Limits: one key, made when it is asked for first; nobody looks at anything but signature, issuer, audience, subject and time.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from fakes.authorization import Authorization, serving

AUDIENCE = "api://exchange"
SUBJECT = "system:serviceaccount:moorage:moorage-gateway"
ISSUER = "https://cluster"


@functools.cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def projected(*, audience: str = AUDIENCE, lasts: float = 600, mark: str = "one") -> str:
    """One of them; `mark` tells it from others."""
    now = int(time.time())
    told = {"iss": ISSUER, "sub": SUBJECT, "aud": [audience], "iat": now, "exp": now + int(lasts), "mark": mark}
    return jwt.encode(told, _key(), algorithm="ES256")


def write(folder: Path, text: str, name: str = "acme_default") -> None:
    """As it lies in the gateway's folder `folder`/workload: TENANT_NAME."""
    (folder / "workload").mkdir(exist_ok=True)
    (folder / "workload" / name).write_text(text + "\n")


@contextlib.contextmanager
def exchanging() -> Iterator[Authorization]:
    """A token server that takes the cluster's tokens for its audience, and remembers their marks (`revoked`)."""
    marks: list[str] = []

    def good(shown: str) -> bool:
        try:
            found = jwt.decode(shown, _key().public_key(), algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER)
        except jwt.InvalidTokenError:
            return False
        marks.append(found["mark"])
        return bool(found["sub"] == SUBJECT)

    with serving("") as made:
        made.assertion, made.revoked = good, marks
        yield made
