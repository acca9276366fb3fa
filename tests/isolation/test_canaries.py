"""Credentials are used for an agent, and stand nowhere: not with the agent, whatever its servers repeat, and in no sink (T8, S7)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from fakes.objects import FolderObjects
from fakes.platform import poll
from fakes.prober import SEARCH_FILES, SEARCH_MEMORY, SEARCH_PROC, descriptors, ledger, outcome, search
from fakes.sinks import Sinks, ledger_values, unpacked
from isolation.test_credentials import MODEL, TOOL, secrets_of

pytestmark = pytest.mark.isolation

# What an agent's clients say, by hand: the agent's environment holds no package.
CLIENTS = """
import http.client, json, os
from urllib.parse import urlsplit
def ask(url, body, **headers):
    parts = urlsplit(url)
    link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    try:
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream"} | headers
        link.request("POST" if body is not None else "GET", parts.path, json.dumps(body) if body is not None else None, sent)
        answer = link.getresponse()
        return [answer.status, str(answer.getheaders()), answer.read().decode("latin-1")]
    finally:
        link.close()
def model(text, **more):
    body = {"model": "m-1", "messages": [{"role": "user", "content": text}], **more}
    return ask(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, authorization="Bearer moorage")
def tool(text):
    said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {"text": text}}}
    return ask(os.environ["MOORAGE_TOOLBOXES_URL"] + "/desk/mcp", said)
"""
# Each makes a server repeat what it was shown, or fail with it.
LEAKS = """
result = {
    "model, body": model("leak body"),
    "model, stream": model("leak stream", stream=True),
    "model, refused": model("leak fail 401"),
    "model, failed": model("leak fail 500"),
    "model, redirected": model("redirect"),
    "model, broken": model("cut"),
    "tool, result": tool("leak"),
    "tool, failed": tool("status 500"),
    "tool, redirected": tool("redirect http://elsewhere.example/"),
    "tool, malformed": tool("garbage"),
}
"""
DOOR = """
import itertools
place = os.environ["MOORAGE_STEPS_URL"].rpartition("/")[0]
targets = ["/", "/metrics", "/healthz", "/shim/status", "/relay/responses", "/sandbox/v1/announce", "/sandbox/v1/calls", "/steps/",
           "/steps/begin", "/models/", "/models/~openai/v1/models", "/models/chat/v1/models", "/models/other/v1/models", "/toolboxes/",
           "/toolboxes/desk/mcp", "/toolboxes/other/mcp", "/v1/agents", "/v1/keys", "/models/../sandbox/v1/announce"]
methods = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "HEAD"]
told = b""
asked = 0
for method, target in itertools.product(methods, targets):
    link = http.client.HTTPConnection(urlsplit(place).hostname, urlsplit(place).port, timeout=30)
    try:
        link.request(method, target, b"{}" if method in ("POST", "PUT") else None, {"content-type": "application/json"})
        answer = link.getresponse()
        told += repr(answer.getheaders()).encode() + answer.read()
        asked += 1
    except (OSError, http.client.HTTPException) as fault:
        told += repr(fault).encode()
    finally:
        link.close()
look("door", told)
"""


@pytest.fixture(scope="module")
def sinks(world: Any) -> Sinks:
    """Everything this platform writes."""
    return Sinks(world.platform, world.spans, "prober")


@pytest.fixture(scope="module")
def leaked(world: Any) -> dict[str, Any]:
    """What the agent's servers repeated to it, within a turn: so it is in the journal, the trace and the response."""
    return dict(outcome(world.prober.turn("canaries-turn", CLIENTS + LEAKS)))


def searched(world: Any, session: str, *parts: str) -> list[tuple[str, str]]:
    """(what it is, where) of every secret that a session finds by these parts."""
    secrets = secrets_of(world)
    names = list(secrets)
    found = world.prober.tell(session, search(list(secrets.values()), *parts))
    return [(names[index], place) for place, index in found]


def test_servers_are_shown_the_credentials_and_what_they_repeat_is_hidden(world: Any, leaked: dict[str, Any]) -> None:
    assert {each["headers"]["authorization"] for each in world.models.asked} == {f"Bearer {MODEL}"}
    assert {each["headers"]["authorization"] for each in world.tools.ran} == {f"Bearer {TOOL}"}
    for name, (_, headers, body) in leaked.items():
        assert MODEL not in headers + body and TOOL not in headers + body, name
    for name in ("model, body", "model, stream", "model, refused", "model, failed", "tool, result"):
        assert "[credential]" in leaked[name][2], (name, leaked[name])
    assert "[credential]" in leaked["model, refused"][1], "headers, too"


def test_an_agent_that_used_them_finds_none_in_all_it_can_read(world: Any, leaked: dict[str, Any]) -> None:
    for part in (SEARCH_FILES, SEARCH_PROC, SEARCH_MEMORY):
        assert searched(world, "canaries-turn", CLIENTS, part) == []


def test_the_search_of_memory_reads_every_process_that_an_agent_sees(world: Any) -> None:
    seen = world.prober.tell(
        "canaries-memory",
        "import subprocess, sys\n"
        "held = subprocess.Popen([sys.executable, '-c', \"import time; kept = 'planted-' + 'needle-2'; time.sleep(600)\"])\n"
        + search(["planted-needle-2"], SEARCH_MEMORY)
        + "\nresult = [found, sorted(map(str, opened)), str(held.pid), sorted(n for n in os.listdir('/proc') if n.isdigit())]"
        "\nheld.kill(); held.wait()\n",
    )
    _, opened, child, visible = seen
    assert child in opened and "self" in opened
    assert len(visible) == 3, "init, the agent, its child: the shim is none of them"


def test_nothing_that_answers_at_the_shims_door_tells_one(world: Any) -> None:
    assert searched(world, "canaries-door", CLIENTS, DOOR) == []
    assert world.prober.tell("canaries-door", search(["nothing here: this is a proxy"], CLIENTS, DOOR)), (
        "it reads what the door says"
    )


def test_no_sink_holds_one(world: Any, leaked: dict[str, Any], sinks: Sinks) -> None:
    turn = world.prober.turn("canaries-sinks", CLIENTS + LEAKS)
    trace = world.platform.record("prober", turn["id"])["trace_id"]
    poll("its spans came", lambda: len([s for s in world.spans.trace(trace) if s.name.startswith("chat ")]) >= 6)
    poll("the journal has what they repeated", lambda: _journaled(world) >= 5)
    read = [where.partition(" ")[0] for where, _ in sinks.read()]
    assert set(read) == {"ledger", "kept", "printed", "logs", "spans", "metrics", "audit"}
    secrets = secrets_of(world)
    assert (
        sinks.holding({name: secrets[name] for name in ("model key", "tool credential", "environment", "state folder")})
        == []
    )
    # The ledger is trusted with what signs tokens and opens shims; the API key is printed once, on purpose.
    found = sinks.holding({name: value for name, value in secrets.items() if name != "API key"})
    assert [(what, where) for what, where in found if not where.startswith("ledger ")] == []
    assert [where for _, where in sinks.holding({"API key": secrets["API key"]}) if where != "printed"] == []


def _journaled(world: Any) -> int:
    """Recorded values in which a credential was hidden."""
    return sum(
        b"[credential]" in each for _, value in ledger_values(world.platform.redis_url()) for each in unpacked(value)
    )


def test_the_search_of_the_sinks_finds_what_is_planted_in_each(world: Any, sinks: Sinks) -> None:
    planted = "planted-canary-3c0ffee5"
    objects = FolderObjects(world.platform.objects())
    world.prober.tell("canaries-planted", f"print({planted!r}, flush=True)")
    code = CLIENTS + f"result = model({planted!r}), model('x', model={planted!r})"
    assert world.prober.turn("canaries-planted", code)["status"] == "completed"
    world.platform.call(f"/v1/agents/{planted}", method="DELETE")
    world.spans.take(span(planted))
    objects.write("planted", planted.encode())
    with ledger(world.platform) as client, world.platform.log.open("a") as printed:
        client.set("planted", planted)
        print(planted, file=printed, flush=True)
        try:
            places = {
                "ledger planted",
                "kept objects/planted",
                "printed",
                "logs",
                f"spans {planted}",
                "metrics",
                "audit",
            }
            holding = poll(
                "it is found in each", lambda: whole if places <= (whole := found_in(sinks, planted)) else None
            )
            assert len([where for where in holding if where.startswith("ledger ")]) >= 2, (
                "the journal's entry, which is packed"
            )
        finally:
            client.delete("planted")
            objects.remove("planted")


def found_in(sinks: Sinks, planted: str) -> set[str]:
    """Where it stands."""
    return {where for _, where in sinks.holding({"it": planted})}


def span(name: str) -> bytes:
    """An export of one span of that name."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name=name, trace_id=bytes(16), span_id=bytes(8))
    return bytes(request.SerializeToString())


def test_no_error_that_a_caller_gets_tells_one(world: Any, leaked: dict[str, Any]) -> None:
    said = []
    for text in ("leak fail 401", "redirect", "cut"):
        code = CLIENTS + f"raise RuntimeError(str(model({text!r})))"
        said.append(json.dumps(world.prober.turn("canaries-errors", code)))
    paths = ("/v1/toolboxes", "/v1/toolboxes/desk/tools", "/v1/agents", "/v1/agents/prober")
    said += [json.dumps(world.platform.call(path)[1], default=repr) for path in paths]
    status, tried = world.platform.call(
        "/v1/toolboxes/desk/call", method="POST", body={"tool": "add", "arguments": {"text": "leak"}}
    )
    said.append(json.dumps(tried, default=repr))
    assert not [each for each in said if MODEL in each or TOOL in each]
    assert any("[credential]" in each for each in said)


def test_the_shims_token_and_secret_are_nowhere_an_agent_looks(world: Any) -> None:
    world.prober.tell("canaries-shim", "result = 1")
    assert len(descriptors(world.platform)) >= 2
    secrets = secrets_of(world)
    assert [name for name in secrets if name.startswith("token of ")] and [
        name for name in secrets if name.startswith("bind secret")
    ]
    assert searched(world, "canaries-shim", CLIENTS, SEARCH_FILES, SEARCH_PROC, SEARCH_MEMORY, DOOR) == []
