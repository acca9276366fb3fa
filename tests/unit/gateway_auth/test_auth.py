"""Who is let in: credentials on a request, anonymous callers, what a principal may do."""

from __future__ import annotations

import pytest

from moorage_api.errors import ApiError, Kind
from moorage_gateway import auth

pytestmark = pytest.mark.unit

KNOWN = auth.Principal("dev", "ann", "id", None, frozenset({"invoke"}))
LOCAL = [(b"host", b"127.0.0.1:8080")]
OPEN = auth.Anonymous(dev=True, loopback_port=True)


class OneKey:
    async def identify(self, text: str) -> auth.Principal | None:
        return KNOWN if text == "mk_good" else None


async def identify(
    headers: list[tuple[bytes, bytes]], peer: str | None = "127.0.0.1", anonymous: auth.Anonymous | None = None
) -> auth.Principal:
    return await auth.Authenticator(OneKey(), anonymous or auth.Anonymous()).identify(headers, peer)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer mk_good")],
        [(b"authorization", b"bearer   mk_good ")],
        [(b"api-key", b"mk_good")],
        [(b"api-key", b"mk_good"), (b"authorization", b"Bearer mk_good")],
    ],
)
async def test_a_key_is_found_in_either_header(headers: list[tuple[bytes, bytes]]) -> None:
    assert await identify(headers) == KNOWN


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer mk_bad")],
        [(b"authorization", b"Basic bWtfZ29vZA==")],
        [(b"authorization", b"mk_good")],
        [(b"authorization", b"Bearer mk_good"), (b"api-key", b"mk_other")],
        [(b"authorization", b"Bearer mk_good"), (b"authorization", b"Bearer mk_bad")],
        [(b"api-key", b"\xff\xfe")],
        [(b"api-key", b"x" * 5000)],
        [(b"authorization", b"Bearer ")],
    ],
)
async def test_any_other_credential_is_401_and_not_repeated_back(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(ApiError) as caught:
        await identify(headers)
    assert caught.value.kind is Kind.UNAUTHENTICATED
    assert "mk_" not in caught.value.message


@pytest.mark.parametrize(
    ("headers", "peer", "anonymous", "is_let_in"),
    [
        (LOCAL, "127.0.0.1", OPEN, True),
        ([(b"host", b"localhost:8080")], "::1", OPEN, True),
        ([(b"host", b"[::1]:8080")], "::1", OPEN, True),
        ([*LOCAL, (b"authorization", b"Bearer ")], "127.0.0.1", OPEN, True),
        ([*LOCAL, (b"origin", b"http://localhost:3000")], "127.0.0.1", OPEN, True),
        (LOCAL, "127.0.0.1", auth.Anonymous(dev=True), False),
        (LOCAL, "127.0.0.1", auth.Anonymous(loopback_port=True), False),
        (LOCAL, "10.0.0.5", OPEN, False),
        (LOCAL, None, OPEN, False),
        ([(b"host", b"evil.example")], "127.0.0.1", OPEN, False),
        ([(b"host", b"127.0.0.1.evil.example")], "127.0.0.1", OPEN, False),
        ([], "127.0.0.1", OPEN, False),
        ([*LOCAL, (b"origin", b"https://evil.example")], "127.0.0.1", OPEN, False),
        ([*LOCAL, (b"origin", b"null")], "127.0.0.1", OPEN, False),
        ([*LOCAL, (b"sec-fetch-site", b"cross-site")], "127.0.0.1", OPEN, False),
        ([*LOCAL, (b"api-key", b"mk_bad")], "127.0.0.1", OPEN, False),
    ],
)
async def test_without_a_key_only_programs_of_this_machine_in_dev_are_let_in(
    headers: list[tuple[bytes, bytes]], peer: str | None, anonymous: auth.Anonymous, is_let_in: bool
) -> None:
    if is_let_in:
        assert (await identify(headers, peer, anonymous)).tenant == "dev"
    else:
        with pytest.raises(ApiError) as caught:
            await identify(headers, peer, anonymous)
        assert caught.value.kind is Kind.UNAUTHENTICATED


def test_a_scope_is_had_or_refused_and_admin_has_all() -> None:
    with pytest.raises(ApiError) as caught:
        KNOWN.require("deploy")
    assert caught.value.kind is Kind.FORBIDDEN and "deploy" in caught.value.message
    KNOWN.require("invoke")
    for scope in auth.SCOPES:
        auth.Principal("dev", "root", scopes=frozenset({"admin"})).require(scope)


def test_a_key_for_some_agents_may_use_no_other() -> None:
    some = auth.Principal("dev", "ann", agents=frozenset({"hello"}))
    assert some.may_use("hello") and not some.may_use("review-agent")
    assert KNOWN.may_use("anything")
