"""Which targets and addresses are refused: every notation that ever fooled a proxy."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from component.egress.forms import LITERALS, NEVER, NOT_GLOBAL, ODD_HOSTS, PRIVATE, PUBLIC
from moorage_api import addresses
from moorage_gateway.egress import requests, rules

pytestmark = [pytest.mark.component, pytest.mark.isolation]


@pytest.mark.parametrize("host", LITERALS)
def test_no_literal_address_is_a_host(host: str) -> None:
    with pytest.raises(rules.Refused):
        rules.parse_authority(f"{host}:443")
    assert rules.parse_rule(host) is None


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_no_host_is_read_in_two_ways(host: str) -> None:
    with pytest.raises(rules.Refused):
        rules.parse_authority(f"{host}:443")


@pytest.mark.parametrize(
    "port", ["", "0", "00", "080", "65536", "99999", "-1", "+80", " 80", "80 ", "8o", "٣", "1e3", "0x50"]
)
def test_no_port_is_read_in_two_ways(port: str) -> None:
    with pytest.raises(rules.Refused):
        rules.parse_authority(f"api.example:{port}")


@pytest.mark.parametrize(
    ("entry", "target", "is_listed"),
    [
        ("api.example", "api.example:443", True),
        ("api.example", "API.Example:80", True),
        ("api.example", "api.example:22", False),
        ("api.example", "api.example:8443", False),
        ("api.example:8443", "api.example:8443", True),
        ("api.example:8443", "api.example:443", False),
        ("api.example", "xapi.example:443", False),
        ("api.example", "sub.api.example:443", False),
        ("api.example", "api.example.evil.test:443", False),
        ("*.example.com", "a.example.com:443", True),
        ("*.example.com", "a.b.example.com:443", True),
        ("*.example.com", "example.com:443", False),
        ("*.example.com", "evilexample.com:443", False),
        ("*.example.com:22", "a.example.com:22", True),
        ("*.example.com:22", "a.example.com:443", False),
        ("münchen.example", "xn--mnchen-3ya.example:443", True),
        ("API.EXAMPLE", "api.example:443", True),
        ("*", "api.example:443", False),
        ("*.*", "api.example:443", False),
        ("a*.example", "api.example:443", False),
        ("https://api.example", "api.example:443", False),
        ("api.example:x", "api.example:443", False),
        ("package-index", "api.example:443", False),
        ("package-index", "index.example:443", True),
        ("package-index", "index.example:80", False),
    ],
)
def test_an_entry_lists_exactly_what_it_says(entry: str, target: str, is_listed: bool) -> None:
    named = {"package-index": frozenset({rules.Target("index.example", 443)})}
    decision = rules.decide([entry], named, rules.parse_authority(target), "hello")
    assert decision.allowed is is_listed
    assert decision.trusted is (is_listed and entry == "package-index")


def test_a_refusal_says_what_to_add_to_the_manifest() -> None:
    reason = rules.decide([], {}, rules.Target("api.example", 443), "hello").reason
    assert "'hello'" in reason and "spec.egress" in reason and "'api.example'" in reason
    assert "'api.example:8443'" in rules.decide([], {}, rules.Target("api.example", 8443), "hello").reason


def test_an_own_entry_does_not_make_a_host_of_the_platform_trusted() -> None:
    decision = rules.decide(["index.example"], {}, rules.Target("index.example", 443), "hello")
    assert decision.allowed and not decision.trusted


def test_the_lists_hold_enough_forms() -> None:
    assert len(LITERALS) + len(NEVER) + len(PRIVATE) + len(NOT_GLOBAL) >= 120
    assert len(set(NEVER)) == len(NEVER) and len(set(LITERALS)) == len(LITERALS)


@pytest.mark.parametrize("text", [*NEVER, *PRIVATE, *NOT_GLOBAL])
def test_no_address_but_a_public_one_is_connected_to(text: str) -> None:
    address = addresses.parse(text)
    assert address is not None and addresses.refusal(address) is not None
    assert addresses.usable([text], trusted=False)[0] == []


@pytest.mark.parametrize("text", NEVER)
def test_the_platforms_own_hosts_reach_no_loopback_link_local_or_metadata_address_either(text: str) -> None:
    assert addresses.usable([text], trusted=True)[0] == []


@pytest.mark.parametrize("text", PRIVATE)
def test_the_platforms_own_hosts_may_have_private_addresses(text: str) -> None:
    assert addresses.usable([text], trusted=True)[0] == [text]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_connected_to(text: str) -> None:
    assert addresses.usable([text], trusted=False) == ([text], None)


@pytest.mark.parametrize(
    "text", ["", "localhost", "fe80::1%eth0", "1.1.1.1%lo", "1.1.1", "0x01010101", "01.1.1.1", "1.1.1.1/32"]
)
def test_what_is_no_plain_literal_is_no_address(text: str) -> None:
    assert addresses.usable([text], trusted=True)[0] == []


def test_of_a_mixed_answer_only_the_public_addresses_are_used() -> None:
    assert addresses.usable(["127.0.0.1", "1.1.1.1", "10.0.0.1"], trusted=False)[0] == ["1.1.1.1"]


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_passes_inside_an_ipv6_one(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for text in (
        f"::ffff:{address}",
        f"::{address}",
        f"64:ff9b::{address}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::",
    ):
        assert addresses.usable([text], trusted=True)[0] == [], text


@given(st.ip_addresses(v=4))
def test_whatever_python_calls_not_global_is_refused(address: ipaddress.IPv4Address) -> None:
    if not address.is_global:
        assert addresses.refusal(address) is not None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    for head in (data, b"CONNECT " + data + b" HTTP/1.1\r\n\r\n", b"GET http://" + data + b" HTTP/1.1\r\n\r\n"):
        try:
            request = requests.parse(head)
        except (requests.Malformed, rules.Refused):
            continue
        assert rules.parse_host(request.target.host) == request.target.host


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT api.example:443\r\n\r\n",
        b"CONNECT  api.example:443 HTTP/1.1\r\n\r\n",
        b"CONNECT api.example:443 HTTP/2.0\r\n\r\n",
        b"connect api.example:443 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n",
        b"GET https://api.example/ HTTP/1.1\r\n\r\n",
        b"GET ftp://api.example/ HTTP/1.1\r\n\r\n",
        b"TRACE http://api.example/ HTTP/1.1\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\nHost: a\n b\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\n folded: x\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\nname : x\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\nno colon\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\nProxy-Authorization: Bearer a\r\nproxy-authorization: Bearer b\r\n\r\n",
        b"CONNECT api.example:443 HTTP/1.1\r\n" + b"a: b\r\n" * 65 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_a_head_that_is_not_strictly_a_proxy_request_is_malformed(head: bytes) -> None:
    with pytest.raises(requests.Malformed):
        requests.parse(head)


def test_a_plain_request_goes_on_with_a_head_of_our_own() -> None:
    request = requests.parse(
        b"GET HTTP://API.example:8080?q=1#frag HTTP/1.1\r\nHost: other.example\r\nProxy-Authorization: Bearer canary\r\n"
        b"Proxy-Connection: keep-alive\r\nConnection: x-drop, keep-alive\r\nX-Drop: 1\r\nKeep-Alive: 5\r\nAccept: */*\r\n\r\n"
    )
    assert str(request.target) == "api.example:8080" and request.token == "canary"
    assert request.upstream == (
        b"GET /?q=1 HTTP/1.1\r\nHost: api.example:8080\r\nConnection: close\r\naccept: */*\r\n\r\n"
    )


@pytest.mark.parametrize(
    "url",
    [b"http://api.example@evil.example/", b"http://evil.example\\@api.example/", b"http:///x", b"http://api.example:80:90/",
     b"http://127.0.0.1/", b"http://[::1]/", b"http://api.example%2f@x/", b"http://api.example./"],
)  # fmt: skip
def test_a_url_whose_host_could_be_read_in_two_ways_is_refused(url: bytes) -> None:
    try:
        request = requests.parse(b"GET " + url + b" HTTP/1.1\r\n\r\n")
    except rules.Refused:
        return
    assert request.target.host == "evil.example" and url.startswith(b"http://evil.example\\")
