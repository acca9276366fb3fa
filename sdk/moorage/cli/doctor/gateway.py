"""The gateway as a caller reaches it, its parts by its own word, and the key. Layer: CLI; `look` asks, the rest is pure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moorage import _errors
from moorage.cli.doctor.findings import Finding

if TYPE_CHECKING:
    from moorage._client import AsyncClient
    from moorage.cli.connection import Connection

SECONDS = 15.0
NAMES = {"redis": "Redis", "store": "object store"}


@dataclass(frozen=True)
class Seen:
    """`ready`: what the gateway says of itself. `agents`: how many the key may use. Each, or the error in its place."""

    ready: Mapping[str, Any] | _errors.MoorageError
    agents: int | _errors.MoorageError | None = None


def look(where: Connection, seconds: float = SECONDS) -> Seen:
    """Asks a gateway twice: for itself, then with the key."""
    return asyncio.run(_look(where, seconds))


async def _look(where: Connection, seconds: float) -> Seen:
    from moorage._client import AsyncClient

    try:
        async with AsyncClient(url=where.url, key=where.key, timeout=seconds) as client:
            async with asyncio.timeout(seconds):
                ready = await client.readiness()
            return Seen(ready, await _agents(client, seconds))
    except TimeoutError:
        return Seen(_errors.ConnectionLost(f"{where.url} gave no whole answer within {seconds:g} s."))
    except _errors.MoorageError as fault:
        return Seen(fault)


async def _agents(client: AsyncClient, seconds: float) -> int | _errors.MoorageError:
    try:
        async with asyncio.timeout(seconds):
            return len(await client.list_agents())
    except TimeoutError:
        return _errors.ConnectionLost(f"The agents were not told within {seconds:g} s.")
    except _errors.MoorageError as fault:
        return fault


def unnamed(namespace: str, service: str) -> list[Finding]:
    """When no gateway is named."""
    return [Finding("gateway URL", "not tried", "No URL was given.", _way(namespace, service))]


def judge(seen: Seen, where: Connection, namespace: str, service: str) -> list[Finding]:
    """On what was seen there."""
    ready = seen.ready
    if isinstance(ready, _errors.ApiStatusError):
        says = f"{where.url} refuses: {ready.message}"
        return [Finding("gateway URL", "wrong", says, (ready.hint or "Check --url, and gateway.hosts of the chart.",))]
    if isinstance(ready, _errors.MoorageError):
        return [Finding("gateway URL", "wrong", ready.message, _way(namespace, service))]
    words = {name: str(word) for name, word in ready.items() if name != "status"}
    if words.get("gateway") == "draining":
        says = f"{where.url} is draining: it is being stopped or replaced."
        return [Finding("gateway URL", "wrong", says, (f"kubectl get pods --namespace {namespace}",))]
    found = [Finding("gateway URL", "ok", f"{where.url} answers")]
    found += [_part(name, word, namespace, service) for name, word in sorted(words.items())]
    return [*found, _key(seen.agents, where)]


def _part(name: str, word: str, namespace: str, service: str) -> Finding:
    check = NAMES.get(name, name)
    if word == "ok":
        return Finding(check, "ok", "the gateway reaches it")
    logs = f"kubectl logs --namespace {namespace} deployment/{service} --tail=30"
    values = "store.* of the chart's values" if name == "store" else "valkey.* or redis.* of the chart's values"
    says = f"The gateway does not reach it ({word})."
    return Finding(check, "wrong", says, (logs, f"Check {values}, and networkPolicy.gatewayTo."))


def _key(agents: int | _errors.MoorageError | None, where: Connection) -> Finding:
    if isinstance(agents, int):
        what = "the key is valid" if where.key else "no key is asked for"
        return Finding("key", "ok", f"{what}; agents that may be used: {agents}")
    if isinstance(agents, _errors.ApiStatusError) and agents.status == 401:
        if where.key is None:
            return Finding("key", "not tried", "No key is known for this URL.", ("moorage login, or --key KEY",))
        return Finding("key", "wrong", agents.message, (agents.hint,))
    if agents is None:
        return Finding("key", "not tried", "The gateway was not asked.")
    mend = agents.hint or "Try again."
    return Finding("key", "could not look", agents.message, (mend,))


def _way(namespace: str, service: str) -> tuple[str, ...]:
    return (
        f"kubectl port-forward --namespace {namespace} service/{service} 8080:8080",
        "Then: moorage doctor --url http://127.0.0.1:8080; or name the gateway's public URL.",
    )
