"""ModelEndpoints on a real API server: what is filled in and refused, and an operator that brings them and their keys to the gateways."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from api.world import SECRETS, Means, World, until, world_of
from cluster.node.control import ControlPlane, Given
from moorage_api.kinds import parse_any
from moorage_api.ledger import keys
from moorage_operator.kube import ENDPOINTS

pytestmark = [pytest.mark.api, pytest.mark.timeout(180)]

NAMESPACE = "moorage-models"
KEY = "sk-canary-0123456789"


def document(name: str, spec: dict[str, Any], namespace: str = NAMESPACE) -> dict[str, Any]:
    """An object as a person writes it."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": meta, "spec": spec}


@pytest.fixture(scope="module")
def api(api_server: ControlPlane | Given) -> Iterator[ControlPlane | Given]:
    """A namespace of an API server that knows ModelEndpoints."""
    api_server.kubectl("create", "namespace", NAMESPACE)
    yield api_server
    api_server.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.mark.parametrize(
    "spec",
    [
        {"protocol": "openai", "baseUrl": "https://api.example.com/v1"},
        {"protocol": "azure", "baseUrl": "https://a.example.com", "credential": {"secret": "azure"}, "apiVersion": "2025-04-01-preview"},
        {"protocol": "anthropic", "baseUrl": "https://a.example.com", "models": ["c-1"], "timeouts": {"idle": "1m30s"}},
    ],
    ids=lambda spec: spec["protocol"],
)  # fmt: skip
def test_what_is_filled_in_is_what_the_kind_itself_says(api: ControlPlane | Given, spec: dict[str, Any]) -> None:
    given = json.dumps(document("filled", spec))
    stored = json.loads(api.kubectl("apply", "-n", NAMESPACE, "-f", "-", "-o", "json", given=given))
    shown = api.kubectl("get", "me", "filled", "-n", NAMESPACE)
    api.kubectl("delete", "modelendpoint", "filled", "-n", NAMESPACE)
    assert parse_any(stored).wire_spec() == parse_any(document("filled", spec)).wire_spec()
    assert spec["baseUrl"] in shown and spec["protocol"] in shown


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"baseUrl": "https://a"}, "spec.protocol"),
        ({"protocol": "openai"}, "spec.baseUrl"),
        ({"protocol": "grpc", "baseUrl": "https://a"}, "spec.protocol"),
        ({"protocol": "openai", "baseUrl": "https://u:p@a"}, "the key goes under credential"),
        ({"protocol": "openai", "baseUrl": "ftp://a"}, "baseUrl is an http(s) URL"),
        ({"protocol": "openai", "baseUrl": "https://a", "concurrency": 0}, "spec.concurrency"),
        ({"protocol": "openai", "baseUrl": "https://a", "retries": {"attempts": 99}}, "spec.retries.attempts"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(api: ControlPlane | Given, spec: dict[str, Any], says: str) -> None:
    with pytest.raises(RuntimeError, match=re.escape(says)):
        api.kubectl("apply", "-n", NAMESPACE, "-f", "-", given=json.dumps(document("wrong", spec)))


def secret(world: World, name: str, data: dict[str, str] | None) -> dict[str, Any]:
    """A Secret of the world's namespace."""
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in (data or {}).items()}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": world.namespace},
        "type": "Opaque",
    }
    return body | ({"data": encoded} if data is not None else {})


async def test_the_operator_brings_endpoints_and_their_keys_to_the_gateways(
    means: Means, numbers: Iterator[int]
) -> None:
    async with world_of(means, f"me-{next(numbers)}", 10) as world:
        await world.kube.create(SECRETS, secret(world, "gateway-credentials", None))
        await world.kube.create(SECRETS, secret(world, "models", {"api-key": KEY}))
        spec = {"protocol": "openai", "baseUrl": "https://api.example.com/v1", "credential": {"secret": "models"}}
        await world.kube.create(ENDPOINTS, document("openai", spec, world.namespace))
        await world.kube.create(
            ENDPOINTS, document("none", spec | {"credential": {"secret": "absent"}}, world.namespace)
        )
        world.start(MOORAGE_GATEWAY_CREDENTIALS="gateway-credentials")

        async def said(name: str) -> Any:
            body = await world.kube.get(ENDPOINTS, world.namespace, name)
            assert body is not None
            return [(c["status"], c["reason"]) for c in (body.get("status") or {}).get("conditions", ())]

        await until("it is ready", lambda: _is(said("openai"), [("True", "Serving")]))
        await until("the other says why not", lambda: _is(said("none"), [("False", "CredentialMissing")]))
        entries = await world.redis.hgetall(keys.ENDPOINTS)
        assert list(entries) == [b"dev/openai"] and KEY.encode() not in b"".join(entries.values())
        held = await world.kube.get(SECRETS, world.namespace, "gateway-credentials")
        assert held is not None and held["data"] == {"dev_models_openai": base64.b64encode(KEY.encode()).decode()}
        logs = b"".join(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
        assert KEY.encode() not in logs

        await world.kube.delete(ENDPOINTS, world.namespace, "openai")
        await until("it is taken out", lambda: _is(world.redis.hgetall(keys.ENDPOINTS), {}))
        held = await world.kube.get(SECRETS, world.namespace, "gateway-credentials")
        assert held is not None and not held.get("data")
        await world.kube.delete(ENDPOINTS, world.namespace, "none")


async def _is(found: Any, wanted: Any) -> bool:
    return bool(await found == wanted)
