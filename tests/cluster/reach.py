"""What a sandbox is asked to reach, and what is there to be reached: targets as `cluster/agent/reaching.py` has them. Layer: I/O rim."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Sequence

from cluster.agent.reaching import all_of
from cluster.node import plan
from cluster.plain_pod import PlainPods
from cluster.served import Served
from fakes.platform import poll

NODE = (f"{plan.HOST}:{plan.API_PORT}", f"{plan.API_SERVICE}:443", f"{plan.HOST}:{plan.KUBELET_PORT}")
"""The API server, its Service, the kubelet."""
SERVERS = (f"udp:{plan.HOST}:{plan.DNS_PORT}", f"{plan.HOST}:{plan.DNS_PORT}")
"""The name server, both ways."""
NAME = f"name:kubernetes.default.svc.{plan.DNS_DOMAIN}"
METADATA = "169.254.169.254:80"
"""Where clouds keep credentials. On the node nobody answers there anyway: that no rule leads there is for the object to say."""
PORT = 8000
LISTENS = f"import http.server; http.server.ThreadingHTTPServer(('', {PORT}), http.server.BaseHTTPRequestHandler).serve_forever()"
TRIES = 20
"""Of a second each, while something is not reached."""
LOOKS = """
import json, sys
sys.path.insert(0, "/app")
from reaching import all_of
for _ in range({tries}):
    found = all_of({wanted!r} + {closed!r})
    if all(found[each] for each in {wanted!r}):
        break
print(json.dumps(found))
"""
BACKLOG = 1024
"""Connections wait here unaccepted: more than any test makes."""


@contextlib.contextmanager
def outside() -> Iterator[str]:
    """A listening port of this machine at an address that is none of the cluster's. Raises OSError where it has no other address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("203.0.113.1", 9))  # sends nothing: only the route is asked for
        host = str(asking.getsockname()[0])
    with socket.create_server((host, 0), backlog=BACKLOG) as server:
        yield f"{host}:{server.getsockname()[1]}"


def started(pods: PlainPods, name: str) -> str:
    """A pod of no agent's that listens; the target it is."""
    pods.start(name, LISTENS)
    target = f"{pods.address(name)}:{PORT}"
    poll(f"{name} listens", lambda: here([target])[target], within=30)
    return target


def here(targets: Sequence[str]) -> dict[str, bool]:
    """What this machine, which is the node, reaches of them: whether anybody is there."""
    return all_of(targets)


def from_plain_pod(pods: PlainPods, name: str, wanted: Sequence[str], closed: Sequence[str]) -> dict[str, bool]:
    """What a pod under no policy for its egress reaches, once it reaches what is wanted or has tried `TRIES` times: policies that let
    its namespace in count for a new pod a moment after it began. Its image is the test agent's.
    """
    return dict(json.loads(pods.run(name, LOOKS.format(wanted=list(wanted), closed=list(closed), tries=TRIES))))


def until_caged(world: Served, agent: str, inside: Sequence[str], others: Sequence[str]) -> None:
    """Waits until a sandbox of the agent reaches everything `inside` and nothing of the others. AssertionError with what it reached."""
    seen: dict[str, bool] = {}

    def caged() -> bool:
        nonlocal seen
        asked = " ".join(["reach", *inside, *others])
        seen = dict(json.loads(world.ask(agent, asked, f"{agent}-reach-session").output_text))
        return seen == {**dict.fromkeys(inside, True), **dict.fromkeys(others, False)}

    try:
        poll("the policy holds", caged, within=30)
    except AssertionError as fault:
        raise AssertionError(f"{fault}: {seen}") from fault
