"""ModelEndpoints and Toolboxes of a cluster: what is published, which keys go where, and what is said of one that cannot be used.

The API server is played; limits: it keeps objects by kind and place, knows merge patches only, and forbids what it is told to.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from fakes.catalogs import Routines
from moorage_api.catalog import EndpointEntry, ToolboxEntry
from moorage_api.ledger.consents import Wrong, named
from moorage_api.ledger.routines import Standing
from moorage_operator.endpoints import Endpoints, status_of, wanted
from moorage_operator.kube import (
    ACCOUNTS,
    ENDPOINTS,
    EVENTS,
    PODS,
    POLICIES,
    ROUTINES,
    SECRETS,
    TOOLBOXES,
    Kind,
    KubeError,
)
from moorage_operator.settings import Settings

pytestmark = pytest.mark.unit

TENANTS = {"team": "acme", "team-two": "acme", "rival": "rival"}
KEY = "sk-canary-0123456789abcdef"


def endpoint(
    name: str = "openai", namespace: str = "team", created: str = "2026-01-01T00:00:00Z", **spec: Any
) -> dict[str, Any]:
    whole = {"protocol": "openai", "baseUrl": "https://api.example.com/v1", **spec}
    meta = {"name": name, "namespace": namespace, "creationTimestamp": created, "generation": 3}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": meta, "spec": whole}


def with_key(name: str = "openai", namespace: str = "team", **more: Any) -> dict[str, Any]:
    return endpoint(name, namespace, credential={"secret": "openai", "key": "api-key"}, **more)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Cluster:
    """Endpoints, Secrets of teams, and the gateways' own."""

    def __init__(self, *bodies: dict[str, Any], secrets: dict[tuple[str, str], dict[str, str]] | None = None) -> None:
        self.bodies = list(bodies)
        self.secrets: dict[tuple[str, str], dict[str, str]] = {("platform", "gw"): {}, **(secrets or {})}
        self.forbidden: set[tuple[str, str]] = set()
        self.no_definition = False
        self.events: list[dict[str, Any]] = []
        self.writes: list[tuple[str, str, Any]] = []
        self.read: list[tuple[str, str]] = []

    async def each(self, kind: Kind, namespace: str, *, labels: Any) -> AsyncIterator[dict[str, Any]]:
        if kind in (PODS, POLICIES, ACCOUNTS):  # of programs, of which there are none here
            return
        assert kind in (ENDPOINTS, TOOLBOXES, ROUTINES)
        if self.no_definition:
            raise KubeError(404, "NotFound", "no such resource")
        for body in self.bodies:
            if body["metadata"]["namespace"] == namespace and f"{body['kind'].lower()}" == _singular(kind):
                yield body

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any] | None:
        assert kind is SECRETS
        self.read.append((namespace, name))
        if (namespace, name) in self.forbidden:
            raise KubeError(403, "Forbidden", "not yours")
        held = self.secrets.get((namespace, name))
        return None if held is None else {"data": dict(held)}

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        """Of events alone."""
        assert kind is EVENTS
        if any(one["metadata"]["name"] == body["metadata"]["name"] for one in self.events):
            raise KubeError(409, "AlreadyExists", "it is there")
        self.events.append(body)
        return body

    async def merge(
        self, kind: Kind, namespace: str, name: str, body: dict[str, Any], *, part: str = ""
    ) -> dict[str, Any]:
        self.writes.append((kind.plural, name, body))
        if kind is SECRETS:
            held = self.secrets[namespace, name]
            for key, value in body["data"].items():
                held.pop(key, None) if value is None else held.update({key: value})
        else:
            one = next(
                b
                for b in self.bodies
                if (b["metadata"]["namespace"], b["metadata"]["name"]) == (namespace, name)
                and b["kind"].lower() == _singular(kind)
            )
            one["status"] = body["status"]
        return {}

    def said(self, name: str = "openai", namespace: str = "team") -> tuple[str, str, str]:
        one = next(b for b in self.bodies if (b["metadata"]["namespace"], b["metadata"]["name"]) == (namespace, name))
        (condition,) = one["status"]["conditions"]
        return condition["status"], condition["reason"], condition["message"]


def _singular(kind: Kind) -> str:
    return {ENDPOINTS: "modelendpoint", TOOLBOXES: "toolbox", ROUTINES: "routine"}[kind]


class Timed(Routines):
    """The ledger's routines, and what became of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stands: dict[str, Standing] = {}

    async def standing(self, field: str) -> Standing | None:
        return self.stands.get(field)


class Seen:
    """What gateways saw of authorization servers."""

    def __init__(self) -> None:
        self.of: dict[str, dict[tuple[str, str], Wrong]] = {}

    async def wrongs(self, tenant: str, now: float) -> dict[tuple[str, str], Wrong]:
        return self.of.get(tenant, {})


class Catalog:
    """The catalog's endpoints and toolboxes. `there`: its agents."""

    def __init__(self) -> None:
        self.routines = Timed()
        self.consents = Seen()
        self.held: dict[str, EndpointEntry] = {}
        self.boxes: dict[str, ToolboxEntry] = {}
        self.there = {"acme/triage"}
        self.published = 0

    async def agents(self) -> set[str]:
        return set(self.there)

    async def toolboxes(self) -> list[ToolboxEntry]:
        return list(self.boxes.values())

    async def publish_toolbox(self, entry: ToolboxEntry) -> bool:
        self.published += 1
        self.boxes[entry.field] = entry
        return True

    async def unpublish_toolbox(self, tenant: str, name: str) -> None:
        del self.boxes[f"{tenant}/{name}"]

    async def endpoints(self) -> list[EndpointEntry]:
        return list(self.held.values())

    async def publish_endpoint(self, entry: EndpointEntry) -> bool:
        self.published += 1
        self.held[entry.field] = entry
        return True

    async def unpublish_endpoint(self, tenant: str, name: str) -> None:
        del self.held[f"{tenant}/{name}"]


def operator(cluster: Cluster, *, credentials: str | None = "gw", upstreams: str = "") -> Endpoints:
    settings = Settings(
        redis_url=SecretStr("redis://x"), token_key=SecretStr("a" * 64), namespace="platform", namespaces=tuple(TENANTS),
        sandbox_image="i", sandbox_url="http://g:8081", gateway_cidr="10.0.0.0/8", gateway_credentials=credentials,
        allowed_upstreams=upstreams,  # type: ignore[arg-type]
    )  # fmt: skip
    return Endpoints(cluster, settings, now=lambda: 100.0, tenants=TENANTS)  # type: ignore[arg-type]


async def test_an_endpoint_is_published_with_its_key_beside_it_and_nothing_is_written_twice() -> None:
    cluster, catalog = Cluster(with_key(), secrets={("team", "openai"): {"api-key": encoded(KEY + "\n")}}), Catalog()
    made = operator(cluster)
    await made.look(catalog)  # type: ignore[arg-type]
    assert list(catalog.held) == ["acme/openai"]
    assert catalog.held["acme/openai"].spec["baseUrl"] == "https://api.example.com/v1"
    assert cluster.secrets["platform", "gw"] == {"acme_models_openai": encoded(KEY)}
    assert cluster.said() == ("True", "Serving", "Agents that name it may use it.")
    assert KEY not in str(catalog.held) + str(cluster.bodies)
    written = len(cluster.writes)
    await made.look(catalog)  # type: ignore[arg-type]
    assert (len(cluster.writes), catalog.published) == (written, 1)


async def test_a_changed_key_is_brought_on_and_one_that_is_not_needed_taken_away() -> None:
    cluster, catalog = Cluster(with_key(), secrets={("team", "openai"): {"api-key": encoded("one")}}), Catalog()
    made = operator(cluster)
    await made.look(catalog)  # type: ignore[arg-type]
    cluster.secrets["team", "openai"]["api-key"] = encoded("two")
    await made.look(catalog)  # type: ignore[arg-type]
    assert cluster.secrets["platform", "gw"] == {"acme_models_openai": encoded("two")}
    cluster.bodies.clear()
    await made.look(catalog)  # type: ignore[arg-type]
    assert cluster.secrets["platform", "gw"] == {} and catalog.held == {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "is not there"),
        ({}, "has no usable value 'api-key'"),
        ({"api-key": "%%%"}, "has no usable value"),
        ({"api-key": encoded("two\nlines")}, "has no usable value"),
        ({"api-key": encoded("")}, "has no usable value"),
        ({"api-key": encoded("é")}, "has no usable value"),
    ],
)
async def test_without_a_usable_key_it_is_not_published_and_says_why(data: dict[str, str] | None, said: str) -> None:
    cluster = Cluster(with_key(), secrets={} if data is None else {("team", "openai"): data})
    catalog = Catalog()
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    status, reason, message = cluster.said()
    assert (status, reason) == ("False", "CredentialMissing") and said in message
    assert catalog.held == {} and cluster.secrets["platform", "gw"] == {}


@pytest.mark.parametrize("way", ["nothing named", "not this one"])
async def test_a_secret_that_may_not_be_read_is_named_with_what_to_do(way: str) -> None:
    cluster, catalog = Cluster(with_key(), endpoint("open")), Catalog()
    cluster.forbidden.add(("team", "openai"))
    await operator(cluster, credentials=None if way == "nothing named" else "gw").look(catalog)  # type: ignore[arg-type]
    status, reason, message = cluster.said()
    assert (status, reason) == ("False", "CredentialForbidden") and "models.secrets" in message
    assert list(catalog.held) == ["acme/open"], "one that needs no key is not held up"
    assert way != "nothing named" or cluster.read == []


async def test_a_key_is_only_read_where_its_manifest_stands() -> None:
    secrets = {("rival", "openai"): {"api-key": encoded("theirs")}}
    cluster, catalog = Cluster(with_key(), with_key(namespace="rival"), secrets=secrets), Catalog()
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    assert list(catalog.held) == ["rival/openai"]
    assert cluster.secrets["platform", "gw"] == {"rival_models_openai": encoded("theirs")}


async def test_names_are_unique_in_a_tenant_and_the_oldest_has_it() -> None:
    younger = endpoint(namespace="team", created="2026-02-01T00:00:00Z", baseUrl="https://b.example")
    cluster, catalog = Cluster(younger, endpoint(namespace="team-two"), endpoint(namespace="rival")), Catalog()
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    assert sorted(catalog.held) == ["acme/openai", "rival/openai"]
    assert catalog.held["acme/openai"].spec["baseUrl"] == "https://api.example.com/v1"
    assert cluster.said(namespace="team")[1] == "NameTaken" and "team-two" in cluster.said(namespace="team")[2]


async def test_a_manifest_that_is_wrong_holds_up_no_other() -> None:
    cluster, catalog = Cluster(endpoint("a", baseUrl="https://u:hunter2@h"), endpoint("b")), Catalog()
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    status, reason, message = cluster.said("a")
    assert (status, reason) == ("False", "SpecRefused") and "spec.baseUrl" in message and "hunter2" not in message
    assert list(catalog.held) == ["acme/b"]


async def test_a_cluster_with_older_definitions_has_no_endpoints_and_no_trouble() -> None:
    cluster, catalog = Cluster(endpoint()), Catalog()
    cluster.no_definition = True
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    assert catalog.held == {} and cluster.writes == []


async def test_when_the_platforms_own_secret_is_gone_nothing_that_needs_a_key_is_published() -> None:
    cluster, catalog = Cluster(with_key(), secrets={("team", "openai"): {"api-key": encoded(KEY)}}), Catalog()
    del cluster.secrets["platform", "gw"]
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    assert catalog.held == {} and "helm upgrade" in cluster.said()[2]


def test_a_condition_keeps_its_time_while_its_status_holds() -> None:
    body = endpoint()
    (one,) = wanted([body], TENANTS)
    body["status"] = status_of(one, 100.0)
    assert status_of(one, 200.0) is None
    body["metadata"]["generation"] = 4
    fresh = status_of(one, 200.0)
    assert fresh is not None and fresh["observedGeneration"] == 4
    assert fresh["conditions"][0]["lastTransitionTime"] == "1970-01-01T00:01:40Z"


def toolbox(*secrets: str, name: str = "openai", namespace: str = "team") -> dict[str, Any]:
    """A toolbox with an upstream a Secret."""
    upstreams: list[dict[str, Any]] = [
        {"name": f"u{n}", "mcp": {"url": "https://tools.example.com/mcp"}, "credential": {"secret": secret}}
        for n, secret in enumerate(secrets)
    ]
    for each in upstreams[1:]:  # what is asked for with a secret is brought like what is sent
        asked = {"tokenUrl": "https://login.example.com/token", "clientId": "moorage"}
        each["oauth"] = {**asked, "clientSecret": each.pop("credential")}
    meta = {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3}
    return {"apiVersion": "moorage.dev/v1alpha1", "kind": "Toolbox", "metadata": meta, "spec": {"upstreams": upstreams}}


async def test_a_toolbox_is_published_with_the_keys_of_all_its_upstreams_beside_an_endpoint_of_its_name() -> None:
    secrets = {("team", name): {"api-key": encoded(name + KEY)} for name in ("openai", "one", "two")}
    cluster, catalog = Cluster(with_key(), toolbox("one", "two"), secrets=secrets), Catalog()
    made = operator(cluster)
    await made.look(catalog)  # type: ignore[arg-type]
    assert list(catalog.held) == list(catalog.boxes) == ["acme/openai"]
    assert cluster.secrets["platform", "gw"] == {
        "acme_models_openai": encoded("openai" + KEY),
        "acme_toolboxes_openai_u0": encoded("one" + KEY),
        "acme_toolboxes_openai_u1": encoded("two" + KEY),
    }
    assert all(body["status"]["conditions"][0]["status"] == "True" for body in cluster.bodies)
    assert KEY not in str(catalog.boxes) + str(cluster.bodies)
    written = len(cluster.writes)
    await made.look(catalog)  # type: ignore[arg-type]
    assert (len(cluster.writes), catalog.published) == (written, 2)
    cluster.bodies.pop()
    await made.look(catalog)  # type: ignore[arg-type]
    assert catalog.boxes == {} and list(cluster.secrets["platform", "gw"]) == ["acme_models_openai"]


async def test_a_toolbox_that_lacks_one_of_its_keys_is_not_published_and_brings_none() -> None:
    cluster, catalog = Cluster(toolbox("one", "two"), secrets={("team", "one"): {"api-key": encoded(KEY)}}), Catalog()
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    status, reason, message = cluster.said()
    assert (status, reason) == ("False", "CredentialMissing") and "the Secret two is not there" in message
    assert catalog.boxes == {} and cluster.secrets["platform", "gw"] == {}


def routine(name: str = "nightly", **spec: Any) -> dict[str, Any]:
    whole = {"agent": "triage", "schedule": "0 6 * * *", "timeZone": "Europe/Berlin", "input": "go", **spec}
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "Routine",
        "metadata": {"name": name, "namespace": "team", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": whole,
    }


async def test_a_routine_is_published_with_the_urls_of_its_alerts_and_its_status_says_how_it_runs() -> None:
    alerts = [{"name": "ops", "url": {"secret": "hooks", "key": "ops"}}]
    cluster, catalog = Cluster(routine(alerts=alerts)), Catalog()
    cluster.secrets["team", "hooks"] = {"ops": base64.b64encode(b"https://hooks.example.com/secret").decode()}
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    assert set(catalog.routines.held) == {"acme/nightly"}
    assert set(cluster.secrets["platform", "gw"]) == {"acme_routines_nightly_ops_url"}
    (body,) = cluster.bodies
    assert body["status"]["schedule"] == "0 6 * * * Europe/Berlin" and body["status"]["nextRun"] is None
    catalog.routines.stands["acme/nightly"] = Standing(
        next=1_800_000_000_000,
        last=1_799_900_000_000,
        outcome="failed",
        response="caresp_1",
        failures=3,
        stopped=True,
        error="it broke",
    )
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    said = body["status"]
    assert (said["nextRun"], said["lastOutcome"], said["failures"]) == ("2027-01-15T08:00:00Z", "failed", 3)
    condition, reason, message = cluster.said("nightly")
    assert (condition, reason) == ("False", "Stopped") and "it broke" in message and "resume nightly" in message
    assert "hooks.example.com" not in json.dumps(body)
    (event,) = cluster.events
    assert (event["reason"], event["involvedObject"]["name"]) == ("RunFailed", "nightly") and "it broke" in event[
        "message"
    ]
    body["status"]["lastRun"] = None  # an operator that ended between the two says it again
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    assert len(cluster.events) == 1 and body["status"]["lastRun"]


async def test_a_routine_with_an_impossible_schedule_is_refused_in_its_status() -> None:
    cluster, catalog = Cluster(routine(schedule="0 0 30 2 *")), Catalog()
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (condition, reason) == ("False", "SpecRefused") and "0 0 30 2 *" in message and not catalog.routines.held


async def test_what_an_authorization_server_does_not_take_is_in_the_status_of_its_toolbox_and_no_other() -> None:
    oauth = {
        "grant": "authorizationCode", "authorizationUrl": "https://login.example/a", "tokenUrl": "https://login.example/t", "clientId": "m",
        "clientSecret": {"secret": "s"},
    }  # fmt: skip
    spec = {"upstreams": [{"name": "one", "mcp": {"url": "https://tools.example/mcp"}, "oauth": oauth}]}
    body, other = (endpoint(each) | {"kind": "Toolbox", "spec": spec} for each in ("box", "other"))
    cluster, catalog = Cluster(body, other, secrets={("team", "s"): {"api-key": encoded("sk-1")}}), Catalog()
    looking = operator(cluster)
    await looking.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("box")[:2] == cluster.said("other")[:2] == ("True", "Serving")
    now = catalog.boxes["acme/box"].spec["upstreams"][0]["oauth"]
    says = "its token server answered 401 invalid_client: `clientId` is not what it knows"
    catalog.consents.of["acme"] = {("box", "one"): Wrong(says, named(now), 1), ("other", "one"): Wrong("old", "x", 1)}
    await looking.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("box") == ("False", "OAuthRefused", f"upstream one: {says}")
    assert cluster.said("other")[:2] == ("True", "Serving"), "what is told of another oauth than it has now, is over"
    assert set(catalog.boxes) == {"acme/box", "acme/other"}, "who has a token goes on"
    catalog.consents.of.clear()
    await looking.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("box")[:2] == ("True", "Serving")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "http://hooks.example.com/T0/secret-part",
            "without TLS: use https, or have the platform name it (allowedUpstreams)",
        ),
        ("https://10.0.0.5/secret-part", "a private address"),
        ("https://127.0.0.1:8443/secret-part", "loopback"),
        ("https://169.254.169.254/secret-part", "a metadata or link-local address"),
        ("https://secret-part@hooks.example.com/x", "two readers"),
        ("https://secret-part[", "cannot be read"),
        ("https:///secret-part", "https:// and a host"),
        ("//secret-part", "https:// and a host"),
        ("secret-part", "https:// and a host"),
    ],
)
async def test_an_alert_target_that_is_not_allowed_is_refused_with_its_field_and_nothing_of_its_url(
    url: str, said: str
) -> None:
    alerts = [{"name": name, "url": {"secret": "hooks", "key": name}} for name in ("good", "bad")]
    cluster, catalog = Cluster(routine(alerts=alerts), routine("other")), Catalog()
    cluster.secrets["team", "hooks"] = {"good": encoded("https://hooks.example.com/a"), "bad": encoded(url)}
    await operator(cluster).look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (condition, reason) == ("False", "AlertForbidden")
    assert message.startswith("spec.alerts[1].url: the target bad is not allowed: ") and said in message, message
    assert "secret-part" not in json.dumps(cluster.bodies) and "hooks.example" not in message
    assert list(catalog.routines.held) == ["acme/other"] and cluster.secrets["platform", "gw"] == {}


@pytest.mark.parametrize(
    ("url", "upstreams"),
    [
        ("https://hooks.example.com/T0/B1", ""),
        ("http://hooks.team:8080/x", "hooks.team:8080"),
        ("https://10.0.0.5/x", "other.example:1, 10.0.0.5:443"),
    ],
)
async def test_an_alert_target_is_allowed_by_https_or_by_the_platforms_own_settings(url: str, upstreams: str) -> None:
    cluster = Cluster(routine(alerts=[{"name": "ops", "url": {"secret": "hooks", "key": "ops"}}]))
    catalog, cluster.secrets["team", "hooks"] = Catalog(), {"ops": encoded(url)}
    await operator(cluster, upstreams=upstreams).look(catalog)  # type: ignore[arg-type]
    assert cluster.said("nightly")[:2] == ("True", "Serving") and set(catalog.routines.held) == {"acme/nightly"}


async def test_a_routine_waits_for_its_agent_and_stays_when_that_goes() -> None:
    cluster, catalog = Cluster(routine()), Catalog()
    catalog.there = {"rival/triage"}  # another tenant's
    made = operator(cluster)
    await made.look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (condition, reason) == ("False", "AgentMissing") and not catalog.routines.held
    assert message == "spec.agent: there is no agent 'triage' yet: due times count from when there is one"
    catalog.there.add("acme/triage")
    await made.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("nightly")[:2] == ("True", "Serving") and set(catalog.routines.held) == {"acme/nightly"}
    catalog.there.clear()
    await made.look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (condition, reason) == ("False", "AgentMissing") and "any more: runs fail" in message
    assert set(catalog.routines.held) == {"acme/nightly"}, "people are told of what does not run"


async def test_a_routine_stays_without_its_secrets_and_those_of_other_targets_stay_with_it() -> None:
    alerts = [{"name": name, "url": {"secret": name, "key": "url"}} for name in ("ops", "team")]
    cluster, catalog = Cluster(routine(alerts=alerts)), Catalog()
    hooks = {name: {"url": encoded(f"https://hooks.example.com/{name}")} for name in ("ops", "team")}
    cluster.secrets["team", "team"] = hooks["team"]
    made = operator(cluster)
    await made.look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (condition, reason) == ("False", "CredentialMissing"), "it is run from its first day, as on a laptop"
    assert (
        message.startswith("spec.alerts[0].url: the Secret ops is not there")
        and "alerts that cannot be told wait" in message
    )
    assert set(catalog.routines.held) == {"acme/nightly"}
    assert set(cluster.secrets["platform", "gw"]) == {"acme_routines_nightly_team_url"}
    cluster.secrets["team", "ops"] = hooks["ops"]
    await made.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("nightly")[:2] == ("True", "Serving") and len(cluster.secrets["platform", "gw"]) == 2
    cluster.secrets["team", "ops"] = {"url": encoded("http://hooks.example.com/secret-part")}
    catalog.routines.stands["acme/nightly"] = Standing(suspended=True)
    await made.look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (
        (condition, reason) == ("False", "AlertForbidden") and "suspended" in message and "secret-part" not in message
    )
    assert set(catalog.routines.held) == {"acme/nightly"}, "it ran, and stays"
    assert set(cluster.secrets["platform", "gw"]) == {"acme_routines_nightly_team_url"}
    cluster.secrets["team", "ops"] = hooks["ops"]
    del cluster.secrets["platform", "gw"]
    await made.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("nightly")[1] == "CredentialMissing" and set(catalog.routines.held) == {"acme/nightly"}
    catalog.there.clear()
    await made.look(catalog)  # type: ignore[arg-type]
    condition, reason, message = cluster.said("nightly")
    assert (
        reason == "AgentMissing"
        and message.startswith("spec.agent: ")
        and "the platform's Secret gw is gone" in message
    )


async def test_a_routine_whose_manifest_says_what_cannot_be_stands_still_and_only_a_deleted_one_is_taken_away() -> None:
    cluster, catalog = Cluster(routine(alerts=[{"name": "ops", "url": {"secret": "hooks", "key": "url"}}])), Catalog()
    cluster.secrets["team", "hooks"] = {"url": encoded("https://hooks.example.com/a")}
    made = operator(cluster)
    await made.look(catalog)  # type: ignore[arg-type]
    (body,), good = cluster.bodies, catalog.routines.held["acme/nightly"]
    body["spec"] = {**body["spec"], "schedule": "0 0 30 2 *"}
    for _ in range(2):
        await made.look(catalog)  # type: ignore[arg-type]
        condition, reason, message = cluster.said("nightly")
        assert (
            (condition, reason) == ("False", "SpecRefused")
            and "0 0 30 2 *" in message
            and "until that is mended" in message
        )
        held = catalog.routines.held["acme/nightly"]
        assert held.spec == {**good.spec, "suspend": True} and len(cluster.secrets["platform", "gw"]) == 1
    body["spec"] = {**body["spec"], "schedule": "0 6 * * *"}
    await made.look(catalog)  # type: ignore[arg-type]
    assert cluster.said("nightly")[:2] == ("True", "Serving") and catalog.routines.held == {"acme/nightly": good}
    cluster.bodies.clear()
    await made.look(catalog)  # type: ignore[arg-type]
    assert catalog.routines.held == {} and cluster.secrets["platform", "gw"] == {}
