"""Which server a client means by what it says first, and when that is not the host of its tunnel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.hellos import client_hello, record, with_extension, with_hidden_name
from moorage_gateway.egress import hello
from moorage_gateway.egress.rules import Target

pytestmark = pytest.mark.isolation

HOST = "api.example"
SAID = client_hello(HOST)


def names(*said: tuple[int, bytes]) -> bytes:
    """A server_name extension's value."""
    listed = b"".join(bytes((kind,)) + len(name).to_bytes(2, "big") + name for kind, name in said)
    return len(listed).to_bytes(2, "big") + listed


def passes(said: bytes, *, host: str = HOST, port: int = 443) -> bool:
    found = hello.read(said)
    assert found is not None
    return hello.judge(found, Target(host, port)) is None


def test_the_name_is_read_of_a_hello_in_any_number_of_records() -> None:
    for size in (1, 7, 100, 16_384):
        assert hello.read(record(SAID[9:], size)) == hello.Hello(tls=True, names=(HOST.encode(),))
    assert passes(SAID) and passes(client_hello("API.Example"))


def test_every_beginning_of_one_waits_for_the_rest() -> None:
    for said in (SAID, record(SAID[9:], 60)):
        for end in range(len(said)):
            assert hello.read(said[:end]) is None


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("another name", client_hello("evil.example")),
        ("a name below it", client_hello("a.api.example")),
        ("the name with a dot", record(SAID[9:].replace(names((0, b"api.example")), names((0, b"api.exampl."))))),
        ("an address, no name", client_hello("1.2.3.4")),
        ("no name", client_hello(None)),
        ("its name hidden", with_hidden_name(SAID)),
        ("a second name extension", with_extension(SAID, 0, names((0, b"evil.example")))),
        ("two names in one", with_extension(client_hello(None), 0, names((0, HOST.encode()), (0, b"evil.example")))),
        ("a name of another kind", with_extension(client_hello(None), 0, names((1, HOST.encode())))),
        ("an empty list", with_extension(client_hello(None), 0, names())),
        ("a NUL in the name", with_extension(client_hello(None), 0, names((0, b"api.example\0.evil.example")))),
        ("a list longer than it says", with_extension(client_hello(None), 0, names((0, HOST.encode())) + b"x")),
        ("an extension that runs over", record(SAID[9:-1])),
        ("another message", b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"),
        ("an alert between", b"\x16\x03\x01\x00\x01\x01\x15\x03\x01\x00\x02\x01\x00"),
        ("an empty record", b"\x16\x03\x01\x00\x00"),
        ("a record too long", b"\x16\x03\x01\xff\xff"),
        ("a message without end", b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"),
        ("SSL 2", b"\x80\x2e\x01\x03\x01"),
        ("plain http", b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n"),
        ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("SSH", b"SSH-2.0-x\r\n"),
        ("an alert first", b"\x15\x03\x01\x00\x02\x01\x00"),
        ("application data first", b"\x17\x03\x03\x00\x01x"),
    ],
)  # fmt: skip
def test_whatever_does_not_name_the_host_in_the_clear_does_not_pass(what: str, said: bytes) -> None:
    assert not passes(said)


def test_on_other_ports_tls_must_name_the_host_and_the_rest_passes() -> None:
    assert passes(SAID, port=8443) and not passes(client_hello("evil.example"), port=8443)
    assert not passes(client_hello(None), port=22)
    assert passes(b"SSH-2.0-x\r\n", port=22)


def test_a_refusal_says_what_to_do() -> None:
    found = hello.read(client_hello("evil.example"))
    assert found is not None
    refusal = hello.judge(found, Target(HOST, 443))
    assert refusal is not None and "'evil.example'" in refusal.reason and HOST in refusal.reason
    hidden = hello.judge(hello.Hello(tls=True, hidden=True), Target(HOST, 443))
    assert hidden is not None and "Encrypted Client Hello" in hidden.reason


@given(st.binary(min_size=1, max_size=600))
def test_any_bytes_are_judged_or_waited_for(said: bytes) -> None:
    for each in (said, b"\x16\x03\x01" + said, record(said)):
        found = hello.read(each)
        assert found is None or hello.judge(found, Target(HOST, 443)) is not None


def test_what_never_ends_is_given_up() -> None:
    assert hello.read(record(SAID[9:] + bytes(60_000), 100)[: hello.MOST]) == hello.Hello(tls=True)
