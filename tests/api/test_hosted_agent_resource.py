"""HostedAgent on a real API server: what kubectl shows, fills in and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.node.control import ControlPlane, Given
from moorage_api.kinds import parse

pytestmark = [pytest.mark.api, pytest.mark.timeout(300)]
NAMESPACE = "moorage-resources"
GIT = {"git": {"url": "https://git.example/agents.git"}}


@pytest.fixture(scope="module")
def api(api_server: ControlPlane | Given) -> Iterator[ControlPlane | Given]:
    """A namespace of an API server that knows HostedAgents."""
    api_server.kubectl("create", "namespace", NAMESPACE)
    yield api_server
    api_server.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def document(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """An object as a person writes it."""
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "HostedAgent", "metadata": {"name": name}, "spec": spec}


def apply(api: ControlPlane | Given, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """What the API server made of it. RuntimeError with kubectl's words when it was refused."""
    given = json.dumps(document(name, spec))
    return dict(json.loads(api.kubectl("apply", "-n", NAMESPACE, "-f", "-", "-o", "json", given=given)))


@pytest.mark.parametrize(
    "spec",
    [
        {"source": GIT},
        {"image": "registry.example/agent:1", "port": 8080, "contract": "foundry"},
        {"source": {"bundle": "sha256:" + "0" * 64, "python": "3.12"}, "resources": {"cpu": 2, "memory": "1Gi"}},
        {"source": GIT, "env": [{"name": "MODE", "value": "fast"}], "session": {"idleTimeout": "1h30m"}, "pool": {"min": 0}},
    ],
    ids=["git", "image", "bundle", "more"],
)  # fmt: skip
def test_what_is_filled_in_is_what_the_kind_itself_says(api: ControlPlane | Given, spec: dict[str, Any]) -> None:
    stored = apply(api, "filled", spec)
    api.kubectl("delete", "hostedagent", "filled", "-n", NAMESPACE)
    assert parse(stored).wire_spec() == parse(document("filled", spec)).wire_spec()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "give exactly one of image and source"),
        ({"image": "a", "source": GIT}, "give exactly one of image and source"),
        ({"source": {"path": "."}}, "use git or an image, or deploy the folder with moorage up"),
        ({"source": {}}, "give exactly one of bundle and git"),
        ({"source": {"git": {"url": "https://me:secret@git.example/a.git"}}}, "url holds a user or a password"),
        ({"source": {"git": {"url": "https://ghp_key@git.example/a.git"}}}, "url holds a user or a password"),
        ({"source": {"git": {"url": "https://git.example:x/a.git"}}}, "url names no plain host"),
        ({"source": {"git": {"url": "https://[bad/a"}}}, "url names no plain host"),
        ({"source": {"git": {"url": "https://*.example/a"}}}, "url names no plain host"),
        ({"source": {"git": {"url": "https://git.example/a.git", "path": "../x"}}}, "path lies inside the repository"),
        ({"source": {"bundle": "latest"}}, "spec.source.bundle"),
        ({"source": GIT, "pool": {"min": 5, "max": 2}}, "min is more than max"),
        ({"source": GIT, "env": [{"name": "MOORAGE_X"}]}, "the platform sets this variable"),
        ({"source": GIT, "env": [{"name": "home"}]}, "the platform sets this variable"),
        ({"source": GIT, "env": [{"name": "A"}, {"name": "A"}]}, "Duplicate value"),
        ({"source": GIT, "session": {"isolation": "none"}}, "spec.session.isolation"),
        ({"source": GIT, "session": {"idleTimeout": "soon"}}, "spec.session.idleTimeout"),
        ({"source": GIT, "resources": {"memory": "much"}}, "spec.resources.memory"),
        ({"source": GIT, "workspace": {"mount": "/proc/x"}}, "mount is an absolute path"),
        ({"source": GIT, "mounts": [{"path": "/srv", "mount": "/data"}]}, "moorage dev only"),
        ({"source": GIT, "protocols": ["responses", "responses"]}, "Duplicate value"),
        ({"source": GIT, "sesion": {}}, 'unknown field "spec.sesion"'),
    ],
)
def test_what_is_wrong_is_refused_by_apply_with_the_field(
    api: ControlPlane | Given, spec: dict[str, Any], says: str
) -> None:
    with pytest.raises(RuntimeError) as refusal:
        apply(api, "wrong", spec)
    assert says in str(refusal.value)


def test_a_name_that_no_url_can_carry_is_refused(api: ControlPlane | Given) -> None:
    with pytest.raises(RuntimeError, match="lower-case letters, digits and -"):
        apply(api, "review.agent", {"source": GIT})


def test_kubectl_shows_and_explains_it(api: ControlPlane | Given) -> None:
    apply(api, "shown", {"source": GIT})
    status = {
        "observedGeneration": 1, "revision": "r-1", "url": "https://agents.example/v1/agents/shown", "sessions": {"warm": 1, "active": 2},
        "conditions": [
            {
                "type": "Ready", "status": "True", "reason": "Serving", "message": "Requests are served.",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }  # fmt: skip
    api.kubectl(
        "patch", "ha", "shown", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )  # fmt: skip
    head, line = api.kubectl("get", "moorage", "-n", NAMESPACE).splitlines()
    assert head.split() == ["NAME", "READY", "REVISION", "WARM", "SESSIONS", "URL", "AGE"]
    # Where the category holds more than one kind, a name is shown with its own.
    assert line.removeprefix("hostedagent.moorage.dev/").split()[:6] == [
        "shown",
        "True",
        "r-1",
        "1",
        "2",
        "https://agents.example/v1/agents/shown",
    ]
    explained = api.kubectl("explain", "hostedagent.spec.session.idleTimeout")
    assert "hibernated" in explained

    # Status is a subresource: who may write the spec cannot claim to be ready.
    stored = apply(api, "shown", {"source": GIT, "pool": {"min": 2}})
    assert stored["metadata"]["generation"] == 2 and stored["status"]["observedGeneration"] == 1
