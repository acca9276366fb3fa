"""Names, fingerprints, and gates of toolboxes: the pure rules."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import pytest

from moorage_api.kinds import ManifestError, Toolbox, parse_any
from moorage_gateway.tools import fingerprints, results, sessions
from moorage_gateway.tools.gates import Gate
from moorage_gateway.tools.names import Names, Patterns
from moorage_gateway.tools.sessions import Kept

pytestmark = pytest.mark.unit


def document(*upstreams: dict[str, Any], **spec: Any) -> dict[str, Any]:
    listed = [{"name": "one", "mcp": {"url": "https://a.example/mcp"}, **each} for each in upstreams or ({},)]
    return {
        "apiVersion": "moorage.dev/v1alpha1", "kind": "Toolbox", "metadata": {"name": "t"}, "spec": {"upstreams": listed, **spec},
    }  # fmt: skip


def names(*upstreams: dict[str, Any]) -> Names:
    made = parse_any(document(*upstreams))
    assert isinstance(made, Toolbox)
    return Names(made.wire_spec())


# -- the manifest

OAUTH = {"tokenUrl": "https://a/token", "clientId": "m", "clientSecret": {"secret": "s"}}
IDENTITY = {"tokenUrl": "https://a/token", "clientId": "c"}
API: dict[str, Any] = {"mcp": None, "openapi": {"server": "https://a"}}


def program(**more: Any) -> dict[str, Any]:
    return {"mcp": None, "stdio": {"command": "python", **more}}


@pytest.mark.parametrize(
    ("upstreams", "says"),
    [
        ([{"name": "Bad"}], "spec.upstreams[0].name: 'Bad' is not a name"),
        ([{"mcp": {"url": "https://u:hunter2@h/mcp"}}], "give the key as credential"),
        ([{"mcp": {"url": "ftp://h"}}], "is no http(s) URL; write it like https://tools.example.com/mcp"),
        ([{"timeout": "16m"}], "16m is not between"),
        ([{"maxResult": "9Mi"}], "9Mi is not between 1Ki and 8Mi"),
        ([{"allow": ["a b"]}], "'a b' is not a tool's name or a pattern"),
        ([{"rename": {"a": "c", "b": "c"}}], "gives two tools one name"),
        ([{"prefix": "a b"}], "is not a prefix"),
        ([{"credential": {"secret": "s", "header": "Content-Type"}}], "is not a header for a credential"),
        ([{"credential": {"secret": "s", "header": "Mcp-Name"}}], "is not a header for a credential"),
        ([{"credential": {"secret": "tok en"}}], "a manifest never holds the key itself"),
        ([{"pin": {"a": "1234"}}], "'1234' is not a digest: sha256: and 64 hex digits"),
        ([{"examples": {"a b": ["x"]}}], "'a b' is not a tool's name"),
        ([{"examples": {"a": [" "]}}], "a question of a is empty"),
        ([{"examples": {"a": ["x" * 201]}}], "spec.upstreams[0].examples.a[0]: string should have at most 200"),
        ([{"examples": {"a": []}}], "spec.upstreams[0].examples.a: list should have at least 1 item"),
        ([{"examples": {"a": ["x"] * 4}}], "spec.upstreams[0].examples.a: list should have at most 3 items"),
        ([{"examples": {f"t{n}": ["é" * 200] * 3 for n in range(220)}}], "their examples are 258 KiB, and may be 256"),
        ([{}, {}], "upstreams: two have the same name"),
        ([{"prefix": "x"}, {"name": "two", "prefix": "x"}], "two have the same prefix"),
        ([{"mcp": None}], "has exactly one of mcp, openapi, stdio and agent"),
        (
            [{"openapi": {"server": "https://a", "url": "https://a"}}],
            "has exactly one of mcp, openapi, stdio and agent",
        ),
        ([{"agent": {"name": "worker"}}], "has exactly one of mcp, openapi, stdio and agent"),
        ([{**API}], "spec.upstreams[0].openapi: has either url or document, and not both"),
        ([{**API, "openapi": {"server": "https://u:hunter2@h", "url": "https://a"}}], "give the key as credential"),
        ([{**API, "openapi": {"server": "https://a", "document": {"x": "y" * 2**18}}}], "is larger than 256 KiB"),
        ([{**API, "openapi": {"server": "https://a", "document": {"x": date(2026, 1, 1)}}}], "quote dates"),
        ([{"credential": {"secret": "s", "query": "key"}}], "credential.query is for openapi"),
        ([{"credential": {"secret": "s"}, "oauth": OAUTH}], "has either credential or oauth, and not both"),
        ([{"credential": {"secret": "s"}, "workloadIdentity": IDENTITY}], "workloadIdentity or one of credential and"),
        ([{"oauth": OAUTH, "workloadIdentity": IDENTITY}], "workloadIdentity or one of credential and oauth"),
        ([{**program(), "workloadIdentity": IDENTITY}], "workloadIdentity opens servers: it is for mcp and openapi"),
        ([{"workloadIdentity": {**IDENTITY, "clientId": None}}], "grant clientAssertion needs clientId"),
        ([{"workloadIdentity": {**IDENTITY, "tokenUrl": "https://u:hunter2@h/token"}}], "give the key as"),
        ([{"oauth": {**OAUTH, "scopes": ["a b"]}}], "'a b' is not a scope"),
        ([{"oauth": {**OAUTH, "parameters": {"client_secret": "hunter2"}}}], "a secret by clientSecret alone"),
        ([{"oauth": {**OAUTH, "tokenUrl": "https://u:hunter2@h/token"}}], "give the key as clientSecret"),
        ([{"mcp": None, "agent": {"name": "Bad"}}], "'Bad' is not an agent's name"),
        ([{"mcp": None, "agent": {"name": "a", "session": "own"}}], "spec.upstreams[0].agent.session"),
        ([{"mcp": None, "agent": {"name": "a"}, "credential": {"secret": "s"}}], "without a credential; leave it out"),
        ([{"stdio": {"command": "python"}}], "has exactly one of mcp, openapi, stdio and agent"),
        ([{**program(), "credential": {"secret": "s"}}], "goes into its environment: stdio.env"),
        ([{**program(), "oauth": OAUTH}], "goes into its environment: stdio.env"),
        ([program(command="python server.py")], "its arguments go under args"),
        ([program(args=["--key", "sk-hunter2hunter2hunter2"])], "holds what looks like an OpenAI or Anthropic key"),
        ([program(env=[{"name": "A", "value": "sk-hunter2hunter2hunter2"}])], "name that under secret"),
        ([program(env=[{"name": "A"}])], "has either value or secret, and not both"),
        ([program(env=[{"name": "A", "value": "", "secret": {"secret": "s"}}])], "has either value or secret"),
        ([program(env=[{"name": "HOME", "value": "/"}])], "HOME is set by the platform; choose another name"),
        ([program(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}])], "env: sets A twice"),
        ([program(workingDir="../other")], "must be a path inside the source"),
        ([program(requirements="/etc/requirements.txt")], "must be a path inside the source"),
        ([program(env=[{"name": "LD_PRELOAD", "secret": {"secret": "s"}}])], "would reach what runs the program"),
        ([program(env=[{"name": "GCONV_PATH", "secret": {"secret": "s"}}])], "would reach what runs the program"),
        ([program(resources={"memory": "much"})], "spec.upstreams[0].stdio.resources.memory"),
    ],
)
def test_a_manifest_that_cannot_be_used_says_why(upstreams: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ManifestError) as refused:
        parse_any(document(*upstreams))
    assert says in str(refused.value) and "hunter2" not in str(refused.value)


# -- names


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("a", "a", True), ("a", "ab", False), ("a*", "ab", True), ("*a", "ba", True), ("*", "", True), ("a*a", "a", False),
        ("a*a", "aa", True), ("a*b*c", "axxbyyc", True), ("a*b*c", "axxcyyb", False), ("a**c", "abc", True), ("a.c", "abc", False),
        ("*ab", "ab", True), ("a*b*b", "ab", False),
    ],
)  # fmt: skip
def test_a_star_stands_for_any_run_of_characters(pattern: str, text: str, fits: bool) -> None:
    assert Patterns([pattern]).match(text) is fits


def test_a_pattern_costs_no_more_than_it_is_long() -> None:
    assert not Patterns(["*".join("a" * 60) + "b"]).match("a" * 128)


def test_everything_is_an_effect_but_what_the_manifest_says_of() -> None:
    made = names({"readOnly": ["get_*"], "idempotent": ["put"]})
    (upstream,) = made.upstreams
    assert [upstream.permits(tool) for tool in ("get_one", "put", "add", "getter")] == [
        "again",
        "again",
        "once",
        "once",
    ]


def test_an_agent_is_one_tool_under_its_name_and_its_turn_is_joined() -> None:
    made = names({"mcp": None, "name": "worker", "agent": {"name": "w"}})
    (worker,) = made.upstreams
    assert made.find("worker_ask") == (worker, "ask") and made.find("ask") is None
    assert worker.permits("ask") == "joins"
    renamed = names({"mcp": None, "agent": {"name": "w"}, "prefix": "", "rename": {"ask": "research"}})
    assert renamed.find("research") is not None and renamed.find("ask") is None


def test_the_longest_prefix_has_the_name_and_nobody_takes_anothers() -> None:
    made = names({"prefix": ""}, {"name": "two", "prefix": "two_"}, {"name": "three", "prefix": "two_three_"})
    one, two, three = made.upstreams
    assert (
        made.find("two_three_x") == (three, "x") and made.find("two_x") == (two, "x") and made.find("x") == (one, "x")
    )
    assert made.shown(one, "two_x") is None, "a server cannot name a tool so that it shadows another's"
    assert made.shown(two, "x") == "two_x"


def test_a_renamed_tool_is_found_by_its_new_name_alone() -> None:
    made = names({"rename": {"add": "plus", "plus": "add"}, "deny": ["rm"]})
    (one,) = made.upstreams
    assert made.find("plus") == (one, "add") and made.find("add") == (one, "plus")
    made = names({"rename": {"add": "plus"}, "deny": ["rm"]})
    (one,) = made.upstreams
    assert made.find("add") is None and made.find("rm") is None and made.find("") is None
    assert made.shown(one, "plus") is None, "its own tool of that name is hidden by the one that got it"


# -- fingerprints: one rule a case

BASE: dict[str, Any] = {"name": "add", "arguments": {"a": 1, "b": [1, 2]}}


@pytest.mark.parametrize(
    "same",
    [
        {"arguments": {"b": [1, 2], "a": 1}, "name": "add"},
        {**BASE, "_meta": {"progressToken": 7}},
        {**BASE, "_meta": {"traceparent": "00-a", "tracestate": "x=1", "baggage": "y"}},
        {**BASE, "_meta": {"io.modelcontextprotocol/clientInfo": {"name": "c"}, "io.modelcontextprotocol/protocolVersion": "v"}},
        {**BASE, "_meta": {}},
    ],
    ids=["order of keys", "progress token", "trace context", "what the protocol says of the client", "nothing in _meta"],
)  # fmt: skip
def test_what_clients_vary_without_meaning_it(same: dict[str, Any]) -> None:
    assert fingerprints.of_call("t", same) == fingerprints.of_call("t", BASE)


@pytest.mark.parametrize(
    "other",
    [
        {**BASE, "name": "sub"},
        {**BASE, "arguments": {"a": 1, "b": [2, 1]}},
        {**BASE, "arguments": {"a": "1", "b": [1, 2]}},
        {**BASE, "arguments": {}},
        {**BASE, "_meta": {"example.com/tenant": "x"}},
        {**BASE, "requestState": "s"},
    ],
    ids=["tool", "order of a list", "type of a value", "arguments", "a key of somebody's own", "other parameters"],
)  # fmt: skip
def test_everything_else_has_a_meaning(other: dict[str, Any]) -> None:
    assert fingerprints.of_call("t", other) != fingerprints.of_call("t", BASE)


def test_no_arguments_are_empty_ones_and_toolboxes_are_told_apart() -> None:
    assert fingerprints.of_call("t", {"name": "x"}) == fingerprints.of_call("t", {"name": "x", "arguments": {}})
    assert fingerprints.of_call("t", BASE) != fingerprints.of_call("u", BASE)
    assert fingerprints.of_list("t") != fingerprints.of_list("u")


# -- gates


def test_a_gate_closes_after_so_many_failures_in_a_row_and_lets_one_try() -> None:
    gate = Gate(1, 2, 30.0)
    gate.bad(0.0)
    gate.good()
    gate.bad(1.0)
    assert gate.closed(1.0) == 0
    gate.bad(2.0)
    assert gate.closed(12.0) == 20.0
    assert gate.closed(33.0) == 0 and gate.closed(33.0) == 30.0, "one trial; the others wait on"
    gate.good()
    assert gate.closed(33.0) == 0


# -- results


def test_a_result_keeps_what_is_its_own_and_cannot_speak_for_the_platform() -> None:
    meta = {"dev.moorage/outcome": "unknown", "io.modelcontextprotocol/x": 1, "own/y": 2}
    found = results.checked({"content": [], "_meta": meta, "structuredContent": {"a": 1}, "more": 1}, "add")
    assert found == {"content": [], "isError": False, "_meta": {"own/y": 2}, "structuredContent": {"a": 1}}
    assert results.checked({"content": [{"type": "text"}] * 1001}, "add")["isError"]


def test_what_an_earlier_attempt_did_is_told_with_what_it_gave() -> None:
    gave = {"content": [{"type": "text", "text": "7"}], "isError": False, "structuredContent": {"a": 7}}
    found = results.earlier("add", '{"a":7}', gave)
    assert found["isError"] and "structuredContent" not in found and found["content"][1:] == gave["content"]
    assert found["_meta"] == {"dev.moorage/outcome": "already_done", "dev.moorage/structuredContent": {"a": 7}}
    failed = results.earlier("add", "{}", {"content": [], "isError": True})
    assert "It failed" in failed["content"][0]["text"]


# -- sessions of servers


async def test_sessions_that_nobody_uses_get_their_goodbye_and_so_do_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ended = 0.0, []

    async def goodbye(kept: Kept) -> None:
        ended.append(kept.id)

    async def sleep(_: float) -> None:
        if len(ended) >= 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(sessions, "MOST", 2)
    made = sessions.Sessions(lambda: now, sleep)
    for n in range(3):
        made.put(("server", f"s{n}"), Kept("2025-11-25", f"id-{n}", goodbye))
    assert made.get(("server", "s0")) is not None  # used last
    now = sessions.IDLE_S + 1
    made.put(("server", "s3"), Kept("2025-11-25", "id-3", goodbye))
    with pytest.raises(asyncio.CancelledError):
        await made.run()
    assert ended == ["id-1", "id-2", "id-0"] and len(made) == 1
    await made.close()
    assert ended[-1] == "id-3" and len(made) == 0


async def test_two_that_begin_together_get_one_session() -> None:
    made, opened = sessions.Sessions(lambda: 0.0, asyncio.sleep), []

    async def goodbye(_: Kept) -> None:
        return

    async def asks() -> None:
        async with made.opening(("server", "s")):
            if made.get(("server", "s")) is None:
                await asyncio.sleep(0)
                opened.append(1)
                made.put(("server", "s"), Kept("v", "id", goodbye))

    await asyncio.gather(*(asks() for _ in range(5)))
    assert opened == [1] and made._opening == {}
