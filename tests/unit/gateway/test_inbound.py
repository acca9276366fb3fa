"""Classification of addresses: the table of URL forms, methods, identifiers and query fields."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage_api.errors import Kind
from moorage_gateway import inbound
from moorage_gateway.inbound import Operation, Page, Rejection, Route

pytestmark = pytest.mark.unit

ID = "caresp_" + "0123456789abcdef" + "00" + "a" * 32
PREFIXES = [
    ("/v1/responses", None),
    ("/openai/v1/responses", None),
    ("/api/projects/p/openai/v1/responses", None),
    ("/v1/agents/hello/responses", "hello"),
    ("/v1/agents/hello/openai/responses", "hello"),
    ("/v1/agents/hello/openai/v1/responses", "hello"),
    ("/agents/hello/endpoint/protocols/openai/responses", "hello"),
    ("/api/projects/p/agents/hello/endpoint/protocols/openai/responses", "hello"),
    ("/api/projects/p/agents/hello/endpoint/protocols/openai/v1/responses", "hello"),
]


def classify(method: str, path: str, query: bytes = b"", *headers: tuple[bytes, bytes]) -> Any:
    return inbound.classify(method, path, query, headers)


@pytest.mark.parametrize(("prefix", "agent"), PREFIXES)
@pytest.mark.parametrize(
    ("method", "rest", "operation"),
    [
        ("POST", "", Operation.CREATE),
        ("GET", f"/{ID}", Operation.RETRIEVE),
        ("DELETE", f"/{ID}", Operation.DELETE),
        ("POST", f"/{ID}/cancel", Operation.CANCEL),
        ("GET", f"/{ID}/input_items", Operation.INPUT_ITEMS),
        ("GET", f"/{ID}/record", Operation.RECORD),
        ("GET", f"/{ID}/journal", Operation.JOURNAL),
        ("POST", f"/{ID}/feedback", Operation.FEEDBACK),
    ],
)
def test_every_form_of_an_address_means_the_same(
    prefix: str, agent: str | None, method: str, rest: str, operation: Operation
) -> None:
    found = classify(method, prefix + rest, b"api-version=2026-01-01")
    assert (found.operation, found.agent, found.response_id) == (operation, agent, ID if rest else None)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/agents/hello/responses", ("POST",)),
        ("HEAD", "/v1/agents/hello/responses", ("POST",)),
        ("POST", f"/v1/agents/hello/responses/{ID}", ("GET", "DELETE")),
        ("POST", "/v1/agents/hello/responses/compact", ("GET", "DELETE")),
        ("GET", f"/v1/agents/hello/responses/{ID}/cancel", ("POST",)),
        ("POST", f"/v1/responses/{ID}/input_items", ("GET",)),
    ],
)
def test_a_wrong_method_says_which_ones_are_right(method: str, path: str, allow: tuple[str, ...]) -> None:
    found = classify(method, path)
    assert isinstance(found, Rejection)
    assert (found.kind, found.allow) == (Kind.METHOD_NOT_ALLOWED, allow)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/v1/agents/hello/responses/resp_123", Kind.INVALID_PARAMETERS),
        ("GET", f"/v1/agents/hello/responses/{ID}x", Kind.INVALID_PARAMETERS),
        ("GET", f"/v1/agents/hello/responses/{ID.upper()}", Kind.INVALID_PARAMETERS),
        ("GET", f"/v1/agents/hello/responses/{ID}\n", Kind.INVALID_PARAMETERS),
        ("GET", "/v1/agents/hello/responses/", Kind.INVALID_PARAMETERS),
        ("GET", f"/v1/agents/hello/responses/{ID}/nothing", Kind.NOT_FOUND),
        ("GET", f"/v1/agents/hello/responses/{ID}/cancel/x", Kind.NOT_FOUND),
        ("GET", f"/v1/agents/hello/responses/{ID}/", Kind.NOT_FOUND),
        ("POST", "/v1/agents/Hello/responses", Kind.NOT_FOUND),
        ("POST", "/v1/agents/-/responses", Kind.NOT_FOUND),
        ("POST", "/v1/agents//responses", Kind.NOT_FOUND),
        ("POST", "/v1/agents/hello/invocations/..", Kind.INVALID_PARAMETERS),
        ("POST", "/v1/agents/hello/invocations/./x", Kind.INVALID_PARAMETERS),
        ("POST", "/v1/agents/hello/invocations/a b", Kind.INVALID_PARAMETERS),
        ("POST", "/v1/agents/hello/invocations/a//b", Kind.INVALID_PARAMETERS),
        ("POST", "/v1/agents/hello/invocations/" + "a" * 257, Kind.INVALID_PARAMETERS),
    ],
)
def test_a_malformed_address_is_refused(method: str, path: str, kind: Kind) -> None:
    found = classify(method, path)
    assert isinstance(found, Rejection)
    assert found.kind is kind


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/healthz",
        "/v1",
        "/v1/models",
        "/v1/agents",
        "/v1/agents/hello",
        "/v1/agents/hello/bundles",
        "/v1/agents/responses",
        "/v1/sessions/responses",
        "/v1/agents/hello/openai",
        "/v1/agents/hello/openai/deployments/x/chat/completions",
        "/agents/hello/endpoint/sessions",
        "v1/responses",
    ],
)
def test_other_paths_belong_to_the_control_api(path: str) -> None:
    assert classify("POST", path) is None


@pytest.mark.parametrize(
    ("query", "operation", "after"),
    [
        (b"stream=true", Operation.STREAM, None),
        (b"stream=true&starting_after=5", Operation.STREAM, 5),
        (b"starting_after=0&stream=1", Operation.STREAM, 0),
        (b"stream=false&starting_after=5", Operation.RETRIEVE, None),
        (b"include[]=a&include[]=b", Operation.RETRIEVE, None),
        (b"include_obfuscation=false&unknown=x", Operation.RETRIEVE, None),
    ],
)
def test_a_retrieval_may_stream_from_a_cursor(query: bytes, operation: Operation, after: int | None) -> None:
    found = classify("GET", f"/v1/agents/hello/responses/{ID}", query)
    assert (found.operation, found.starting_after) == (operation, after)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        (b"stream=maybe", "stream"),
        (b"stream=true&starting_after=-1", "starting_after"),
        (b"stream=true&starting_after=x", "starting_after"),
        (b"stream=true&starting_after=99999999999999999999", "starting_after"),
        (b"stream=true&stream=false", "stream"),
    ],
)
def test_a_wrong_query_field_is_named(query: bytes, param: str) -> None:
    found = classify("GET", f"/v1/agents/hello/responses/{ID}", query)
    assert isinstance(found, Rejection)
    assert (found.kind, found.param) == (Kind.INVALID_REQUEST, param)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        (b"", Page()),
        (b"limit=1&order=asc&after=msg_1", Page(1, "asc", "msg_1")),
        (b"limit=100&before=msg_2", Page(100, "desc", None, "msg_2")),
    ],
)
def test_a_page_of_input_items_is_read(query: bytes, page: Page) -> None:
    assert classify("GET", f"/v1/agents/hello/responses/{ID}/input_items", query).page == page


@pytest.mark.parametrize("query", [b"limit=0", b"limit=101", b"limit=x", b"limit=-1", b"limit=1.5", b"order=up"])
def test_a_wrong_page_is_refused(query: bytes) -> None:
    assert isinstance(classify("GET", f"/v1/agents/hello/responses/{ID}/input_items", query), Rejection)


@pytest.mark.parametrize(
    ("path", "query", "tail", "session"),
    [
        ("/v1/agents/hello/invocations", b"", "", None),
        ("/v1/agents/hello/invocations/i-1/cancel", b"a=b", "/i-1/cancel", None),
        ("/v1/agents/hello/invocations/docs/openapi.json", b"", "/docs/openapi.json", None),
        ("/p/agents/hello/endpoint/protocols/invocations/x", b"agent_session_id=12345678", "/x", "12345678"),
        ("/v1/agents/hello/invocations", b"a=1&agent_session_id=ab%63d_fgh-1&b", "", "abcd_fgh-1"),
    ],
)
def test_an_invocation_keeps_its_tail_and_query(path: str, query: bytes, tail: str, session: str | None) -> None:
    for method in ("POST", "GET", "PURGE"):
        found = classify(method, path, query)
        assert (found.operation, found.agent, found.tail) == (Operation.INVOKE, "hello", tail)
        assert (found.query, found.session_id) == (query, session)


@pytest.mark.parametrize(
    "query", [b"agent_session_id=short", b"agent_session_id=", b"agent_session_id=a/b/c/d/e", b"a=\xff", b"a=\x00"]
)
def test_a_malformed_session_or_query_of_an_invocation_is_refused(query: bytes) -> None:
    assert isinstance(classify("POST", "/v1/agents/hello/invocations", query), Rejection)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "DELETE", "PATCH", "X"]),
    st.lists(
        st.sampled_from(["v1", "agents", "hello", "responses", "openai", "invocations", "", "..", ID, "é", "a%"]),
        max_size=8,
    ),
    st.binary(max_size=40),
)
def test_classification_never_fails_and_never_lets_a_bad_tail_through(
    method: str, parts: list[str], query: bytes
) -> None:
    found = classify(method, "/" + "/".join(parts), query)
    if isinstance(found, Route):
        assert ".." not in found.tail.split("/")
        assert found.query.isascii()
