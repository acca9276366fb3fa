"""Consents, the pure part: how tokens are sealed, what a consent counts for, what its manifest may say, and what its pages repeat."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from moorage_api.kinds import Toolbox
from moorage_gateway.consents import pages
from moorage_gateway.consents.flow import Consents, Means, Shown
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import NoKey, Subject, binding
from moorage_gateway.consents.verdicts import over, wrong
from moorage_gateway.conversation import for_agent
from moorage_gateway.settings import SettingsError, load

pytestmark = pytest.mark.unit

OAUTH = {
    "grant": "authorizationCode", "authorizationUrl": "https://login.example/authorize", "tokenUrl": "https://login.example/token",
    "clientId": "moorage", "clientSecret": {"secret": "s"},
}  # fmt: skip


def spec(**oauth: Any) -> dict[str, Any]:
    made = Toolbox.model_validate(
        {
            "apiVersion": "moorage.dev/v1alpha1", "kind": "Toolbox", "metadata": {"name": "t"},
            "spec": {"upstreams": [{"name": "one", "mcp": {"url": "https://tools.example/mcp"}, "oauth": OAUTH | oauth}]},
        },
        by_alias=True, by_name=False,
    )  # fmt: skip
    found: dict[str, Any] = made.wire_spec()["upstreams"][0]
    return found


def test_what_is_sealed_opens_in_its_place_with_its_key_and_nowhere_else() -> None:
    old, both, other = Sealing(["ab" * 32]), Sealing(["cd" * 32, "ab" * 32]), Sealing(["cd" * 32])
    text = old.seal(b"token", "here")
    assert "token" not in text and old.seal(b"token", "here") != text
    assert old.open(text, "here") == both.open(text, "here") == b"token"
    name, _, rest = text.partition(".")
    wrong = [
        (old, text, "there"), (other, text, "here"), (old, f"{name}.{rest[:-4]}AAA=", "here"), (old, "", "here"),
        (old, f"{name}.ü", "here"), (old, f"{name}.", "here"), (Sealing([]), text, "here"),
    ]  # fmt: skip
    for sealing, said, place in wrong:
        with pytest.raises(NoKey):
            sealing.open(said, place)
    with pytest.raises(NoKey, match="MOORAGE_CONSENT_KEYS"):
        Sealing([]).seal(b"token", "here")
    assert both.seal(b"x", "here").partition(".")[0] != name, "the first key seals"


def test_a_consent_is_for_place_server_client_scopes_and_resource() -> None:
    said = binding(spec())
    for other in (
        {"authorizationUrl": "https://evil.example/a"}, {"tokenUrl": "https://evil.example/t"}, {"clientId": "x"}, {"scopes": ["a"]},
        {"resource": "https://tools.example"}, {"issuer": "https://login.example"},
    ):  # fmt: skip
        assert binding(spec(**other)) != said
    assert binding(spec(scopes=["a", "b"])) == binding(spec(scopes=["b", "a"]))
    assert binding(spec(parameters={"prompt": "consent"})) == said
    assert binding(spec() | {"mcp": {"url": "https://evil.example/mcp"}}) != said


@pytest.mark.parametrize(
    ("oauth", "says"),
    [
        ({"authorizationUrl": None}, "needs authorizationUrl"),
        ({"grant": "clientCredentials"}, "belong to grant authorizationCode"),
        ({"grant": "implicit"}, "clientCredentials"),
        ({"authorizationUrl": "ftp://x"}, "authorization"),
        ({"parameters": {"state": "mine"}}, "state is said by a field of its own"),
        ({"parameters": {"redirect_uri": "https://evil.example"}}, "redirect_uri is said"),
        ({"parameters": {"code_challenge_method": "plain"}}, "code_challenge_method is said"),
        ({"resource": "https://a.example/#x"}, "without a fragment"),
        ({"issuer": "login.example"}, "absolute URL"),
        ({"resource": "https://a.example", "parameters": {"resource": "https://b.example"}}, "resource is said"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_told_so(oauth: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        spec(**oauth)


def test_pages_repeat_nothing_as_it_stands() -> None:
    evil = "<script>alert(1)</script>\"'"
    shown = Shown(Subject(evil, evil, evil, evil), evil, (evil,), evil)
    for page in (pages.question(evil, shown), pages.done(shown.subject), pages.refusal(evil)):
        assert b"<script>" not in page and b"&lt;script&gt;" in page


def test_an_agent_is_not_given_what_its_user_was_asked() -> None:
    mine = {"type": "oauth_consent_request", "id": f"oacr_{'0' * 40}", "consent_link": "x", "server_label": "t"}
    theirs = mine | {"id": "another"}
    assert for_agent([mine, theirs]) == [theirs]


@pytest.mark.parametrize("keys", ["ab", "zz" * 32, f"{'ab' * 32},x"])
def test_a_key_that_is_none_stops_the_gateway_and_is_not_repeated(keys: str) -> None:
    with pytest.raises(SettingsError, match="64 lower-case hex digits") as no:
        load({"MOORAGE_REDIS_URL": "redis://x", "MOORAGE_STORE": "x", "MOORAGE_CONSENT_KEYS": keys})
    assert keys not in str(no.value)


def test_a_platform_that_cannot_take_consents_says_what_it_lacks() -> None:
    nothing: Any = None

    def consents(keys: list[str], url: str) -> Consents:
        means = Means(nothing, nothing, lambda *_: None, Sealing(keys), nothing)
        return Consents(means, nothing, nothing, url)

    assert "MOORAGE_CONSENT_KEYS" in consents([], "https://agents.example").lacking
    assert "MOORAGE_PUBLIC_URL" in consents(["ab" * 32], "").lacking
    whole = consents(["ab" * 32], "https://agents.example")
    assert whole.lacking == "" and whole.secure and not consents(["ab" * 32], "http://127.0.0.1:1").secure


def test_who_can_mend_a_refusal_is_one_of_two_or_time() -> None:
    for code in ("invalid_grant", "invalid_scope", "interaction_required", "login_required", "consent_required"):
        assert over(code)
    for code in (
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_request",
        "invalid_target",
    ):
        assert wrong(code, 400) and not over(code)
    for code, status in (
        ("temporarily_unavailable", 503),
        ("server_error", 500),
        ("slow_down", 400),
        ("", 400),
        ("", 429),
    ):
        assert not over(code) and not wrong(code, status)
    assert wrong("", 401) == wrong("invalid_client", 401), "who is not known is not told a word by all"
