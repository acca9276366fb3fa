"""Objects that an operator brings to gateways: as people write them, on an API server, and with what they need beside them."""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from api.world import World
from cluster.node.control import ControlPlane, Given
from moorage_api.kinds import parse_any
from moorage_operator.kube import Kind


def document(kind: str, name: str, spec: dict[str, Any], namespace: str) -> dict[str, Any]:
    """An object as a person writes it."""
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": kind, "metadata": meta, "spec": spec}


@contextlib.contextmanager
def namespace(api: ControlPlane | Given, name: str) -> Iterator[ControlPlane | Given]:
    """The API server, with a namespace for as long as the context lasts."""
    api.kubectl("create", "namespace", name)
    yield api
    api.kubectl("delete", "namespace", name, "--wait=false")


def shown(api: ControlPlane | Given, short: str, body: dict[str, Any]) -> str:
    """What `kubectl get`, with the kind's short name, shows of an object that the API server has filled in as the kind itself does."""
    kind, name, space = body["kind"].lower(), body["metadata"]["name"], ("-n", body["metadata"]["namespace"])
    stored = json.loads(api.kubectl("apply", *space, "-f", "-", "-o", "json", given=json.dumps(body)))
    table = api.kubectl("get", short, name, *space)
    api.kubectl("delete", kind, name, *space)
    assert parse_any(stored).wire_spec() == parse_any(body).wire_spec()
    return table


def refused(api: ControlPlane | Given, body: dict[str, Any], says: str) -> None:
    """The API server does not take it, and says so."""
    with pytest.raises(RuntimeError, match=re.escape(says)):
        api.kubectl("apply", "-n", body["metadata"]["namespace"], "-f", "-", given=json.dumps(body))


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


async def conditions(world: World, kind: Kind, name: str) -> list[tuple[str, str]]:
    """Status and reason of each condition of an object."""
    body = await world.kube.get(kind, world.namespace, name)
    assert body is not None
    return [(c["status"], c["reason"]) for c in (body.get("status") or {}).get("conditions", ())]
