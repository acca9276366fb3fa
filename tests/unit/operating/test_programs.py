"""Which accounts and policies go with the last program of a toolbox. The API server is played."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from moorage_operator import marks
from moorage_operator.kube import PODS, Kind
from moorage_operator.programs import Programs
from unit.operating.test_program_pods import SETTINGS

pytestmark = pytest.mark.unit


class Kube:
    """Holds one account and one policy of each name, all with our labels, and no pod."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.deleted: list[tuple[str, str]] = []

    async def each(self, kind: Kind, namespace: str, *, labels: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        for name in () if kind is PODS else self.names:
            meta = {"name": name, "namespace": namespace, "uid": name, "labels": {**labels, marks.TOOLBOX: "t"}}
            yield {"metadata": meta}

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        self.deleted.append((kind.plural, name))


async def test_what_somebody_gave_our_labels_is_not_ours_to_remove() -> None:
    kube = Kube("moorage-t.programs", "moorage-other.programs", "theirs")
    await Programs(kube, SETTINGS).look([])  # type: ignore[arg-type]
    assert set(kube.deleted) == {("networkpolicies", "moorage-t.programs"), ("serviceaccounts", "moorage-t.programs")}
