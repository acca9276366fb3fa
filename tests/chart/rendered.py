"""What `helm template` printed, as the tests of the chart look at it. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import yaml

Object = dict[str, Any]
MADE = {
    "valkey/password": r"[0-9a-f]{64}",
    "token-key/token-key": r"[0-9a-f]{64}",
    "first-key/key": r"mk_[0-9a-f]{16}_[0-9a-f]{64}",
}
"""Secrets that the chart makes: end of the name and key → shape."""


def objects(text: str) -> list[Object]:
    """Every object, in an order that no version of helm decides."""
    found = [each for each in yaml.safe_load_all(text) if each]
    return sorted(
        found, key=lambda each: (each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"])
    )


def golden(text: str) -> str:
    """The objects as text, chance taken out: a made Secret shows its shape."""
    found = objects(text)
    for each in found:
        if each["kind"] == "Secret" and "data" in each:
            each["data"] = {key: shape(each, key) for key in each["data"]}
    return "---\n".join(yaml.safe_dump(each, sort_keys=True, width=140) for each in found)


def shape(secret: Object, key: str) -> str:
    """The shape of a made Secret's value; AssertionError when it has another."""
    value = base64.b64decode(secret["data"][key]).decode()
    expected = MADE["-".join(secret["metadata"]["name"].split("-")[1:]) + "/" + key]
    assert re.fullmatch(expected, value), f"{secret['metadata']['name']} is not like {expected}"
    return expected


def pods(found: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Each pod or pod template: its owner's name, labels, spec."""
    for each in found:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each["metadata"]["labels"], each["spec"]
        elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield name, each["spec"]["template"]["metadata"]["labels"], each["spec"]["template"]["spec"]


def one(found: list[Object], kind: str, name: str) -> Object:
    """The object of this kind and name; AssertionError when it is not there."""
    (only,) = [each for each in found if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return only


def environment(spec: Object, found: list[Object]) -> dict[str, str | None]:
    """Variables of the first container, with references filled in as a kubelet does; None where a Secret or a field gives the value.

    A reference to what is not there is a KeyError. Services are told by variables only where the pod asks for that.
    """
    known: dict[str, str | None] = dict.fromkeys(_told(found)) if spec["enableServiceLinks"] else {}
    given: dict[str, str | None] = {}
    for each in spec["containers"][0].get("env", ()):
        value = each.get("value")
        known[each["name"]] = given[each["name"]] = (
            None if value is None else re.sub(r"\$\((\w+)\)", lambda hit: known[hit[1]] or "given", value)
        )
    return given


def _told(found: list[Object]) -> Iterator[str]:
    for each in found:
        if each["kind"] == "Service" and each["spec"].get("clusterIP") != "None":
            yield each["metadata"]["name"].upper().replace("-", "_") + "_SERVICE_HOST"
