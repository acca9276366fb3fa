"""What reaches the agent of a turn or a relay (T6, protocols.md §3.7)."""

import orjson
import pytest

from moorage_api.wire.shim import Bind, Start
from moorage_sandbox import prompt

pytestmark = pytest.mark.unit
BOUND = Bind(session="dev:p", epoch=3, tenant="dev", agent="a", session_id="s-1", user="ada")


def start(**more: object) -> Start:
    fields = {"turn": "caresp_1", "fence": 9, "attempt": 2, "session": "dev:p", "epoch": 3, "deadline": 5.0, **more}
    return Start.model_validate(fields)


@pytest.mark.parametrize("contract", ["foundry", "agentcore"])
def test_a_foreign_container_is_kept_from_running_the_turn_again_by_itself(contract):
    _, body = prompt.of_turn(start(body={"model": "x", "background": True}, history=[{}]), BOUND, 1, contract)
    assert orjson.loads(body) == {"stream": True, "background": False}


def test_our_own_server_gets_history_and_attempt():
    _, body = prompt.of_turn(start(body={"model": "x", "input": "hi"}, history=[{"a": 1}]), BOUND, 1, "moorage")
    assert orjson.loads(body) == {"input": "hi", "stream": True, "moorage": {"history": [{"a": 1}], "attempt": 2}}


def test_a_caller_cannot_set_what_the_platform_says():
    forged = {"X-Agent-User-Id": "eve", "x-moorage-epoch": "99", "host": "evil", "content-length": "5", "te": "x"}
    headers, _ = prompt.of_turn(start(headers=forged), BOUND, 8088, "moorage")
    found = dict(headers)
    assert len(found) == len(headers)
    assert (found[b"x-agent-user-id"], found[b"x-moorage-epoch"], found[b"host"]) == (b"ada", b"3", b"127.0.0.1:8088")
    assert not {b"content-length", b"te"} & set(found)


def test_a_relay_loses_what_belongs_to_one_hop_or_to_the_platform():
    headers = [
        (b"connection", b"keep-alive, X-Listed"), (b"x-listed", b"1"), (b"x-moorage-secret", b"s"), (b"te", b"x"),
        (b"x-agent-user-id", b"eve"), (b"x-moorage-session", b"key"), (b"x-own", b"1"), (b"transfer-encoding", b"chunked"),
    ]  # fmt: skip
    assert prompt.of_relay(headers, BOUND, 1) == [
        (b"host", b"127.0.0.1:1"), (b"x-own", b"1"), (b"x-moorage-session", b"s-1"), (b"x-moorage-epoch", b"3"),
        (b"x-agent-user-id", b"ada"),
    ]  # fmt: skip
