"""`moorage doctor` itself: asks, composes, prints. Layer: CLI."""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated

import typer

from moorage.cli import connection, options, printing
from moorage.cli.doctor import (
    definitions,
    findings,
    gateway,
    namespaces,
    network,
    platform,
    server,
    storage,
)
from moorage.cli.doctor.asked import Answer, Ask
from moorage.cli.doctor.findings import Finding
from moorage.cli.doctor.kubectl import Kubectl
from moorage.cli.doctor.probe import Probe

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Wish:
    """What is to be looked at. `agents`: namespaces beside those that the operator names. `probe`: whether policies are tried."""

    namespace: str
    agents: tuple[str, ...] = ()
    storage_class: str | None = None
    probe: bool = False
    probe_image: str | None = None


def doctor(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="The platform's namespace.")] = "moorage",
    agents: Annotated[
        list[str] | None,
        typer.Option("--agents", help="A namespace of agents (else those the operator serves); may be given again."),
    ] = None,
    storage_class: Annotated[
        str | None,
        typer.Option("--storage-class", help="Storage class of workspaces (else the operator's, else the default)."),
    ] = None,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Try whether network policies hold: two pods for some seconds, then removed."),
    ] = False,
    probe_image: Annotated[
        str | None, typer.Option("--probe-image", help="Their image, with python3 (else the operator's stock image).")
    ] = None,
    url: options.Url = None,
    key: options.Key = None,
    as_json: options.Json = False,
) -> None:
    """Check a cluster for Moorage and say how to mend what is wrong. Only reads, unless --probe; exit code 1 when something is wrong."""
    for option, name, shape in [
        ("--namespace", namespace, _LABEL),
        *(("--agents", each, _LABEL) for each in agents or ()),
        *([("--storage-class", storage_class, _NAME)] if storage_class is not None else []),
    ]:
        if shape.fullmatch(name) is None:
            raise typer.BadParameter(f"{name!r} is no name of Kubernetes", param_hint=option)
    wish = Wish(namespace, tuple(agents or ()), storage_class, probe, probe_image)
    named = connection.is_named(url, os.environ)
    where = connection.find(url, key, os.environ) if named else None
    found = examine(Kubectl(), where, wish, metadata.version("moorage"))
    if as_json:
        printing.document({"ok": findings.code(found) == 0, "findings": [each.document() for each in found]})
    else:
        _show(found)
    if code := findings.code(found):
        raise typer.Exit(code)


def examine(
    ask: Ask,
    where: connection.Connection | None,
    wish: Wish,
    version: str,
    look: Callable[[connection.Connection], gateway.Seen] = gateway.look,
) -> list[Finding]:
    """Every finding, in the order in which they are mended. `version`: of this command line."""
    version_of_server = ask(*server.QUESTION)
    found = [server.judge(version_of_server)]
    parts = Answer("refused")
    if version_of_server.outcome in ("answered", "forbidden"):
        found += _definitions(ask, version)
        parts = ask(*platform.question(wish.namespace))
        found += platform.judge(wish.namespace, parts, version)
        told = platform.told(parts)
        found.append(storage.judge(ask(*storage.QUESTION), wish.storage_class or told.storage_class))
        served = tuple(dict.fromkeys((*wish.agents, *told.namespaces)))
        spaces = [namespaces.judge(name, ask(*namespaces.question(name))) for name in served]
        found += [*namespaces.unknown(served), *spaces]
        found += _network(ask, wish, served, wish.probe_image or told.sandbox_image)
    service = platform.gateway_service(parts)
    if where is None:
        return found + gateway.unnamed(wish.namespace, service)
    return found + gateway.judge(look(where), where, wish.namespace, service)


def _definitions(ask: Ask, version: str) -> list[Finding]:
    from moorage_api import schema
    from moorage_api.resources import RESOURCES, custom_resource_definition

    shipped = [custom_resource_definition(resource, schema.json_schema(resource.kind)) for resource in RESOURCES]
    return [definitions.judge(each, ask(*definitions.question(each)), version) for each in shipped]


def _network(ask: Ask, wish: Wish, served: Sequence[str], image: str | None) -> list[Finding]:
    if not wish.probe:
        return [network.judge(ask(*network.QUESTION))]
    if not served or image is None:
        what = "namespace of agents: --agents NAMESPACE" if not served else "image with python3: --probe-image IMAGE"
        return [
            Finding(network.CHECK, "not tried", "The probe does not know where to run, or what.", (f"Name a {what}",))
        ]
    printing.note(f"Trying in {served[0]} whether network policies hold; this may take minutes.")
    token = secrets.token_hex(4)
    pause = threading.Event().wait
    return Probe(ask, served[0], token=token, monotonic=time.monotonic, pause=pause).run(image)


def _show(found: Sequence[Finding]) -> None:
    first = max(map(len, findings.LEVELS))
    second = max(len(each.check) for each in found)
    for each in found:
        printing.out(printing.clean(f"{each.level.ljust(first)}  {each.check.ljust(second)}  {each.says}"))
        for line in each.mend:
            printing.out(printing.clean(f"    {line}"))
    printing.note(findings.summary(found))
