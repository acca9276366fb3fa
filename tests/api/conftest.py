"""An API server without a node, what stands in for one, and what worlds are made of. Skipped, with the reason, where that cannot be had."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from api.points import POINTS
from api.processes import Nursery
from api.world import Means
from cluster.node import build
from cluster.node.control import ControlPlane, Given
from fakes.stand_in import StandIn
from fakes.valkey import Valkey
from moorage_api.resources import RESOURCES
from moorage_operator.kube import Kube

ROOT = Path(__file__).resolve().parents[2]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """At how many points operators were killed is part of what a run says of itself."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, said in getattr(report, "user_properties", ()):
                if name == POINTS and report.when == "call":
                    terminalreporter.write_line(str(said))


@pytest.fixture(scope="session")
def programs() -> None:
    """What an API server of our own needs; skipped, with the reason, where it is not to be had."""
    try:
        build.api_binary()
    except build.Missing as why:
        pytest.skip(f"no API server on this machine: {why}")


@pytest.fixture(scope="session")
def plane(programs: None) -> Iterator[ControlPlane]:
    """An API server of this session's own, where our kinds are known."""
    folder = Path(tempfile.mkdtemp(prefix="moorage-api-"))
    with ControlPlane.started(folder, *(ROOT / resource.file for resource in RESOURCES)) as started:
        yield started


@pytest.fixture(scope="session")
def api_server(request: pytest.FixtureRequest) -> Iterator[ControlPlane | Given]:
    """Any API server: the cluster that KUBECONFIG names, which gets a namespace and the kinds, else one of this session's own."""
    theirs = os.environ.get("KUBECONFIG")
    if not theirs:
        yield request.getfixturevalue("plane")
        return
    given = Given(Path(theirs).resolve())
    for resource in RESOURCES:
        given.kubectl("apply", "--server-side", "-f", str(ROOT / resource.file))
        given.kubectl("wait", "--for=condition=Established", "-f", str(ROOT / resource.file), "--timeout=30s")
    yield given


@pytest.fixture(scope="session")
def furnished(plane: ControlPlane) -> Iterator[dict[str, Any]]:
    """What lives as long as the session: pods get Ready, operators can be started, a ledger answers."""
    standing = StandIn(plane.api, plane.place.logs / "stand-in.log")
    nursery = Nursery(plane.place.logs / "nursery.log")
    valkey = Valkey(appendonly=False)
    standing.start()
    try:
        yield {
            "nursery": nursery,
            "kubeconfig": plane.operator_kubeconfig,
            "socket": valkey.socket,
            "nodes": standing.nodes,
        }
    finally:
        nursery.close()
        standing.stop()
        valkey.close()


@pytest.fixture
async def means(plane: ControlPlane, furnished: dict[str, Any], tmp_path: Path) -> AsyncIterator[Means]:
    """What worlds are made of."""
    configuration = Configuration()
    await config.load_kube_config(config_file=str(plane.kubeconfig), client_configuration=configuration)
    async with ApiClient(configuration=configuration) as api:
        yield Means(kube=Kube(api), folder=tmp_path, **furnished)


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    """A number a world, so that no two share a namespace."""
    return itertools.count(1)
