"""What the object of a routine says of its runs, and events of failed ones beside it, or of lost volumes beside a HostedAgent: what
`kubectl get`, `kubectl describe` and `kubectl get events` show. Layer: pure.

An event is named by its run or volume: said again, by an operator that ended before it wrote the status, it is there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from moorage_api.ledger.routines import Standing
from moorage_operator.kube import Object
from moorage_operator.objects import Program

FAILURES = frozenset({"failed", "timed_out"})
MOST_TEXT = 1000
"""Characters of an event's message; an API server takes 1024."""


def failure(body: Mapping[str, Any], standing: Standing | None, now: float) -> Object | None:
    """The event of a routine's newest run, where that failed and its object does not tell of it yet. `now` in epoch seconds."""
    if standing is None or standing.outcome not in FAILURES or not standing.last:
        return None
    if (body.get("status") or {}).get("lastRun") == instant(standing.last):
        return None
    meta = body["metadata"]
    run = hashlib.sha256(f"{meta.get('uid')}/{standing.last}/{standing.response}".encode()).hexdigest()[:16]
    said = f"the run that was due at {instant(standing.last)} {'ran too long' if standing.outcome == 'timed_out' else 'failed'}"
    about = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": meta["name"], "uid": meta.get("uid", "")}
    message = f"{said}: {standing.error or 'it does not say why'}"
    return _warning(f"{meta['name']}.{run}", meta["namespace"], about, "RunFailed", message, now)


def of_agent(program: Program, reason: str, subject: str, said: str, now: float) -> Object:
    """An event of a HostedAgent about something of its, once a reason and subject. `now` in epoch seconds."""
    about = {name: program.owner[name] for name in ("apiVersion", "kind", "name", "uid")}
    once = hashlib.sha256(f"{about['uid']}/{reason}/{subject}".encode()).hexdigest()[:16]
    return _warning(f"{about['name']}.{once}", program.namespace, about, reason, said, now)


def _warning(name: str, namespace: str, about: Mapping[str, Any], reason: str, message: str, now: float) -> Object:
    at = instant(int(now * 1000))
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": {**about, "namespace": namespace},
        "type": "Warning",
        "reason": reason,
        "message": message[:MOST_TEXT],
        "count": 1,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "source": {"component": "moorage-operator"},
    }


def runs(spec: Mapping[str, Any], standing: Standing | None) -> Object:
    """What a routine's status says of its runs; a field that has nothing to say is taken away."""
    said = spec["schedule"] or (f"every {spec['every']}" if spec["every"] else f"at {spec['at']}")
    found: Object = {
        "schedule": said if spec["timeZone"] == "UTC" or not spec["schedule"] else f"{said} {spec['timeZone']}"
    }
    standing = standing or Standing()
    found["nextRun"] = instant(standing.next)
    found["lastRun"] = instant(standing.last)
    found["lastOutcome"] = standing.outcome or None
    found["lastResponse"] = standing.response or None
    found["failures"] = standing.failures
    return found


def instant(milliseconds: int) -> str | None:
    """As objects of Kubernetes say it; None for 0."""
    if not milliseconds:
        return None
    return datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat().replace("+00:00", "Z")
