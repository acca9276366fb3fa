"""What of each provider's protocol is passed through, where it goes, with which key, and where a stream tells its end."""

from __future__ import annotations

import pytest

from moorage_api.upstream_places import Forbidden
from moorage_gateway.models import places, protocols

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("protocol", "method", "rest", "url"),
    [
        ("openai", "POST", "v1/chat/completions", "https://h/v1/chat/completions"),
        ("openai", "POST", "chat/completions", "https://h/v1/chat/completions"),
        ("compatible", "POST", "v1/responses", "https://h/v1/responses"),
        ("openai", "GET", "v1/responses/resp_1", "https://h/v1/responses/resp_1"),
        ("openai", "GET", "v1/models/org/model:7b", "https://h/v1/models/org/model:7b"),
        ("openai", "POST", "v1/embeddings?x=1", "https://h/v1/embeddings?x=1"),
        ("azure", "POST", "openai/deployments/d/chat/completions", "https://h/openai/deployments/d/chat/completions?api-version=V"),
        ("azure", "POST", "openai/responses?api-version=W", "https://h/openai/responses?api-version=W"),
        ("azure", "POST", "openai/v1/responses", "https://h/openai/v1/responses"),
        ("anthropic", "POST", "v1/messages", "https://h/v1/messages"),
        ("anthropic", "POST", "v1/messages/count_tokens?beta=true", "https://h/v1/messages/count_tokens?beta=true"),
    ],
)  # fmt: skip
def test_routes_and_where_they_lead(protocol: str, method: str, rest: str, url: str) -> None:
    path = protocols.path_of(protocol, method, rest)
    assert path is not None
    base = "https://h/v1" if protocol in ("openai", "compatible", "anthropic") else "https://h"
    assert protocols.url_of(protocol, base, path, "V") == url


@pytest.mark.parametrize(
    ("protocol", "method", "rest"),
    [
        ("openai", "GET", "v1/chat/completions"),
        ("openai", "POST", "v1/files"),
        ("openai", "DELETE", "v1/responses/resp_1"),
        ("openai", "POST", "v1/../admin/keys"),
        ("openai", "GET", "v1/models/../../admin"),
        ("openai", "GET", "v1/models//x"),
        ("openai", "POST", "v1/responses/a%2f..%2fb"),
        ("openai", "POST", "v1/chat/completions?a=b c"),
        ("openai", "POST", "v1/chat/completions#x"),
        ("azure", "POST", "openai/deployments/a/b/chat/completions"),
        ("azure", "POST", "openai/files"),
        ("anthropic", "POST", "v1/messages/batches"),
        ("anthropic", "POST", "messages"),
    ],
)
def test_nothing_else_is_passed_through(protocol: str, method: str, rest: str) -> None:
    assert protocols.path_of(protocol, method, rest) is None


@pytest.mark.parametrize(
    ("protocol", "name", "value"),
    [
        ("openai", "authorization", "Bearer k"),
        ("compatible", "authorization", "Bearer k"),
        ("azure", "api-key", "k"),
        ("anthropic", "x-api-key", "k"),
    ],
)
def test_the_key_is_ours_and_never_the_agents(protocol: str, name: str, value: str) -> None:
    own = (
        ("authorization", "Bearer x"),
        ("X-Api-Key", "x"),
        ("api-key", "x"),
        ("cookie", "x"),
        ("content-type", "application/json"),
    )
    found = protocols.sent_headers(protocol, own, "k")
    assert found[name] == value and "x" not in found.values() and "Bearer x" not in found.values()
    assert found["accept-encoding"] == "identity"
    assert name not in protocols.sent_headers(protocol, own, None)


def test_the_agent_is_told_of_limits_and_not_of_cookies() -> None:
    told = [
        ("Content-Type", "a"),
        ("Set-Cookie", "s"),
        ("x-ratelimit-remaining-requests", "1"),
        ("Server", "x"),
        ("Retry-After", "2"),
    ]
    assert protocols.given_headers(told) == (
        ("content-type", "a"),
        ("x-ratelimit-remaining-requests", "1"),
        ("retry-after", "2"),
    )


QUOTED = b'event: message_start\ndata: {}\n\nevent: message_delta\ndata: {"t":"event: message_stop"}\n\n'
STREAMS = [
    (b'data: {"a": 1}\n\ndata: {"b": "\\ndata: [DONE]"}\n\n', b"data: [DONE]\n\n"),
    (QUOTED, b"event: message_stop\ndata: {}\n\n"),
    (b"event: response.created\ndata: {}\n\n", b'event: response.completed\ndata: {"x": 1}\n\n'),
    (b"event: response.output_text.delta\ndata: {}\n\n", b"event: response.failed\ndata: {}\n\n"),
    (b": hello\n\n", b"data:[DONE]\n\n"),
    (b"", b"data: [DONE]\n\n"),
]


@pytest.mark.parametrize(("before", "end"), STREAMS)
@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_where_a_stream_tells_its_end_is_found_however_it_is_cut(before: bytes, end: bytes, size: int) -> None:
    whole, ends, passed = before + end, protocols.Ends(), b""
    for at in range(0, len(whole), size):
        piece = whole[at : at + size]
        passed += piece[: ends.split(piece)]
    assert passed.startswith(before) and not passed.endswith(end)
    assert b"\n\n" not in passed[len(before) :], "no whole line of the end was passed on"
    if size == 4096:
        assert passed == before


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"]
)
def test_metadata_addresses_are_refused_whoever_names_them(address: str) -> None:
    shown = f"[{address}]" if ":" in address else address
    with pytest.raises(Forbidden):
        places.check(f"https://{shown}/v1", frozenset({f"{shown}:443"}))


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "127.0.0.1", "::1", "fd12::1", "100.64.0.1"])
def test_private_addresses_need_to_be_named_with_their_port(address: str) -> None:
    shown = f"[{address}]" if ":" in address else address
    places.check(f"http://{shown}:9000/v1", frozenset({f"{shown}:9000"}))
    for allowed in (frozenset[str](), frozenset({f"{shown}:9001"}), frozenset({"other:9000"})):
        with pytest.raises(Forbidden):
            places.check(f"https://{shown}:9000/v1", allowed)
