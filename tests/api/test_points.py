"""How writes of an operator are told from reads, and numbered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.points import REPEATED, Counted, Points

pytestmark = pytest.mark.unit


class Server:
    """Takes every request."""

    async def ask(self, *_: Any, **__: Any) -> tuple[int, bytes]:
        return 200, b"{}"


def counted(points: Points) -> Counted:
    nothing: Any = None
    server: Any = Server()
    kube = Counted(nothing, server)
    kube.points = points
    return kube


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "/api/v1/namespaces/one/pods", "POST pods"),
        ("DELETE", "/api/v1/namespaces/one/pods/sb-1", "DELETE pods"),
        ("PATCH", "/apis/moorage.dev/v1alpha1/namespaces/one/hostedagents/a/status", "PATCH hostedagents/status"),
        ("PATCH", "/apis/networking.k8s.io/v1/namespaces/one/networkpolicies/a", "PATCH networkpolicies"),
        ("POST", "/apis/coordination.k8s.io/v1/namespaces/one/leases", "POST leases"),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/one/leases/a", None),
        ("GET", "/api/v1/namespaces/one/pods", None),
    ],
)
async def test_a_write_is_named_and_nothing_else_is(tmp_path: Path, method: str, path: str, name: str | None) -> None:
    switch, record = tmp_path / "switch", tmp_path / "record"
    kube = counted(Points(switch, record, None))
    await kube.call(method, path)
    assert not record.exists(), "nothing is counted yet"
    switch.touch()
    await kube.call(method, path)
    assert (record.read_text() if record.exists() else None) == (None if name is None else f"{name}\n")


def test_what_each_look_at_everything_says_again_is_one_point_and_none_where_it_was_said_before(tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    (said,) = REPEATED
    before, points = Points(switch, tmp_path / "record", None), Points(switch, tmp_path / "record", None)
    assert before.begin(said) == 0, "nothing is counted yet"
    switch.touch()
    assert [points.begin(name) for name in (said, "POST pods", said, "POST pods")] == [1, 2, 0, 3]
    assert before.begin(said) == 0
