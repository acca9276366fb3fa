"""Model endpoints of a laptop: where their keys come from, and which hosts they open."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakes.catalogs import Routines
from moorage_api.catalog import credential_name, tool_credential_name
from moorage_api.kinds import ModelEndpoint, Routine, Toolbox
from moorage_local.endpoints import Endpoints, variable
from moorage_local.manifests import FoundEndpoint, FoundRoutine, FoundToolbox, read_folder

pytestmark = pytest.mark.unit

METADATA = "http://169.254.169.254/secret-part"
TEXT = """
apiVersion: moorage.dev/v1alpha1
kind: ModelEndpoint
metadata: {name: %s}
spec: {protocol: compatible, baseUrl: "%s", credential: {secret: my-models, key: api.key}}
"""


def endpoint(name: str = "m", url: str = "http://127.0.0.1:11434/v1") -> FoundEndpoint:
    document = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "ModelEndpoint", "metadata": {"name": name},
        "spec": {"protocol": "compatible", "baseUrl": url, "credential": {"secret": "my-models", "key": "api.key"}},
    }  # fmt: skip
    return FoundEndpoint(ModelEndpoint.model_validate(document, by_alias=True, by_name=False), Path(f"/f/{name}.yaml"))


async def test_a_key_is_read_from_the_folder_else_from_the_environment(tmp_path: Path) -> None:
    made = Endpoints("dev", {"MY_MODELS_API_KEY": " of-env\n"}, tmp_path)
    assert made.use({"m": endpoint()}) == []
    name = credential_name("dev", "m")
    assert made.get(name) == "of-env"
    (tmp_path / "my-models").mkdir()
    (tmp_path / "my-models" / "api.key").write_text("of-file\n")
    assert made.get(name) == "of-file", "a changed file counts at once"
    (tmp_path / "my-models" / "api.key").write_text("two\nlines")
    assert made.get(name) is None, "what would end a header is no key"
    assert made.get(credential_name("other", "m")) is None and made.get(credential_name("dev", "x")) is None


async def test_a_missing_key_is_told_with_what_to_set() -> None:
    (sentence,) = Endpoints("dev", {}, None).use({"m": endpoint()})
    assert "MY_MODELS_API_KEY" in sentence and "model endpoint m" in sentence
    assert variable("openai", "api-key") == "OPENAI_API_KEY"


async def test_only_hosts_of_the_folder_are_open() -> None:
    made = Endpoints("dev", {}, None)
    assert made.allowed() == frozenset()
    made.use({"m": endpoint(), "n": endpoint("n", "https://[::1]/v1")})
    assert made.allowed() == {"127.0.0.1:11434", "[::1]:443"}
    made.use({}, {"/f/m.yaml"})
    assert made.allowed() == {"127.0.0.1:11434"}, "its file is broken just now: it was not removed"
    made.use({})
    assert made.allowed() == frozenset()


def test_a_folder_holds_agents_and_endpoints_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(TEXT % ("one", "https://a.example/v1"))
    (tmp_path / "in").mkdir()
    agent = "apiVersion: moorage.dev/v1alpha1\nkind: HostedAgent\nmetadata: {name: one}\nspec: {source: {path: .}}\n---"
    (tmp_path / "in" / "agent.yaml").write_text(agent + TEXT % ("two", "https://b.example/v1"))
    found = read_folder(tmp_path)
    assert (sorted(found.agents), sorted(found.endpoints), found.errors) == (["one"], ["one", "two"], ())
    (tmp_path / "in" / "models.yaml").write_text(TEXT % ("two", "https://c.example/v1"))
    (error,) = read_folder(tmp_path).errors
    assert "names are unique" in str(error)


async def test_a_toolbox_opens_its_hosts_and_its_keys_are_found_the_same_way() -> None:
    upstreams = [
        {
            "name": "one",
            "mcp": {"url": "http://127.0.0.1:9000/mcp"},
            "credential": {"secret": "tracker", "key": "token"},
        },
        {
            "name": "two",
            "openapi": {"server": "https://b.example/v1", "url": "http://127.0.0.1:9001/openapi.json"},
            "oauth": {
                "tokenUrl": "https://c.example/token",
                "clientId": "moorage",
                "clientSecret": {"secret": "api", "key": "secret"},
            },
        },
        {"name": "three", "agent": {"name": "worker"}},
    ]
    document = {
        "kind": "Toolbox",
        "apiVersion": "moorage.dev/v1alpha1",
        "metadata": {"name": "t"},
        "spec": {"upstreams": upstreams},
    }
    box = FoundToolbox(Toolbox.model_validate(document, by_alias=True, by_name=False), Path("/f/toolboxes.yaml"))
    environment: dict[str, str] = {}
    made = Endpoints("dev", environment, None)
    one, two = made.use({}, (), {"t": box})
    assert "toolbox t, upstream one" in one and "TRACKER_TOKEN" in one
    assert "toolbox t, upstream two" in two and "API_SECRET" in two
    environment["TRACKER_TOKEN"] = "tok"
    assert made.get(tool_credential_name("dev", "t", "one")) == "tok"
    assert made.get(tool_credential_name("dev", "t", "two")) is None
    hosts = {"127.0.0.1:9000", "127.0.0.1:9001", "b.example:443", "c.example:443"}
    assert made.allowed() == hosts
    made.use({}, {"/f/toolboxes.yaml"})
    assert made.allowed() == hosts, "its file is broken just now: it was not removed"
    made.use({})
    assert made.allowed() == frozenset()


def test_a_laptop_says_that_it_has_no_identity_to_open_a_server_with() -> None:
    identity = {"tokenUrl": "https://c.example/token", "clientId": "c"}
    document = {
        "kind": "Toolbox",
        "apiVersion": "moorage.dev/v1alpha1",
        "metadata": {"name": "t"},
        "spec": {"upstreams": [{"name": "one", "mcp": {"url": "https://a.example"}, "workloadIdentity": identity}]},
    }
    box = FoundToolbox(Toolbox.model_validate(document, by_alias=True, by_name=False), Path("/f/toolboxes.yaml"))
    (said,) = Endpoints("dev", {}, None).use({}, (), {"t": box})
    assert said == "toolbox t, upstream one: workloadIdentity is a cluster's; on a laptop give it a credential"


def test_a_folder_holds_toolboxes_too(tmp_path: Path) -> None:
    text = """
apiVersion: moorage.dev/v1alpha1
kind: Toolbox
metadata: {name: one}
spec: {upstreams: [{name: a, mcp: {url: "https://a.example/mcp"}}]}
"""
    (tmp_path / "toolboxes.yaml").write_text(text)
    (tmp_path / "models.yaml").write_text(TEXT % ("one", "https://a.example/v1"))
    found = read_folder(tmp_path)
    assert (sorted(found.toolboxes), sorted(found.endpoints), found.errors) == (["one"], ["one"], ())


def routine(url_key: str = "url", agent: str = "worker") -> FoundRoutine:
    document = {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "Routine", "metadata": {"name": "r"},
        "spec": {
            "agent": agent, "every": "1h", "input": "x",
            "alerts": [{"name": "ops", "url": {"secret": "ops", "key": url_key}}],
        },
    }  # fmt: skip
    return FoundRoutine(Routine.model_validate(document, by_alias=True, by_name=False), Path("/f/routines.yaml"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9000/hook", None),
        ("https://hooks.example.com/x", None),
        ("http://169.254.169.254/secret-part", "a metadata or link-local address"),
        ("ftp://hooks.example.com/secret-part", "does not begin with https://"),
        ("https://secret-part[", "cannot be read"),
    ],
)
async def test_an_alert_may_go_where_the_environment_says_and_to_no_metadata(url: str, said: str | None) -> None:
    made = Endpoints("dev", {"OPS_URL": url}, None)
    sentences = made.use({}, routines={"r": routine()})
    if said is None:
        assert sentences == [] and made.refusal(routine().routine) is None
        return
    (sentence,) = sentences
    assert sentence.startswith("routine r: spec.alerts[0].url: the target ops is not allowed: ") and said in sentence
    assert "secret-part" not in sentence


async def test_a_routine_without_its_agent_is_told_of_with_its_field() -> None:
    made = Endpoints("dev", {"OPS_URL": "https://hooks.example.com/x"}, None)
    made.use({}, routines={"r": routine(agent="nowhere")})
    assert made.without_agent({"nowhere"}) == []
    (sentence,) = made.without_agent({"worker"})
    assert sentence.startswith("routine r: spec.agent: there is no agent 'nowhere' yet")


class Catalog(Routines):
    """What is published, and what came to be so; one agent."""

    def __init__(self) -> None:
        super().__init__()
        self.routines = self

    async def endpoints(self) -> list[Any]:
        return []

    async def toolboxes(self) -> list[Any]:
        return []

    async def agents(self) -> set[str]:
        return {"dev/worker"}


async def test_a_routine_whose_target_comes_to_be_one_that_is_not_allowed_stays_and_is_not_begun_so() -> None:
    environment, catalog = {"OPS_URL": METADATA}, Catalog()
    made = Endpoints("dev", environment, None)

    async def looked() -> set[str]:
        looking = asyncio.create_task(made.run(catalog))  # type: ignore[arg-type]
        await asyncio.sleep(0)  # nothing in the catalog waits: it has looked
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        return set(catalog.held)

    made.use({}, routines={"r": routine()})
    assert await looked() == set()
    environment["OPS_URL"] = "https://hooks.example.com/x"
    assert await looked() == {"dev/r"}
    environment["OPS_URL"] = METADATA
    assert await looked() == {"dev/r"}, "its state would go with it"
    made.use({})
    assert await looked() == set()
