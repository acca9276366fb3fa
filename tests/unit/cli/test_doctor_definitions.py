"""What the doctor concludes from definitions that a cluster has, beside those that this release ships."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from moorage.cli.doctor import definitions
from moorage.cli.doctor.asked import Answer
from moorage_api import schema
from moorage_api.resources import HOSTED_AGENT, custom_resource_definition
from unit.cli.doctoring import ABSENT, FORBIDDEN, LOST, said, told

pytestmark = pytest.mark.unit
SHIPPED = custom_resource_definition(HOSTED_AGENT, schema.json_schema("HostedAgent"))


def installed() -> dict[str, Any]:
    held = copy.deepcopy(SHIPPED)
    held["metadata"]["uid"] = "1"
    held["spec"]["conversion"] = {"strategy": "None"}
    held["status"] = {"conditions": [{"type": kind, "status": "True"} for kind in ("NamesAccepted", "Established")]}
    return held


def root(held: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = held["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return found


def older(held: dict[str, Any]) -> None:
    del root(held)["spec"]["properties"]["pool"]["properties"]["min"]


def newer(held: dict[str, Any]) -> None:
    root(held)["spec"]["properties"]["wonder"] = {"type": "string"}


def other(held: dict[str, Any]) -> None:
    root(held)["spec"]["properties"]["image"]["maxLength"] = 7


def without_a_rule(held: dict[str, Any]) -> None:
    root(held)["spec"]["x-kubernetes-validations"].pop()


def without_a_column(held: dict[str, Any]) -> None:
    held["spec"]["versions"][0]["additionalPrinterColumns"].pop()


def without_a_short_name(held: dict[str, Any]) -> None:
    held["spec"]["names"]["shortNames"].pop()


def explained_otherwise(held: dict[str, Any]) -> None:
    root(held)["spec"]["description"] = "other words"
    held["spec"]["versions"][0]["additionalPrinterColumns"][0]["description"] = "other words"
    root(held)["status"]["properties"]["conditions"]["items"]["properties"]["reason"]["description"] = "other"


def of_another_version(held: dict[str, Any]) -> None:
    held["spec"]["versions"][0]["name"] = "v9"


def with_another_version(held: dict[str, Any]) -> None:
    held["spec"]["versions"][0]["storage"] = False
    held["spec"]["versions"].append({**copy.deepcopy(held["spec"]["versions"][0]), "name": "v9", "storage": True})


def not_served(held: dict[str, Any]) -> None:
    held["spec"]["versions"][0]["served"] = False


def refused(held: dict[str, Any]) -> None:
    held["status"]["conditions"][0] |= {"status": "False", "message": '"ha" is already in use'}


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (lambda held: None, "ok", ["v1alpha1", "7.7"]),
        (explained_otherwise, "ok", []),
        (with_another_version, "ok", []),
        (older, "wrong", ["older", "lacks spec.pool.min", definitions.UPGRADE]),
        (without_a_rule, "wrong", ["older", "spec.x-kubernetes-validations", definitions.UPGRADE]),
        (without_a_column, "wrong", ["older", "additionalPrinterColumns"]),
        (without_a_short_name, "wrong", ["older", "names.shortNames"]),
        (newer, "wrong", ["newer", "also has spec.wonder", definitions.UPGRADE_CLI]),
        (other, "wrong", ["differs at spec.image.maxLength", definitions.UPGRADE, definitions.UPGRADE_CLI]),
        (of_another_version, "wrong", ["serves v9", "needs v1alpha1"]),
        (not_served, "wrong", ["serves no version"]),
        (refused, "wrong", ["already in use", "kubectl describe crd hostedagents.moorage.dev"]),
    ],
)
def test_an_installed_definition_is_compared_with_the_shipped_one(change: Any, level: str, words: list[str]) -> None:
    held = installed()
    change(held)
    told(definitions.judge(SHIPPED, said(held), "7.7"), level, *words)


def test_a_newer_definition_is_not_replaced_by_an_older_one() -> None:
    held = installed()
    newer(held)
    assert definitions.UPGRADE not in definitions.judge(SHIPPED, said(held), "7.7").mend


@pytest.mark.parametrize(
    ("answer", "level", "words"),
    [
        (ABSENT, "wrong", ["not installed", definitions.UPGRADE]),
        (FORBIDDEN, "could not look", ["may not get customresourcedefinitions"]),
        (LOST, "could not look", ["the connection broke"]),
        (Answer("answered", "nonsense"), "could not look", ["cannot be read"]),
    ],
)
def test_a_definition_that_is_not_told(answer: Answer, level: str, words: list[str]) -> None:
    told(definitions.judge(SHIPPED, answer, "7.7"), level, *words)
