"""A manifest is read, completed or refused with words a person can act on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moorage_api.kinds import HostedAgent, ManifestError, notes_outside_kubernetes, parse, parse_all, warnings_of

pytestmark = pytest.mark.unit


def document(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "moorage.dev/v1alpha1",
        "kind": "HostedAgent",
        "metadata": {"name": "review-agent"},
        "spec": {"source": {"path": "."}, **spec},
    }


def refusal(doc: Any) -> str:
    with pytest.raises(ManifestError) as caught:
        parse(doc)
    return str(caught.value)


def test_the_smallest_manifest_gets_every_default() -> None:
    spec = parse(document()).wire_spec()
    assert spec["protocols"] == ["responses", "invocations"]
    assert spec["resources"] == {"cpu": "500m", "memory": "512Mi", "ephemeralStorage": "1Gi", "pids": 256}
    assert spec["session"] == {
        "idleTimeout": "15m",
        "maxLifetime": "8h",
        "retention": "30d",
        "isolation": "session",
        "queue": 8,
    }
    assert spec["turn"]["maxAttempts"] == 3
    assert spec["pool"] == {"min": 1, "max": 10}
    assert spec["workspace"]["mount"] == "/workspace"
    assert spec["rollout"] == {"weight": 100}
    assert spec["egress"] == []


def test_the_filled_spec_reads_back_as_the_same_agent() -> None:
    agent = parse(document(egress=["index.example"], env=[{"name": "MODE", "value": "fast"}]))
    again = parse({**document(), "spec": json.loads(json.dumps(agent.wire_spec()))})
    assert again.spec == agent.spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"sesion": {}}, "spec.sesion: is not a field here; did you mean session?"),
        ({"idleTimeout": "1m"}, "spec.idleTimeout: is not a field here; it belongs to spec.session.idleTimeout"),
        (
            {"session": {"idle_timeout": "1m"}},
            "spec.session.idle_timeout: is not a field here; did you mean idleTimeout?",
        ),
        ({"env": [{"nam": "A", "value": "x"}]}, "spec.env[0].nam: is not a field here; did you mean name?"),
        ({"session": {"idleTimeout": "15x"}}, "spec.session.idleTimeout: '15x' is not a duration"),
        ({"resources": {"memory": "512Q"}}, "spec.resources.memory: '512Q' is not a size"),
        ({"resources": {"cpu": "0"}}, "spec.resources.cpu: must be more than 0"),
        ({"resources": {"cpu": [1]}}, "spec.resources.cpu: must be a string (found: a list)"),
        ({"env": [{"name": "A", "value": 1}]}, "spec.env[0].value: must be a string (found: 1); put it in quotes"),
        ({"env": [{"name": "PORT", "value": "1"}]}, "spec.env[0].name: PORT is set by the platform"),
        ({"env": [{"name": "A"}, {"name": "A"}]}, "spec.env: sets A twice"),
        ({"image": "x"}, "spec: give exactly one of image and source (found: both)"),
        ({"source": None}, "spec: give exactly one of image and source (found: none)"),
        ({"source": {"path": ".", "bundle": "a" * 64}}, "spec.source: give exactly one of path, bundle and git"),
        ({"source": {"bundle": "x"}}, "spec.source.bundle: is not a bundle's digest"),
        (
            {"source": {"path": ".", "entrypoint": "../x.py"}},
            "spec.source.entrypoint: must be a path inside the source",
        ),
        (
            {"source": {"path": ".", "python": 3.12}},
            "spec.source.python: must be a string (found: 3.12); put it in quotes",
        ),
        ({"source": {"git": {"url": "https://me:pw@host/x"}}}, "spec.source.git.url: holds a user or a password"),
        ({"source": {"git": {"url": "https://ghp_key@host/x"}}}, "spec.source.git.url: holds a user or a password"),
        ({"source": {"git": {"url": "https://host\\@other/x"}}}, "spec.source.git.url: holds a user or a password"),
        ({"source": {"git": {"url": "ssh://me:pw@host/x"}}}, "spec.source.git.url: holds a user or a password"),
        *[
            ({"source": {"git": {"url": url}}}, "spec.source.git.url: names no plain host")
            for url in (
                "https://git.example:x/a.git",
                "https://git.example:99999/a.git",
                "https://git.example:0/a.git",
                "https://[bad/a.git",
                "https://[::1]/a.git",
                "https:///a.git",
                "https://*.example/a.git",
                "https://git..example/a.git",
                "https://git.exam\tple/a.git",
                "https://git.example/a\nb",
                "https://g\u00edt.example/a",
            )
        ],
        (
            {"source": {"git": {"url": "https://host/x", "ref": "--upload-pack=x"}}},
            "spec.source.git.ref: is not the name",
        ),
        ({"pool": {"min": 5, "max": 2}}, "spec.pool: min (5) is more than max (2)"),
        ({"pool": {"min": -1}}, "spec.pool.min: input should be greater than or equal to 0"),
        ({"session": {"isolation": "none"}}, "spec.session.isolation: is always `session`"),
        ({"turn": 3}, "spec.turn: must be a mapping of fields (found: 3)"),
        ({"turn": {"retryWorkspace": "wipe"}}, "spec.turn.retryWorkspace: must be 'keep' or 'restore' (found: wipe)"),
        ({"egress": ["ok.com", "https://x"]}, "spec.egress[1]: 'https://x' is not a host"),
        ({"egress": ["*"]}, "spec.egress[0]: '*' is not a host"),
        ({"egress": ["a.com:99999"]}, "spec.egress[0]: 'a.com:99999' has no valid port"),
        ({"workspace": {"mount": "/proc/x"}}, "spec.workspace.mount: may not lie in /proc"),
        ({"mounts": [{"path": "~/src", "mount": "src"}]}, "spec.mounts[0].mount: must be an absolute path"),
        ({"rollout": {"weight": 101}}, "spec.rollout.weight: input should be less than or equal to 100"),
        ({"protocols": []}, "spec.protocols: list should have at least 1 item"),
    ],
)
def test_a_wrong_field_is_named_with_its_path(spec: dict[str, Any], message: str) -> None:
    assert message in refusal(document(**spec))


@pytest.mark.parametrize(
    "url",
    ["https://git.example:8443/a/b.git", "http://127.0.0.1:3000/a@b.git", "https://My_Git.example", "ssh://git@git.example/a",
     "git@git.example:a.git"],
)  # fmt: skip
def test_a_repository_at_a_plain_host_is_taken(url: str) -> None:
    source = parse(document(source={"git": {"url": url}})).spec.source
    assert source is not None and source.git is not None and source.git.url == url


@pytest.mark.parametrize("doc", [None, 3, [], "x"])
def test_a_document_that_is_no_mapping_is_refused(doc: Any) -> None:
    assert "a manifest is a mapping" in refusal(doc)


def test_every_wrong_field_is_reported_at_once() -> None:
    text = refusal(document(turn=3, sesion={}, pool={"min": "x"}))
    assert "spec.turn" in text and "spec.sesion" in text and "spec.pool.min" in text


def test_a_foundry_file_is_recognised_by_name() -> None:
    text = refusal({"kind": "hosted", "name": "x", "protocols": [{"protocol": "responses", "version": "v1"}]})
    assert "Foundry" in text and "spec.contract: foundry" in text


def test_another_kind_or_version_is_named() -> None:
    text = refusal({**document(), "kind": "Deployment", "apiVersion": "apps/v1"})
    assert "kind: must be HostedAgent (found: Deployment)" in text
    assert "apiVersion: must be moorage.dev/v1alpha1 (found: apps/v1)" in text


@pytest.mark.parametrize("name", ["Review", "a_b", "-a", "a" * 64, ""])
def test_a_name_that_is_no_dns_label_is_refused(name: str) -> None:
    assert "metadata.name" in refusal({**document(), "metadata": {"name": name}})


def test_what_an_api_server_adds_to_metadata_is_accepted() -> None:
    metadata = {"name": "a", "uid": "1", "resourceVersion": "2", "managedFields": [], "generation": 3}
    assert parse({**document(), "metadata": metadata, "status": {"x": 1}}).name == "a"


@pytest.mark.parametrize(
    "value",
    [
        "-----BEGIN " + "RSA PRIVATE KEY-----\nabc",
        # Put together from parts, so that no scanner takes them for real ones.
        "sk-" + "proj-" + "x" * 20,
        "sk-" + "ant-" + "x" * 20,
        "AKIA" + "X" * 16,
        "ghp_" + "a" * 36,
        "xoxb-" + "1" * 12,
        ".".join(["eyJ" + "a" * 12, "eyJ" + "b" * 12, "c" * 12]),
    ],
)
def test_a_secret_in_env_is_refused_and_never_repeated(value: str) -> None:
    text = refusal(document(env=[{"name": "SETTING", "value": value}]))
    assert "spec.env[0].value: looks like" in text and "ModelEndpoint" in text and "Toolbox" in text
    assert value not in text


@pytest.mark.parametrize(
    ("name", "value", "warned"),
    [
        ("API_KEY", "abc", True),
        ("DB_URL", "postgres://u:pw@h/db", True),
        ("X", "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW", True),
        ("OPENAI_API_KEY", "dummy", False),
        ("MODE", "fast", False),
        ("MAX_TOKENS", "100", False),
    ],
)
def test_what_only_looks_like_a_secret_is_a_warning(name: str, value: str, warned: bool) -> None:
    assert bool(warnings_of(parse(document(env=[{"name": name, "value": value}])))) is warned


def test_kubernetes_only_fields_are_noted_elsewhere() -> None:
    notes = notes_outside_kubernetes(parse(document(runtimeClassName="gvisor", nodeSelector={"a": "b"})))
    assert [note.split(" ")[0] for note in notes] == ["spec.runtimeClassName", "spec.nodeSelector"]
    assert notes_outside_kubernetes(parse(document())) == []


def test_several_documents_are_read_and_an_error_names_the_document() -> None:
    second = {**document(), "metadata": {"name": "other"}}
    assert [agent.name for agent in parse_all([document(), None, second])] == ["review-agent", "other"]
    with pytest.raises(ManifestError, match=r"document 2: spec\.turn"):
        parse_all([document(), document(turn=3)])
    with pytest.raises(ManifestError, match="used by two documents"):
        parse_all([document(), document()])


def test_an_agent_cannot_be_changed_after_reading() -> None:
    agent: HostedAgent = parse(document())
    with pytest.raises(ValueError, match="frozen"):
        agent.spec = agent.spec  # type: ignore[misc]
