"""How writes of an operator are told from reads, and numbered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from api.points import Points, Rest

pytestmark = pytest.mark.unit

HOST = "https://127.0.0.1:6443"


class Server:
    """Takes every request."""

    async def request(self, *_: Any, **__: Any) -> Any:
        async def read() -> bytes:
            return b"{}"

        return SimpleNamespace(status=200, read=read)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/api/v1/namespaces/one/pods", "POST pods"),
        ("DELETE", "/api/v1/namespaces/one/pods/sb-1", "DELETE pods"),
        ("PATCH", "/apis/moorage.dev/v1alpha1/namespaces/one/hostedagents/a/status", "PATCH hostedagents/status"),
        ("PATCH", "/apis/networking.k8s.io/v1/namespaces/one/networkpolicies/a?force=true", "PATCH networkpolicies"),
        ("POST", "/apis/coordination.k8s.io/v1/namespaces/one/leases", "POST leases"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/one/leases/a", None),
        ("GET", "/api/v1/namespaces/one/pods?limit=500", None),
    ],
)
async def test_a_write_is_named_and_nothing_else_is(tmp_path: Path, method: str, path: str, name: str | None) -> None:
    switch, record = tmp_path / "switch", tmp_path / "record"
    rest = Rest(Server(), Points(switch, record, None))
    await rest.request(method, HOST + path)
    assert not record.exists(), "nothing is counted yet"
    switch.touch()
    await rest.request(method, HOST + path)
    assert (record.read_text() if record.exists() else None) == (None if name is None else f"{name}\n")
