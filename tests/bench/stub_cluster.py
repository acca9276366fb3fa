"""The stub cluster: a real API server and etcd without a node, and around them what an operator works with.

    with stub_cluster() as cluster:      a namespace, an operator that holds the lease, nothing in the pools
        cluster.apply("warm", {"min": 20, "max": 40})

Layer: composition of the benches. Real are API server, etcd (without fsync), Valkey (`appendfsync always`), the operator's process with a
service account's standing, and the gateway's half of a claim (`claimer.py`). Stand-ins are the kubelet (`fakes.stand_in`: a pod is bound
and Ready some `DELAY` after it was made) and the shims (`stand_in_shims.py`). Load, shims, Valkey and stand-ins share the first core; the
operator has the last one, which API server and etcd use as well.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from bench import processes
from bench.stand_in_shims import addresses
from bench.subjects import HERE, CannotRun, free_port
from bench.workers import Worker
from cluster.node import build
from cluster.node.api import Api, Away
from cluster.node.control import ControlPlane
from fakes.audit import Audit
from fakes.stand_in import StandIn
from fakes.valkey import Valkey
from moorage_api.ledger import keys
from moorage_api.resources import HOSTED_AGENT
from moorage_operator import marks
from moorage_operator.kube import AGENTS, CLAIMS, PODS, POLICIES
from moorage_operator.objects import SHIM_PORT

ROOT = HERE.parents[1]
SPACE = "bench"  # the operator's namespace and the agents', and so the tenant
IMAGE = "registry.example/agent:1"
DELAY = 0.03
SANDBOXES = 2_500  # more pods than one run makes
WITHIN = 90.0
TOKEN_KEY = "ab" * 32


class OperatorProcess:
    """One `moorage-operator`, on the last core."""

    def __init__(self, plane: ControlPlane, redis_url: str, log: Path, *, resync: float = 300.0) -> None:
        self._port = free_port()
        env = {
            "KUBECONFIG": str(plane.operator_kubeconfig),
            "MOORAGE_REDIS_URL": redis_url,
            "MOORAGE_TOKEN_KEY": TOKEN_KEY,
            "MOORAGE_NAMESPACE": SPACE,
            "MOORAGE_NAMESPACES": SPACE,
            "MOORAGE_SANDBOX_IMAGE": "registry.example/sandbox:1",
            "MOORAGE_SANDBOX_URL": "http://192.0.2.2:8081",
            "MOORAGE_GATEWAY_CIDR": "192.0.2.2/32",
            "MOORAGE_HEALTH_HOST": "127.0.0.1",
            "MOORAGE_HEALTH_PORT": str(self._port),
            "MOORAGE_RESYNC_SECONDS": str(resync),
        }
        with log.open("ab") as errors:
            command = [sys.executable, "-m", "moorage_operator"]
            self._child = processes.start(command, core=processes.cores()[1], env=env, stderr=errors)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def numbers(self) -> dict[str, float]:
        """Its metrics; {} before it listens."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            return {}
        finally:
            connection.close()
        return {name: float(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}

    def close(self) -> None:
        """Ends it; it gives its lease back."""
        processes.end(self._child)


@dataclass
class Cluster:
    """Everything started. `log`: the operators'."""

    plane: ControlPlane
    api: Api
    valkey: Valkey
    standing: StandIn
    claimer: Worker
    log: Path
    operator: OperatorProcess
    sessions: int = 0
    revisions: dict[str, str] = field(default_factory=dict)

    # -- the operator

    def audit(self) -> Audit:
        """What the operator asks of the API server from here on."""
        return Audit(self.plane.audit, [SPACE])

    def restart(self, resync: float) -> float:
        """Another operator after the one before has ended; when it was started (time.monotonic). `resync`: seconds between its looks at
        everything."""
        self.operator.close()
        began = time.monotonic()
        self.operator = OperatorProcess(self.plane, self.valkey.url, self.log, resync=resync)
        return began

    def until_leads(self, sandboxes: int = 0) -> None:
        """Waits until the operator works and knows so many sandboxes."""

        def leads() -> bool:
            numbers = self.operator.numbers()
            return (
                numbers.get("moorage_operator_leader") == 1.0
                and numbers.get("moorage_operator_sandboxes", -1) >= sandboxes
            )

        self.until(f"the operator works and knows {sandboxes} sandboxes", leads)

    # -- people

    def apply(self, agent: str, pool: dict[str, int]) -> None:
        """A HostedAgent, or another pool for it."""
        spec = {"image": IMAGE, "pool": pool, "workspace": {"size": "16Mi"}}
        if not self.api.merge(self._path(agent), {"spec": spec}):
            kind = {"apiVersion": AGENTS.api, "kind": "HostedAgent"}
            self.api.create(self._path(), {**kind, "metadata": {"name": agent, "namespace": SPACE}, "spec": spec})

    def remove(self, agent: str) -> None:
        """Takes a HostedAgent away."""
        self.api.delete(self._path(agent))

    def until_agents(self, count: int) -> None:
        """Waits until there are so many HostedAgents, and what others made has gone after them."""

        def gone() -> bool:
            return all(len(self.api.get(kind.path(SPACE))["items"]) <= count for kind in (AGENTS, POLICIES))

        self.until("what removed agents left is gone", gone, every=500)

    def until_ready(self, agent: str, warm: int) -> None:
        """Waits for the condition Ready of its newest spec and so many warm sandboxes, by its status and by the pool itself: a status may
        be a second old, and say what was so before a crowd took them."""

        def ready() -> bool:
            body = self.api.get(self._path(agent))
            status = body.get("status") or {}
            held = {one["type"]: one["status"] for one in status.get("conditions", ())}
            self.revisions[agent] = status.get("revision", "")
            fresh = status.get("observedGeneration") == body["metadata"]["generation"]
            told = fresh and held.get("Ready") == "True" and (status.get("sessions") or {}).get("warm", 0) >= warm
            return bool(told and self._pooled(agent) >= warm)

        self.until(f"{agent} is Ready with {warm} warm sandboxes", ready)

    def until_noted(self) -> None:
        """Waits until the claim of every session says whose it is."""

        def noted() -> bool:
            claims = self.api.get(CLAIMS.path(SPACE))["items"]
            return sum(1 for one in claims if marks.text(one, "annotations", marks.SESSION)) >= self.sessions

        self.until("every session is noted on its claim", noted, every=500)

    def pods(self) -> int:
        """How many there are."""
        return len(self.api.get(PODS.path(SPACE))["items"])

    def until(self, what: str, look: Callable[[], bool], *, within: float = WITHIN, every: int = 50) -> None:
        """Waits for something, which is looked for every so many milliseconds. Raises RuntimeError with the operator's last lines."""
        end, pause = time.monotonic() + within, select.poll()
        while not look():
            if time.monotonic() > end:
                raise RuntimeError(f"not within {within:g} s: {what}\n{self.log.read_text()[-3000:]}")
            pause.poll(every)

    @staticmethod
    def until_time(at: float) -> None:
        """Waits for an instant (time.monotonic): load comes at its time, and what is measured is how long it lasts."""
        pause = select.poll()
        while (left := at - time.monotonic()) > 0:
            pause.poll(max(1, int(left * 1000)))

    def _pooled(self, agent: str) -> int:
        with redis.Redis.from_url(self.valkey.url) as client:
            return int(client.llen(keys.pool(SPACE, agent, self.revisions[agent])))

    def _path(self, agent: str = "") -> str:
        return AGENTS.path(SPACE, agent)

    # -- the gateway's half

    def claim(self, agent: str, count: int, *, rate: float = 0.0, within: float = WITHIN / 2) -> dict[str, Any]:
        """Brings fresh sessions of an agent's to sandboxes, so many a second or all at once, each within so many seconds: see `claimer`.

        Raises RuntimeError where the load itself broke.
        """
        names = [f"session-{self.sessions + number}" for number in range(count)]
        self.sessions += count
        self.claimer.send(
            {
                "tenant": SPACE,
                "agent": agent,
                "revision": self.revisions[agent],
                "sessions": names,
                "rate": rate,
                "within": within,
            }
        )
        found = self.claimer.line(WITHIN * 2)
        if "broken" in found:
            raise RuntimeError(f"the claims did not run: {found['broken']}")
        return found


class Statuses:
    """When each HostedAgent's status was first seen, and first seen Ready: name → time.monotonic(). One thread, one watch."""

    def __init__(self, api: Api) -> None:
        listed = api.get(AGENTS.path(SPACE))
        self._watch = api.watch(AGENTS.path(SPACE), listed["metadata"]["resourceVersion"])
        self.first: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(Away):
            for _, body in self._watch:
                now, name = time.monotonic(), body["metadata"]["name"]
                status = body.get("status") or {}
                if status.get("observedGeneration") == body["metadata"].get("generation"):
                    self.first.setdefault(name, now)
                    if any(one["type"] == "Ready" and one["status"] == "True" for one in status["conditions"]):
                        self.ready.setdefault(name, now)
        self._watch.close()

    def close(self) -> None:
        """Ends the watch."""
        self._watch.end()
        self._thread.join(10)


@contextlib.contextmanager
def stub_cluster() -> Iterator[Cluster]:
    """The whole set-up, ended in reverse order whatever happens. Raises CannotRun where there can be no API server."""
    try:
        build.api_binary()
    except build.Missing as why:
        raise CannotRun(f"no API server on this machine: {why}") from why
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="moorage-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        plane = stack.enter_context(ControlPlane.started(folder / "plane", ROOT / HOSTED_AGENT.file))
        with processes.on_core(processes.cores()[0]):
            valkey = Valkey()
            stack.callback(valkey.close)
            log = plane.place.logs / "stand-in.log"
            standing = StandIn(Api(plane.place, kept=True), log, addresses=addresses(SANDBOXES), delay=DELAY)
            standing.start()
            stack.callback(standing.stop)
        shims = Worker(HERE / "stand_in_shims.py", str(SANDBOXES), str(SHIM_PORT), core=processes.cores()[0])
        stack.callback(shims.close)
        shims.line(WITHIN)
        claimer = Worker(HERE / "claimer.py", valkey.url, core=processes.cores()[0])
        stack.callback(claimer.close)
        api = Api(plane.place, kept=True)
        space = {"name": SPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": space})
        log = folder / "operator.log"
        operator = OperatorProcess(plane, valkey.url, log)
        cluster = Cluster(plane, api, valkey, standing, claimer, log, operator)
        stack.callback(lambda: cluster.operator.close())
        cluster.until_leads()
        yield cluster
