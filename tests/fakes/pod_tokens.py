"""A cluster's issuer of projected service-account tokens: real keys, made for the run, and tokens of any shape.

Limits: claims as Kubernetes writes them, but nothing is checked; whoever asks gets a token.
"""

from __future__ import annotations

import base64
import functools
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from moorage_api.pod_tokens import PodTokens

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "moorage-gateway"
NAMESPACE, TENANT = "team-acme", "acme"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@functools.cache
def rsa_key(name: str = "rsa-1") -> rsa.RSAPrivateKey:
    """One key a name and process: making one takes a while."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@functools.cache
def ec_key(name: str = "ec-1") -> ec.EllipticCurvePrivateKey:
    """The same, on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def public_pem(key: Key) -> bytes:
    """What anybody may know of a key, as text."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def jwk(kid: str, key: Key) -> dict[str, Any]:
    """The public half as the API server publishes it."""
    algorithm = _algorithm(key)
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {"kid": kid, "use": "sig", "alg": algorithm, **{n: v for n, v in made.items() if n != "key_ops"}}


def published(*keys: dict[str, Any], **other: Any) -> PodTokens:
    """What the operator publishes; the RSA and the EC key of this run unless others are given."""
    found = list(keys) or [jwk("rsa-1", rsa_key()), jwk("ec-1", ec_key())]
    fields = {"issuer": ISSUER, "audience": AUDIENCE, "namespaces": {NAMESPACE: TENANT}, **other}
    return PodTokens(jwks={"keys": found}, **fields)


def claims(pod: str, now: float, **other: Any) -> dict[str, Any]:
    """The claims of a token made at `now` for ten minutes; None leaves one out."""
    namespace = other.pop("namespace", NAMESPACE)
    inner = {
        "namespace": namespace,
        "node": {"name": "node-1", "uid": "u0"},
        "pod": {"name": pod, "uid": "u1"},
        "serviceaccount": {"name": "moorage-sandbox", "uid": "u2"},
    }
    said = {
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": f"system:serviceaccount:{namespace}:moorage-sandbox",
        "iat": int(now),
        "nbf": int(now),
        "exp": int(now) + 600,
        "jti": "4f5c6a7e",
        "kubernetes.io": inner,
        **other,
    }
    return {name: value for name, value in said.items() if value is not None}


def token(said: dict[str, Any], *, kid: str | None = "rsa-1", key: Key | None = None) -> str:
    """Signed as the API server signs."""
    key = key or rsa_key()
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(said, key, algorithm=_algorithm(key), headers=headers)


def unsigned(header: dict[str, Any], said: dict[str, Any], signature: bytes = b"") -> str:
    """Any header over any claims, put together by hand: what no library would make."""
    return ".".join(_b64(part) for part in (json.dumps(header).encode(), json.dumps(said).encode(), signature))


def _algorithm(key: Key) -> str:
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
