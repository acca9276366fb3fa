"""A pod's token proves one pod, by a key of the cluster, for us, now; everything else proves nothing and says why."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest

from fakes import pod_tokens as cluster
from moorage_api import tokens
from moorage_api.pod_tokens import PodTokens
from moorage_gateway.boundary.pod_tokens import LEEWAY_S, NotProven, PodTokenVerifier, check
from moorage_gateway.boundary.proofs import NotReady, Proofs

pytestmark = pytest.mark.unit

NOW = 1_800_000_000.0
KEY = "cd" * 32
MINE = tokens.Identity("sb-1", "acme", "a", "r1", "v1")
POD = "sb-1"


class Clock:
    """A wall clock set by hand."""

    def __init__(self) -> None:
        self.now = NOW

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


class Published:
    """What the catalog would hold."""

    def __init__(self) -> None:
        self.token_key: str | None = KEY
        self.pod_tokens: PodTokens | None = cluster.published()


def refusal(token: str, *, now: float = NOW, said: PodTokens | None = None) -> str:
    """Why a token is refused by a fresh verifier; "" when it is not."""
    verifier = PodTokenVerifier(said or cluster.published())
    try:
        verifier.read(token, now)
    except NotProven as why:
        return str(why)
    return ""


@pytest.mark.parametrize(("kid", "key"), [("rsa-1", cluster.rsa_key), ("ec-1", cluster.ec_key)])
def test_a_token_of_the_cluster_proves_its_pod(kid: str, key: Any) -> None:
    pod = PodTokenVerifier(cluster.published()).read(
        cluster.token(cluster.claims(POD, NOW), kid=kid, key=key()), NOW + 1
    )
    assert (pod.namespace, pod.name, pod.service_account) == ("team-acme", "sb-1", "moorage-sandbox")
    assert (pod.begins, pod.expires) == (NOW, NOW + 600)


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (NOW + 600 + LEEWAY_S - 1, ""),
        (NOW + 600 + LEEWAY_S, "expired"),
        (NOW - LEEWAY_S, ""),
        (NOW - LEEWAY_S - 1, "does not hold yet"),
    ],
)
def test_a_token_holds_from_its_begin_to_its_end_and_a_little_beyond(now: float, why: str) -> None:
    assert why in refusal(cluster.token(cluster.claims(POD, NOW)), now=now)
    assert bool(why) == bool(refusal(cluster.token(cluster.claims(POD, NOW)), now=now))


def test_what_was_verified_still_expires() -> None:
    verifier, token = PodTokenVerifier(cluster.published()), cluster.token(cluster.claims(POD, NOW))
    assert verifier.read(token, NOW) == verifier.read(token, NOW + 599)
    with pytest.raises(NotProven, match="expired"):
        verifier.read(token, NOW + 600 + LEEWAY_S)
    assert len(verifier) == 0


def test_only_so_many_tokens_are_remembered_and_none_that_was_refused() -> None:
    verifier = PodTokenVerifier(cluster.published(), cached=2)
    for pod in ("a", "b", "c"):
        verifier.read(cluster.token(cluster.claims(pod, NOW)), NOW)
    with pytest.raises(NotProven):
        verifier.read(cluster.token(cluster.claims("d", NOW, aud=["other"])), NOW)
    assert len(verifier) == 2


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"aud": ["https://kubernetes.default.svc"]}, "another audience"),
        ({"aud": "moorage"}, "another audience"),
        ({"aud": []}, "lacks its issuer"),
        ({"aud": None}, "lacks its issuer"),
        ({"iss": "https://elsewhere"}, "another issuer"),
        ({"iss": None}, "lacks its issuer"),
        ({"exp": None}, "lacks its issuer"),
        ({"exp": "never"}, "a time that is none"),
        ({"exp": float("nan")}, "a time that is none"),
        ({"exp": True}, "a time that is none"),
        ({"nbf": "now"}, "a time that is none"),
        ({"kubernetes.io": None}, "bound to no pod"),
        ({"kubernetes.io": {"namespace": "team-acme", "serviceaccount": {"name": "s"}}}, "bound to no pod"),
        ({"kubernetes.io": {"namespace": "team-acme", "pod": {"name": "sb-1"}}}, "bound to no pod"),
        ({"kubernetes.io": {"pod": {"name": "sb-1"}, "serviceaccount": {"name": "s"}}}, "bound to no pod"),
        ({"kubernetes.io": {"namespace": "team-acme", "pod": "sb-1", "serviceaccount": {"name": "s"}}}, "bound to no pod"),
    ],
)  # fmt: skip
def test_a_token_that_is_not_for_us_or_of_no_pod_is_refused(other: dict[str, Any], why: str) -> None:
    assert why in refusal(cluster.token(cluster.claims(POD, NOW, **other)))


def _by_hand(alg: str, secret: bytes | None) -> str:
    """A token whose `alg` is the caller's own choice, signed by HMAC with what it knows."""
    open_part = cluster.unsigned({"alg": alg, "typ": "JWT", "kid": "rsa-1"}, cluster.claims(POD, NOW)).rstrip(".")
    if secret is None:
        return f"{open_part}."
    return f"{open_part}.{cluster._b64(hmac.new(secret, open_part.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "HS256", "RS384", "PS256", "ES256", "EdDSA"])
def test_the_token_never_chooses_how_it_is_verified(alg: str) -> None:
    public = cluster.rsa_key()
    secrets = [
        None,
        b"",
        cluster.public_pem(public),
        cluster.public_pem(public).strip(),
        json.dumps(cluster.jwk("rsa-1", public)).encode(),
    ]
    for secret in secrets:
        assert "not one that the cluster has signed" in refusal(_by_hand(alg, secret)), (alg, secret)


def test_a_token_of_a_key_that_is_not_in_the_set_is_refused() -> None:
    said, foreign = cluster.claims(POD, NOW), cluster.rsa_key("foreign")
    assert "not one that the cluster has signed" in refusal(cluster.token(said, key=foreign)), "ours by name only"
    for kid in ("foreign", None, ""):
        assert "signed by no key" in refusal(cluster.token(said, kid=kid, key=foreign))
    header, body, mac = cluster.token(said).split(".")
    other = cluster.token(cluster.claims("sb-2", NOW)).split(".")[1]
    assert "not one that the cluster has signed" in refusal(f"{header}.{other}.{mac}")


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "a" * tokens.MAX_POD_TOKEN, "x y.z.w", "\x00"])
def test_what_is_no_token_is_refused(token: str) -> None:
    assert "not one that the cluster has signed" in refusal(token)


def test_an_oversize_token_is_refused_unread() -> None:
    token = cluster.token(cluster.claims(POD, NOW, padding="x" * tokens.MAX_POD_TOKEN))
    assert refusal(token) == "the pod token is too long"


def test_keys_of_other_kinds_and_weak_ones_verify_nothing_and_do_no_harm() -> None:
    p384 = {"kty": "EC", "crv": "P-384", "kid": "big", "x": "AA", "y": "AA"}
    strange = [p384, {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "AA"}, {"kty": "RSA", "kid": "torn", "n": "AA"}]
    said = cluster.published(*strange, cluster.jwk("rsa-1", cluster.rsa_key()))
    assert refusal(cluster.token(cluster.claims(POD, NOW)), said=said) == ""
    assert "signed by no key" in refusal(cluster.token(cluster.claims(POD, NOW), kid="torn"), said=said)


@pytest.mark.parametrize("key", [{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}, {"d": "AQAB"}, {"kid": 1}, {"kty": None}])
def test_no_secret_key_can_be_published(key: dict[str, Any]) -> None:
    good = cluster.jwk("rsa-1", cluster.rsa_key())
    with pytest.raises(ValueError) as caught:
        cluster.published({**good, **key})
    assert "c2VjcmV0" not in str(caught.value) and "AQAB" not in str(caught.value)


def test_what_is_published_is_read_as_it_was_written() -> None:
    said = cluster.published()
    assert PodTokens.from_json(said.to_json()) == said
    for text in ("", "[]", "{}", "null", said.to_json().replace(cluster.ISSUER, "")):
        with pytest.raises(ValueError):
            PodTokens.from_json(text)


# -- both proofs together


@pytest.mark.parametrize(
    ("pod", "namespace", "tenant", "why"),
    [
        ("sb-1", "team-acme", "acme", ""),
        ("sb-2", "team-acme", "acme", "another pod's"),
        ("sb-1", "team-rival", "acme", "not the tenant's"),
        ("sb-1", "kube-system", "acme", "not the tenant's"),
        ("sb-1", "team-acme", "rival", "not the tenant's"),
    ],
)
def test_a_pod_proves_its_own_sandbox_in_its_own_tenants_namespace(
    pod: str, namespace: str, tenant: str, why: str
) -> None:
    published, identity = Published(), tokens.Identity("sb-1", tenant, "a", "r1", "v1")
    published.pod_tokens = cluster.published(namespaces={"team-acme": "acme", "team-rival": "rival"})
    proofs, shown = Proofs(published, Clock()), cluster.token(cluster.claims(pod, NOW, namespace=namespace))
    if not why:
        assert proofs.identify(tokens.sign(identity, KEY), shown) == identity
        return
    with pytest.raises(NotProven, match=why):
        proofs.identify(tokens.sign(identity, KEY), shown)


def test_a_tenant_that_is_empty_is_no_namespaces_tenant() -> None:
    pod = PodTokenVerifier(cluster.published()).read(cluster.token(cluster.claims(POD, NOW, namespace="x")), NOW)
    with pytest.raises(NotProven):
        check(pod, tokens.Identity("sb-1", "", "a", "r1", "v1"), {"team-acme": "acme"})


def test_once_pod_tokens_are_published_a_signed_token_alone_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    published, clock = Published(), Clock()
    proofs, ours, shown = Proofs(published, clock), tokens.sign(MINE, KEY), cluster.token(cluster.claims(POD, NOW))
    published.pod_tokens = None
    assert proofs.identify(ours, None) == MINE, "one machine: as it was"
    published.pod_tokens = cluster.published()
    with caplog.at_level("DEBUG"):
        for token, pod_token in (
            (ours, None),
            (ours, ""),
            (None, shown),
            (shown, shown),
            (ours, ours),
            (ours, shown + "x"),
        ):
            with pytest.raises(NotProven):
                proofs.identify(token, pod_token)
    assert proofs.identify(ours, shown) == MINE
    assert "the pod token is missing" in caplog.text
    assert shown not in caplog.text and ours not in caplog.text
    published.token_key = None
    with pytest.raises(NotReady):
        proofs.identify(ours, shown)


def test_when_the_cluster_rotates_its_keys_the_old_ones_verify_nothing_more() -> None:
    published = Published()
    proofs, ours = Proofs(published, Clock()), tokens.sign(MINE, KEY)
    old, new = (
        cluster.token(cluster.claims(POD, NOW)),
        cluster.token(cluster.claims(POD, NOW), kid="rsa-2", key=cluster.rsa_key("rsa-2")),
    )
    assert proofs.identify(ours, old) == MINE
    with pytest.raises(NotProven):
        proofs.identify(ours, new)
    both = (cluster.jwk("rsa-1", cluster.rsa_key()), cluster.jwk("rsa-2", cluster.rsa_key("rsa-2")))
    published.pod_tokens = cluster.published(*both)
    assert proofs.identify(ours, old) == proofs.identify(ours, new) == MINE
    published.pod_tokens = cluster.published(both[1])
    assert proofs.identify(ours, new) == MINE
    with pytest.raises(NotProven, match="signed by no key"):
        proofs.identify(ours, old)


def test_what_cannot_be_read_lets_nobody_in() -> None:
    published = Published()
    published.pod_tokens = PodTokens.nobody()
    with pytest.raises(NotProven):
        Proofs(published, Clock()).identify(tokens.sign(MINE, KEY), cluster.token(cluster.claims(POD, NOW)))


def test_a_derived_secret_is_one_sandboxs_and_no_tokens_signature() -> None:
    secret = tokens.sandbox_secret("sb-1", KEY)
    assert secret == tokens.sandbox_secret("sb-1", KEY) and len(bytes.fromhex(secret)) == 32
    assert len({secret, tokens.sandbox_secret("sb-2", KEY), tokens.sandbox_secret("sb-1", "ef" * 32)}) == 3
    assert tokens.secret_sha256(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert secret != hmac.new(bytes.fromhex(KEY), b"sb-1", hashlib.sha256).hexdigest()
