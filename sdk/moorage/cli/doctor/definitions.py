"""The definition of a kind as it is installed, beside the one that this command line ships. Layer: CLI; pure.

A definition bears no version of the platform, so the two are compared. What only explains (`description`) does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moorage.cli.doctor.asked import Answer, part
from moorage.cli.doctor.findings import Finding, unseen

UPGRADE = "kubectl apply --server-side --force-conflicts -f charts/moorage/crds/"
UPGRADE_CLI = "pip install --upgrade 'moorage[cli]'"
SHOWN = 3


def question(shipped: Mapping[str, Any]) -> tuple[str, ...]:
    """What is asked for a definition."""
    return ("get", "customresourcedefinition", name(shipped), "-o", "json")


def name(shipped: Mapping[str, Any]) -> str:
    """`hostedagents.moorage.dev`."""
    return str(shipped["metadata"]["name"])


def judge(shipped: Mapping[str, Any], answer: Answer, version: str) -> Finding:
    """On the answer to `question`. `version`: of this command line."""
    check = f"CRD {name(shipped)}"
    if answer.outcome == "absent":
        return Finding(check, "wrong", "It is not installed.", (UPGRADE,))
    held = answer.object()
    if held is None:
        return unseen(check, "get customresourcedefinitions", answer)
    for condition in ("NamesAccepted", "Established"):
        if (said := _refused(held, condition)) is not None:
            return Finding(
                check, "wrong", f"The API server does not serve it: {said}", (f"kubectl describe crd {name(shipped)}",)
            )
    return _compared(check, shipped, held, version)


def _refused(held: Mapping[str, Any], kind: str) -> str | None:
    """The message of a condition that does not hold."""
    for one in part(held, "status", "conditions") or ():
        if part(one, "type") == kind and part(one, "status") != "True":
            return str(part(one, "message") or part(one, "reason"))
    return None


def _compared(check: str, shipped: Mapping[str, Any], held: Mapping[str, Any], version: str) -> Finding:
    (wanted,) = shipped["spec"]["versions"]
    versions = part(held, "spec", "versions") or []
    served = [str(part(one, "name")) for one in versions if part(one, "served") is True]
    if wanted["name"] not in served:
        says = f"It serves {', '.join(served) or 'no version'}; this command line ({version}) needs {wanted['name']}."
        return Finding(check, "wrong", says, _either())
    found = next(one for one in versions if part(one, "name") == wanted["name"])
    # Which version is stored is the server's matter.
    ours = {"names": shipped["spec"]["names"], **{k: v for k, v in wanted.items() if k != "storage"}}
    theirs = {"names": part(held, "spec", "names"), **{k: v for k, v in found.items() if k != "storage"}}
    lacking, more = list(lacks(theirs, ours)), list(lacks(ours, theirs))
    if lacking and more:
        says = f"It is not the one of this command line ({version}): it differs at {_places(lacking)}."
        return Finding(check, "wrong", says, _either())
    if lacking:
        says = f"It is older than this command line ({version}): it lacks {_places(lacking)}."
        return Finding(check, "wrong", says, (UPGRADE,))
    if more:
        says = f"It is newer than this command line ({version}): it also has {_places(more)}."
        return Finding(check, "wrong", says, (UPGRADE_CLI,))
    return Finding(check, "ok", f"{wanted['name']} is served, as this command line ({version}) ships it")


def _either() -> tuple[str, ...]:
    return (UPGRADE, f"Or, if the platform is newer than this command line: {UPGRADE_CLI}")


def lacks(held: Any, wanted: Any, at: str = "") -> Iterator[str]:
    """Places where `held` does not say what `wanted` says."""
    if isinstance(wanted, Mapping) and isinstance(held, Mapping):
        for key, value in wanted.items():
            if key == "description" and isinstance(value, str):
                continue
            place = f"{at}.{key}" if at else str(key)
            if key in held:
                yield from lacks(held[key], value, place)
            else:
                yield place
    elif isinstance(wanted, list) and isinstance(held, list):
        known = [_silent(each) for each in held]
        if any(_silent(each) not in known for each in wanted):
            yield at
    elif held != wanted:
        yield at


def _silent(value: Any) -> Any:
    """Without descriptions."""
    if isinstance(value, Mapping):
        return {k: _silent(v) for k, v in value.items() if not (k == "description" and isinstance(v, str))}
    return [_silent(each) for each in value] if isinstance(value, list) else value


def _places(places: list[str]) -> str:
    short = [_short(each) for each in places]
    rest = len(short) - SHOWN
    return ", ".join(short[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _short(place: str) -> str:
    """`spec.pool.min` of `schema.openAPIV3Schema.properties.spec.properties.pool.properties.min`."""
    return place.removeprefix("schema.openAPIV3Schema.").replace("properties.", "").replace(".items", "[]")
