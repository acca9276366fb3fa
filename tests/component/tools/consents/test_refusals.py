"""What an authorization server does not take: whether a user is asked anew, or the manifest's author is told."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from component.tools.conftest import SECRET, Box
from component.tools.consents.consenting import (
    Browser,
    Hasty,
    consented,
    key,
    known,
    link_of,
    upstream,
)
from fakes.authorization import Authorization
from moorage_api.ledger.consents import MOST_WRONG, ConsentLedger
from moorage_gateway.auth import INVOKE, OPERATOR
from moorage_gateway.consents.diagnosis import Diagnosis
from moorage_gateway.consents.shapes import Subject

pytestmark = pytest.mark.component


async def test_a_consent_that_its_user_ends_over_there_is_asked_for_anew(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    auth.withdraw()
    assert (await desk.run("get", tool="get_one"))[0].startswith("consent_required:")
    headers = await key(desk, "ann", INVOKE)
    listed = await desk.http.get(f"{desk.gateways[0].public_url}/v1/oauth/consents", headers=headers)
    assert listed.json()["data"] == []


async def problem(box: Box) -> str | None:
    """What operators are told of the toolbox."""
    url, headers = f"{box.gateways[0].public_url}/v1/toolboxes", await key(box, "boss", OPERATOR)
    (found,) = (await box.http.get(url, headers=headers)).json()["data"]
    (server,) = found["upstreams"]
    assert (server["problem"] is None) == (server["problem_at"] is None)
    return None if server["problem"] is None else str(server["problem"])


@pytest.mark.parametrize("code", ["invalid_scope", "interaction_required"])
async def test_a_renewal_for_which_the_user_is_needed_asks_for_a_consent(
    desk: Box, auth: Authorization, code: str
) -> None:
    await consented(desk)
    auth.expire()
    auth.answer = (400, {"error": code})
    assert (await desk.run("r", tool="get_one"))[0].startswith("consent_required:")
    auth.answer = None
    assert await problem(desk) is None
    await Browser().consents(await link_of(desk, "again"))
    assert (await desk.run("y"))[1] is False


async def test_what_the_manifest_has_wrong_is_told_to_its_author_and_asks_nobody(
    desk: Box, auth: Authorization
) -> None:
    await consented(desk)
    auth.expire()
    answers: list[tuple[int, dict[str, Any], str]] = [
        (401, {"error": "invalid_client"}, "401 invalid_client: `clientId`, `clientSecret` or `auth`"),
        (401, {}, "answered 401: `clientId`, `clientSecret` or `auth`"),
        (400, {"error": "unauthorized_client"}, "allow it codes and refresh tokens"),
        (400, {"error": "unsupported_grant_type"}, "`tokenUrl`"),
        (400, {"error": "invalid_target", "error_description": SECRET}, "`resource`"),
    ]
    for number, (status, said, says) in enumerate(answers):
        auth.answer = (status, said)
        text, error = await desk.run(f"r{number}", tool="get_one")
        assert error and says in text and "No user can mend that" in text and "link=" not in text
        told = await problem(desk)
        assert told is not None and says in told and SECRET not in told
    auth.answer = (503, {"error": "temporarily_unavailable"})
    assert "No user can mend" not in (await desk.run("later", tool="get_one"))[0]
    auth.answer = None
    assert await desk.run("x", tool="get_one") == ("get_one 1: x", False), "the consent counts on"
    assert await problem(desk) is None


async def test_a_manifest_that_says_otherwise_has_its_old_fault_no_more(desk: Box, auth: Authorization) -> None:
    auth.answer = (400, {"error": "invalid_target"})
    ended = await Browser().consents(await link_of(desk))
    assert ended.status_code == 502 and "whoever runs the toolbox can" in ended.text
    assert "its token server answered 400 invalid_target: it does not know that `resource`" in str(await problem(desk))
    await desk.toolbox("t", upstream(desk, auth, scopes=["tickets"]))
    assert await problem(desk) is None


async def test_what_a_browser_brings_back_is_told_its_user_and_not_believed_of_the_toolbox(
    desk: Box, auth: Authorization, caplog: pytest.LogCaptureFixture
) -> None:
    link, browser = await link_of(desk), Browser()
    state = parse_qs(urlsplit(await browser.sent(link)).query)["state"][0]
    back = f"{desk.gateways[0].public_url}/v1/oauth/callback?state={state}"
    ended = await browser.get(f"{back}&error=invalid_client&error_description={SECRET}")  # no server said so
    assert ended.status_code == 403 and "answered invalid_client. Tell whoever runs this platform" in ended.text
    assert "a browser says of oauth of t/one of tenant acme" in caplog.text and SECRET not in caplog.text + ended.text
    assert await problem(desk) is None
    auth.answer = (400, {"error": "invalid_request"})  # of a code that nobody gave, say
    state = parse_qs(urlsplit(await browser.sent(link)).query)["state"][0]
    ended = await browser.get(f"{desk.gateways[0].public_url}/v1/oauth/callback?state={state}&code=made-up")
    assert ended.status_code == 502 and "answered 400 invalid_request" in ended.text
    assert len(auth.granted("authorization_code")) == 1 and await problem(desk) is None


async def test_each_fault_is_told_for_a_day_of_its_own(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    core, clock = desk.gateways[0].core, Hasty()
    _, terms = await known(core)
    diagnosis = Diagnosis(ConsentLedger(core.runner), clock)

    async def told() -> list[str]:
        return sorted(upstream for _, upstream in await diagnosis.of("acme"))

    async def found(*names: str) -> None:
        for name in names:
            await diagnosis.found(Subject("acme", "ann", "t", name), terms.oauth, "it answered 401")

    await found("early", "again")
    clock.late = 23 * 3600
    await found("late", "again")
    assert await told() == ["again", "early", "late"]
    clock.late = 25 * 3600
    assert await told() == ["again", "late"]
    await found(*(f"many-{number:04d}" for number in range(MOST_WRONG)))
    assert len(await told()) == MOST_WRONG, "so many at once, and no more"
    clock.late = 50 * 3600
    await found("new")
    assert await told() == ["new"], "those that are over keep out no new one"


async def test_what_a_server_says_of_good_tokens_is_its_manifests_fault(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    desk.tools.narrow = True
    text, error = await desk.run("r", tool="get_one")
    assert error and "it answered 403" in text
    assert "insufficient_scope: `scopes` do not suffice" in str(await problem(desk))
    desk.tools.narrow, desk.tools.tokens = False, set()
    text, error = await desk.run("s", tool="get_one")
    assert error and "it answered 401" in text and len(auth.granted("refresh_token")) == 1
    assert "invalid_token: it does not take tokens that were just given" in str(await problem(desk))


async def test_a_token_that_is_not_taken_back_is_told(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    auth.revoking = (400, {"error": "unsupported_token_type"})
    url = f"{desk.gateways[0].public_url}/v1/oauth/consents/t/one"
    assert (await desk.http.delete(url, headers=await key(desk, "ann", INVOKE))).status_code == 200
    assert "its revocationUrl answered 400 unsupported_token_type" in str(await problem(desk))
    await link_of(desk, "over all the same")
