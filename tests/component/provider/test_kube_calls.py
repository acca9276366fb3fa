"""What the operator sends an API server is the object as it is, of the kind that the verb wants. The server is played."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from moorage_operator.compose import talking
from moorage_operator.kube import CLAIMS, PODS, Kube

pytestmark = pytest.mark.component

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sb-1", "namespace": "one", "annotations": {"note": 'with "quotes" and é'}},
    "spec": {"containers": [{"name": "agent", "ports": [8080], "tty": False, "env": None}], "grace": 1.5},
}


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "as through a proxy"])
async def test_bodies_arrive_whole_and_queries_beside_them(proxied: bool) -> None:
    heard: list[tuple[str, str, str, Any]] = []

    async def hear(request: web.Request) -> web.Response:
        text = await request.text()
        heard.append((request.method, str(request.rel_url), request.content_type, json.loads(text) if text else None))
        return web.json_response({"kind": "Pod", "metadata": {}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hear)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with ApiClient(configuration=configuration) as api, talking(configuration, Kube) as direct:
            kube = Kube(api) if proxied else direct
            await kube.create(PODS, POD)
            await kube.apply(PODS, POD, manager="me")
            await kube.merge(CLAIMS, "one", "ws-1", {"metadata": {"annotations": {"gone": None}}})
            await kube.delete(PODS, "one", "sb-1", uid="u", grace=1)
            await kube.get(PODS, "one", "sb-1")
    finally:
        await runner.cleanup()
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    pods, claims = "/api/v1/namespaces/one/pods", "/api/v1/namespaces/one/persistentvolumeclaims"
    assert heard == [
        ("POST", pods, "application/json", POD),
        ("PATCH", f"{pods}/sb-1?fieldManager=me&force=true", "application/apply-patch+yaml", POD),
        ("PATCH", f"{claims}/ws-1", "application/merge-patch+json", {"metadata": {"annotations": {"gone": None}}}),
        (
            "DELETE",
            f"{pods}/sb-1",
            "application/json",
            {**options, "preconditions": {"uid": "u"}, "gracePeriodSeconds": 1},
        ),
        ("GET", f"{pods}/sb-1", "application/json", None),
    ]
