"""A ModelEndpoint as a person writes it, and what is said of one that is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api.kinds import HostedAgent, ManifestError, ModelEndpoint, parse, parse_all, parse_any

pytestmark = pytest.mark.unit


def document(**spec: Any) -> dict[str, Any]:
    whole = {"protocol": "openai", "baseUrl": "https://api.example.com/v1", **spec}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "ModelEndpoint",
        "metadata": {"name": "openai"},
        "spec": whole,
    }


def wrong(**spec: Any) -> ManifestError:
    with pytest.raises(ManifestError) as found:
        parse_any(document(**spec))
    return found.value


def test_the_smallest_one_has_all_its_defaults() -> None:
    found = parse_any(document())
    assert isinstance(found, ModelEndpoint)
    spec = found.wire_spec()
    assert spec["timeouts"] == {"connect": "10s", "firstByte": "5m", "idle": "2m", "total": "15m"}
    assert (spec["retries"]["attempts"], spec["concurrency"], spec["credential"], spec["models"]) == (2, 64, None, [])


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com/v1", "https://api.example.com", "http://127.0.0.1:11434/v1", "https://[2001:db8::1]:8443/v1",
        "https://xn--bcher-kva.example/a/b",
    ],
)  # fmt: skip
def test_places_that_are_some(url: str) -> None:
    assert parse_any(document(baseUrl=url + "/")).wire_spec()["baseUrl"] == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("api.example.com", "no http(s) URL"),
        ("ftp://a/b", "no http(s) URL"),
        ("https://user:hunter2@a/b", "user or a password"),
        ("https://a/b?key=hunter2", "query or a fragment"),
        ("https://a/b#", "query or a fragment"),
        ("https://a/../b", "path with"),
        ("https://a/%2e%2e", "path with"),
        ("https:///v1", "names no host"),
        ("https://a b/v1", "no http(s) URL"),
        ("https://a\\b/v1", "no http(s) URL"),
        ("https://a:99999/v1", "no URL"),
        ("https://a\n/v1", "no http(s) URL"),
    ],
)
def test_places_that_are_none_are_named_without_what_may_be_secret(url: str, why: str) -> None:
    error = wrong(baseUrl=url)
    assert error.field == "spec.baseUrl" and why in str(error) and "hunter2" not in str(error)


def test_a_key_in_place_of_its_name_is_refused_and_not_repeated() -> None:
    key = "sk-proj-ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    error = wrong(credential={"secret": key})
    assert error.field == "spec.credential.secret" and key not in str(error) and "Secret" in str(error)


@pytest.mark.parametrize(
    ("spec", "field", "said"),
    [
        ({"protocol": "grpc"}, "spec.protocol", "'openai'"),
        ({"baseURL": "x"}, "spec.baseURL", "did you mean baseUrl?"),
        ({"retries": {"atempts": 1}}, "spec.retries.atempts", "did you mean attempts?"),
        ({"attempts": 1}, "spec.attempts", "it belongs to spec.retries.attempts"),
        ({"models": ["a", "a"]}, "spec.models", "twice"),
        ({"models": ["a b"]}, "spec.models", "not the name of a model"),
        ({"timeouts": {"idle": "soon"}}, "spec.timeouts.idle", ""),
        ({"concurrency": 0}, "spec.concurrency", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_field(spec: dict[str, Any], field: str, said: str) -> None:
    error = wrong(**spec)
    assert error.field == field and said in str(error)


def test_kinds_stand_side_by_side_and_each_name_is_its_kinds() -> None:
    agent = {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "HostedAgent",
        "metadata": {"name": "openai"},
        "spec": {"source": {"path": "."}},
    }
    found = parse_all([agent, None, document()])
    assert [type(each) for each in found] == [HostedAgent, ModelEndpoint]
    with pytest.raises(ManifestError, match="two documents"):
        parse_all([document(), document()])
    with pytest.raises(ManifestError, match="must be HostedAgent "):
        parse(document())
    with pytest.raises(ManifestError, match="HostedAgent or ModelEndpoint or Toolbox"):
        parse_any({**document(), "kind": "Rubric"})
    with pytest.raises(ManifestError, match="HostedAgent or ModelEndpoint or Toolbox"):
        parse_any({**document(), "kind": ["ModelEndpoint"]})
