"""Pieces of the client: the stream parser, errors, manifests, what an import costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage import ApiStatusError, AsyncClient, Client, ConnectionLost, Misuse, _deploy, _sse

pytestmark = pytest.mark.unit

values = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=8), lambda v: st.dictionaries(st.text(max_size=4), v, max_size=3)
)


@given(st.lists(values, max_size=6), st.integers(1, 50), st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_a_stream_cut_anywhere_gives_the_same_events(sent: list[object], cut: int, end: bytes, escaped: bool) -> None:
    wire = b": comment" + end + end
    for value in sent:
        wire += b"event: x" + end + b"data: " + json.dumps(value, ensure_ascii=escaped).encode() + end + end
    wire += b"data: [DONE]" + end + end
    parser = _sse.Parser()
    got = [event for start in range(0, len(wire), cut) for event in parser.feed(wire[start : start + cut])]
    assert got == sent


def test_an_event_that_is_no_json_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost):
        _sse.Parser().feed(b"data: {\n\n")


async def test_a_refusal_carries_the_platforms_own_words() -> None:
    body = {"error": {"message": "Too many.", "code": "queue_full", "param": "session"}}
    transport = httpx2.MockTransport(lambda request: httpx2.Response(429, json=body, headers={"retry-after": "2"}))
    async with AsyncClient(url="http://x", transport=transport) as client:
        with pytest.raises(ApiStatusError, match="Too many") as refused:
            await client.list_agents()
    assert (refused.value.status, refused.value.code, refused.value.param, refused.value.retry_after) == (
        429,
        "queue_full",
        "session",
        2,
    )


async def test_an_answer_that_is_no_platforms_is_an_error_with_its_status() -> None:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(502, text="<html>"))
    async with AsyncClient(url="http://x", transport=transport) as client:
        with pytest.raises(ApiStatusError, match="502"):
            await client.list_agents()


def test_the_blocking_client_reads_every_page() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        after = request.url.params.get("after")
        page = {None: ["a", "b"], "b": ["c"]}[after]
        return httpx2.Response(200, json={"data": [{"id": one} for one in page], "has_more": after is None})

    with Client(url="http://x", key="k", transport=httpx2.MockTransport(answer)) as client:
        assert [session["id"] for session in client.list_sessions()] == ["a", "b", "c"]


def test_a_refused_create_is_not_sent_again() -> None:
    calls: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        return httpx2.Response(503, json={"error": {"message": "Full.", "code": "unavailable"}})

    with (
        Client(url="http://x", transport=httpx2.MockTransport(answer)) as client,
        pytest.raises(ApiStatusError, match="Full"),
    ):
        list(client.stream_response("hello", "x"))
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "is not YAML"),
        ("", "holds no manifest"),
        ("kind: hosted", "Foundry"),
        ("3", "a manifest is a mapping"),
        (
            "apiVersion: moorage.dev/v1alpha1\nkind: HostedAgent\nmetadata: {name: x}\nspec: {source: {path: nowhere}}",
            "is not a folder",
        ),
        (
            "apiVersion: moorage.dev/v1alpha1\nkind: HostedAgent\nmetadata: {name: x}\n"
            "spec: {source: {path: .}, mounts: [{path: /tmp, mount: /data}]}",
            "spec.mounts",
        ),
    ],
)
def test_a_wrong_manifest_is_said_in_words(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "agent.yaml").write_text(text)
    with pytest.raises(Misuse, match=said):
        _deploy.read(tmp_path)


def test_an_agents_program_imports_no_http_client_and_no_command_line() -> None:
    heavy = ("httpx2", "pydantic", "typer", "rich", "yaml", "starlette", "opentelemetry")
    code = f"import sys, moorage; from moorage.serve import server; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import moorage

    assert all(getattr(moorage, name) is not None for name in moorage.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = moorage.nothing_like_it


def test_model_endpoints_beside_an_agent_are_left_to_who_runs_the_platform(tmp_path: Path) -> None:
    agent = "apiVersion: moorage.dev/v1alpha1\nkind: HostedAgent\nmetadata: {name: a}\nspec: {source: {path: .}}\n"
    endpoint = "apiVersion: moorage.dev/v1alpha1\nkind: ModelEndpoint\nmetadata: {name: m}\nspec: {protocol: openai, baseUrl: 'https://m'}\n"
    (tmp_path / "agent.yaml").write_text(f"{endpoint}---\n{agent}")
    (found,) = _deploy.read(tmp_path)
    assert found.name == "a" and "model endpoint m" in found.warnings[-1] and "kubectl apply" in found.warnings[-1]
    (tmp_path / "agent.yaml").write_text(endpoint)
    with pytest.raises(Misuse, match="no manifest of an agent"):
        _deploy.read(tmp_path)


def test_toolboxes_beside_an_agent_are_left_to_who_runs_the_platform(tmp_path: Path) -> None:
    agent = "apiVersion: moorage.dev/v1alpha1\nkind: HostedAgent\nmetadata: {name: a}\nspec: {source: {path: .}}\n"
    spec = "{upstreams: [{name: one, mcp: {url: 'https://t.example/mcp'}}]}"
    box = f"apiVersion: moorage.dev/v1alpha1\nkind: Toolbox\nmetadata: {{name: t}}\nspec: {spec}\n"
    (tmp_path / "agent.yaml").write_text(f"{box}---\n{agent}")
    (found,) = _deploy.read(tmp_path)
    assert found.name == "a" and "toolbox t" in found.warnings[-1]
