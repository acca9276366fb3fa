"""Users consent by a link, and tools are called with their own tokens: over a real gateway, a real Valkey, a folder as store, and an
authorization server and tool server on sockets of their own."""

from __future__ import annotations

import asyncio
import logging
import re
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from typer.testing import CliRunner

from component.tools.conftest import SECRET, WITHIN, Box
from component.tools.consents.consenting import (
    KEYS,
    LINK,
    Browser,
    as_user,
    at,
    consented,
    holding_of,
    key,
    known,
    link_of,
    searched,
    stored,
    upstream,
)
from fakes.authorization import ACCESS, CODE, REFRESH, Authorization
from moorage import AsyncClient
from moorage.cli.main import make_app
from moorage_gateway.auth import INVOKE, OPERATOR
from moorage_gateway.consents.records import MOST_LOOKED, ConsentRecords
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import GIVEN, REVOKED, Consent, Subject
from moorage_gateway.store.memory import MemoryStore

pytestmark = pytest.mark.component


async def test_a_call_gives_a_link_and_goes_through_once_its_user_has_consented(desk: Box, auth: Authorization) -> None:
    said = await desk.rpc("tools/call", {"name": "add", "arguments": {"text": "x"}})
    result = said.json["result"]
    assert result["isError"] and result["_meta"]["dev.moorage/outcome"] == "consent_required"
    link = result["_meta"]["dev.moorage/consentLink"]
    assert link in result["content"][0]["text"] and "user 'ann'" in result["content"][0]["text"]
    assert desk.tools.methods == [] and auth.asked == [], "nothing was sent"
    assert await link_of(desk, "other") == link, "a turn's calls name one link"
    browser = Browser()
    page = await browser.get(link)
    assert "act for user <b>ann</b>" in page.text and f"127.0.0.1:{auth.port}" in page.text
    assert (
        page.headers["cache-control"] == "no-store"
        and "frame-ancestors 'none'" in page.headers["content-security-policy"]
    )
    assert (await browser.consents(link)).status_code == 200
    (asked,) = auth.seen
    assert asked["scope"] == "tickets.read" and asked["resource"] == desk.tools.url and len(asked["state"]) == 43
    assert await desk.run("y") == ("add 1: y", False)
    assert desk.tools.ran[0]["headers"]["authorization"] == f"Bearer {ACCESS}-2"
    await asyncio.gather(*(desk.run(f"n{n}") for n in range(4)))
    assert len(auth.asked) == 1


async def test_what_was_not_called_for_lack_of_a_consent_does_not_count_as_done(desk: Box, auth: Authorization) -> None:
    link = await link_of(desk, "x")
    await desk.attempt()
    again = await desk.rpc("tools/call", {"name": "add", "arguments": {"text": "otherwise"}}, number=7)
    text = again.json["result"]["content"][0]["text"]
    assert text.startswith("consent_required:") and link in text and "already_done" not in text
    await Browser().consents(link)
    assert await desk.run("otherwise") == ("add 1: otherwise", False)
    await as_user(desk, "ann", 2)
    assert await desk.run("x") == ("add 2: x", False), "the next turn's call goes through"
    assert [each["arguments"]["text"] for each in desk.tools.ran] == ["otherwise", "x"]


async def test_a_list_without_a_consent_names_the_server_and_tells_the_client(desk: Box, auth: Authorization) -> None:
    said = await desk.rpc("tools/list", {})
    assert "No server of toolbox 't'" in said.json["error"]["message"] and LINK.search(said.json["error"]["message"])
    (item,) = await desk.gateways[0].core.consents.asked(desk.turn)
    assert (
        item["type"] == "oauth_consent_request"
        and item["server_label"] == "t"
        and re.match(r"oacr_[0-9a-f]{40}\Z", item["id"])
    )
    await Browser().consents(item["consent_link"])
    await desk.attempt()
    await as_user(desk, "ann", 2)
    said = await desk.rpc("tools/list", {})
    assert len(said.json["result"]["tools"]) == 3


async def test_another_user_has_no_part_in_it(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    assert await desk.run("ann's") == ("add 1: ann's", False)
    await as_user(desk, "bob", 3)
    link = await link_of(desk, "bob's")
    auth.who = "bob at tracker"
    await Browser().consents(link)
    assert await desk.run("bob's own") == ("add 2: bob's own", False)
    shown = [each["headers"]["authorization"] for each in desk.tools.ran]
    assert shown[0] != shown[1]


async def test_a_turn_without_a_user_is_told_so(desk: Box) -> None:
    for number, user in enumerate(("routine:nightly", "")):
        await as_user(desk, user, 40 + number)
        text, error = await desk.run("x")
        assert error and "is made for none" in text and "spec.owner" in text and "link=" not in text


async def test_outside_of_a_turn_nobody_acts_for_a_user(desk: Box) -> None:
    text, error = await desk.run("x", turn="", begun=0)
    assert error and "needs a turn of a user" in text


async def test_what_is_refused_gives_nothing(desk: Box, auth: Authorization) -> None:
    auth.refuses = "access_denied"
    link = await link_of(desk)
    refused = await Browser().consents(link)
    assert refused.status_code == 403 and "access_denied" in refused.text
    auth.refuses = "<script>alert(1)</script>"
    await as_user(desk, "bob", 5)
    refused = await Browser().consents(await link_of(desk))
    assert refused.status_code == 403 and "script" not in refused.text
    auth.refuses, auth.answer = "", (400, {"error": "invalid_grant", "error_description": f"<b>{SECRET}"})
    await as_user(desk, "eve", 6)
    refused = await Browser().consents(await link_of(desk))
    assert refused.status_code == 502 and "400 invalid_grant" in refused.text and SECRET not in refused.text
    await link_of(desk, "still")


async def test_a_state_counts_once_and_in_its_own_browser_only(desk: Box, auth: Authorization) -> None:
    victim, thief = Browser(), Browser()
    callback = await victim.back(await link_of(desk))
    stolen = await thief.get(callback)
    assert stolen.status_code == 403 and "another browser" in stolen.text and auth.asked == [], (
        "the code was not even shown"
    )
    assert (await victim.get(callback)).status_code == 404, "who takes a state, ends it"
    callback = await victim.back(await link_of(desk, "again"))
    assert (await victim.get(callback)).status_code == 200
    replayed = await victim.get(callback)
    assert replayed.status_code == 404 and len(auth.granted("authorization_code")) == 1
    for state in ("", "x" * 43, "../../etc", "%00"):
        wrong = await victim.get(f"{desk.gateways[0].public_url}/v1/oauth/callback?code=c&state={state}")
        assert wrong.status_code == 404


async def test_a_link_belongs_to_the_browser_that_began_with_it(desk: Box, auth: Authorization) -> None:
    link = await link_of(desk)
    first, second = Browser(), Browser()
    await first.sent(link)
    taken = await second.post(link, {"check": await second.check(link)})
    assert taken.status_code == 403 and "another browser" in taken.text
    assert await link_of(desk, "again") != link, (
        "who asks the agent again gets one that the other browser can begin with"
    )
    assert (await first.consents(link)).status_code == 200, "it may begin again where it began"
    assert (await first.get(link)).status_code == 404, "and once only"


async def test_no_other_page_begins_a_consent(desk: Box, auth: Authorization) -> None:
    link, browser = await link_of(desk), Browser()
    await browser.get(link)
    forms: list[dict[str, str]] = [{}, {"check": "0" * 64}, {"check": "ü"}]
    for form in forms:
        assert (await browser.post(link, form)).status_code == 403
    other = {"check": await Browser().check(link)}
    assert (await browser.post(link, other)).status_code == 403, "another browser's form"
    assert (await Browser().post(link, other)).status_code == 403, "without a cookie"
    assert auth.seen == []


async def test_who_answers_is_who_was_asked(desk: Box, auth: Authorization) -> None:
    evil = "https://evil.example"
    cases: list[tuple[str | None, bool, bool]] = [
        (None, False, True), (auth.url, False, True), (evil, False, False), ("http://[", False, False), (auth.url, True, True),
        (None, True, False), (evil, True, False),
    ]  # fmt: skip
    for number, (said, named, good) in enumerate(cases):
        auth.iss, asked = said, len(auth.asked)
        await desk.toolbox("t", upstream(desk, auth, **({"issuer": auth.url} if named else {})))
        await as_user(desk, f"user-{number}", 50 + number)
        ended = await Browser().consents(await link_of(desk))
        assert ended.status_code == (200 if good else 403) and len(auth.asked) - asked == good, said


async def test_addresses_that_nobody_gave_lead_nowhere(desk: Box) -> None:
    base = desk.gateways[0].public_url
    async with httpx2.AsyncClient(timeout=WITHIN) as http:
        for path, method, status in [
            ("/v1/oauth/start", "GET", 404), ("/v1/oauth/start?link=nope", "GET", 404), ("/v1/oauth/callback", "POST", 405),
            ("/v1/oauth/start?link=a&link=b", "GET", 400), (f"/v1/oauth/start?{'a&' * 50}", "GET", 400),
            ("/v1/oauth/callback?state=%FF&code=%00", "GET", 404), ("/v1/oauth/start", "DELETE", 405),
            ("/v1/oauth/callback?error=<script>", "GET", 404), ("/v1/oauth/consents", "GET", 401), ("/v1/oauth/", "GET", 401),
        ]:  # fmt: skip
            answer = await http.request(method, base + path)
            assert answer.status_code == status, (path, answer.text)
            assert "location" not in answer.headers and "script" not in answer.text
        big = await http.post(f"{base}/v1/oauth/start?link=x", content=b"check=" + b"x" * 5000)
        assert big.status_code == 413 and big.headers["content-type"].startswith("text/html")


async def test_a_manifest_that_says_otherwise_needs_a_new_consent(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    assert await desk.run("x") == ("add 1: x", False)
    other = {**upstream(desk, auth), "mcp": {"url": desk.old.url}}
    await desk.toolbox("t", other)
    await link_of(desk, "elsewhere")
    assert desk.old.methods == [], "the token did not go to the other server"
    await desk.toolbox("t", upstream(desk, auth, scopes=["tickets.read", "admin"]))
    more = await link_of(desk, "more")
    await desk.toolbox("t", upstream(desk, auth, revocationUrl=f"{auth.url}/elsewhere"))
    assert await link_of(desk, "back") != more, "a link is for the terms that it was made for"
    await desk.toolbox("t", upstream(desk, auth))
    assert await desk.run("y") == ("add 2: y", False), "for what it was given it counts"


async def test_a_consent_outlives_its_gateway_and_redis(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    old = desk.gateways.pop(0)
    await old.stop()
    await at(desk, auth)
    assert await desk.run("x") == ("add 1: x", False), "another gateway knows it"
    await desk.ledger.read("FLUSHALL")
    core = desk.gateways[0].core
    assert await holding_of(core).token(*await known(core)) == f"{ACCESS}-2"


async def test_a_gateway_that_ends_between_link_and_callback_costs_nothing(desk: Box, auth: Authorization) -> None:
    browser = Browser()
    first = desk.gateways[0]
    callback = await browser.back(await link_of(desk))
    await at(desk, auth, public_url=first.public_url)
    port = desk.gateways[0].public.port
    desk.gateways.remove(first)
    await first.stop()
    moved = callback.replace(f":{urlsplit(callback).port}/", f":{port}/")
    assert (await browser.get(moved)).status_code == 200
    assert await desk.run("x") == ("add 1: x", False)


async def test_a_link_that_redis_lost_is_over_and_the_next_call_gives_another(desk: Box, auth: Authorization) -> None:
    link = await link_of(desk)
    for name in await desk.ledger.read("KEYS", "oauth:*"):
        await desk.ledger.read("DEL", name)
    assert (await Browser().get(link)).status_code == 404
    assert await link_of(desk, "y") != link


async def test_who_has_consented_sees_it_and_ends_it_and_operators_do(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    base = desk.gateways[0].public_url + "/v1/oauth/consents"
    ann, bob, boss = await key(desk, "ann", INVOKE), await key(desk, "bob", INVOKE), await key(desk, "boss", OPERATOR)
    mine = (await desk.http.get(base, headers=ann)).json()["data"]
    assert [(each["user"], each["toolbox"], each["upstream"], each["scopes"]) for each in mine] == [
        ("ann", "t", "one", ["tickets.read"])
    ]
    assert (await desk.http.get(base, headers=bob)).json()["data"] == []
    assert (await desk.http.get(base, params={"all": "true"}, headers=bob)).status_code == 403
    assert len((await desk.http.get(base, params={"all": "true"}, headers=boss)).json()["data"]) == 1
    for who, params, status in [
        (bob, {}, 404),
        (bob, {"user": "ann"}, 403),
        (boss, {"user": "ann"}, 200),
        (ann, {}, 404),
    ]:
        gone = await desk.http.delete(f"{base}/t/one", params=params, headers=who)
        assert gone.status_code == status, gone.text
    (given_back,) = auth.revoked
    assert given_back.startswith(REFRESH)
    await link_of(desk, "after")
    audited = await desk.http.get(desk.gateways[0].public_url + "/v1/audit", headers=boss)
    done = [(each["action"], each["user"]) for each in audited.json()["data"] if each["action"].startswith("consent")]
    assert ("consent.give", "ann") in done and ("consent.revoke", "boss") in done


async def test_a_list_of_consents_goes_on_page_by_page(desk: Box, auth: Authorization) -> None:
    records = ConsentRecords(desk.gateways[0].core.store, Sealing([KEYS]))
    users = [f"user-{number}" for number in range(6)]
    for user, state in [*((each, GIVEN) for each in users), ("gone", REVOKED)]:
        for version in (1, 2, 3):
            who = Subject("acme", user, "t", "one")
            await records.put(records.sealed(Consent(who, version, state, "b", (f"s{version}",), 1)))
    url, boss = f"{desk.gateways[0].public_url}/v1/oauth/consents", await key(desk, "boss", OPERATOR)
    found, after, pages = [], None, 0
    while pages == 0 or after is not None:
        params = {"all": "true", "limit": "2"} | ({"after": after} if after else {})
        page = (await desk.http.get(url, params=params, headers=boss)).json()
        assert len(page["data"]) <= 2 and page["has_more"] == (page["next"] is not None)
        found += page["data"]
        after, pages = page["next"], pages + 1
    assert sorted(each["user"] for each in found) == users and {str(each["scopes"]) for each in found} == {"['s3']"}
    assert pages in (3, 4)
    base, text = desk.gateways[0].public_url, boss["authorization"].removeprefix("Bearer ")
    async with AsyncClient(url=base, key=text) as client:
        assert sorted(each["user"] for each in await client.list_consents(all_users=True)) == users
    shown, seen = CliRunner(), set[str]()
    words = ["toolboxes", "consent", "list", "--all", "--limit", "4", "--url", base, "--key", text]
    while True:
        said = (await asyncio.to_thread(shown.invoke, make_app(), words)).output
        seen |= set(re.findall(r"user-\d", said))
        following = re.search(r"--after (\S+?),", said)
        if following is None:
            break
        words = [*words[:10], "--after", following[1]]
    assert sorted(seen) == users and "--after" in words
    one = (await desk.http.get(url, params={"user": "user-3"}, headers=boss)).json()
    assert [each["user"] for each in one["data"]] == ["user-3"] and one["next"] is None
    mine = await key(desk, "user-1", INVOKE)
    assert (await desk.http.get(url, params={"user": "user-3"}, headers=mine)).status_code == 403
    theirs = (await desk.http.get(url, params={"limit": "1"}, headers=mine)).json()
    assert [each["user"] for each in theirs["data"]] == ["user-1"] and not theirs["has_more"]
    for wrong in ("..", "x", "a" * 40 + "/t/../one"):
        assert (await desk.http.get(url, params={"after": wrong}, headers=boss)).status_code == 400
    for wrong in ("%2e%2e/one", "t/ONE", "t/one%00"):
        assert (await desk.http.delete(f"{url}/{wrong}", headers=boss)).status_code in (400, 404)


async def test_a_page_looks_at_so_many_and_the_next_one_goes_on() -> None:
    records, last = ConsentRecords(MemoryStore(), Sealing([KEYS])), "zoe"
    for number in range(MOST_LOOKED):
        who = Subject("acme", f"user-{number}", "t", "one")
        await records.put(records.sealed(Consent(who, 1, REVOKED, "b", (), 1)))
    await records.put(records.sealed(Consent(Subject("acme", last, "t", "one"), 1, GIVEN, "b", (), 1)))
    first = await records.given("acme")
    rest = await records.given("acme", after=first.next)
    assert first.next and not rest.next
    assert [each.subject.user for each in [*first.data, *rest.data]] == [last]


async def test_a_revoked_consent_is_dead_at_another_gateway_too(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    first = desk.gateways[0]
    second = await at(desk, auth, public_url=first.public_url)
    assert await desk.run("x", at=second) == ("add 1: x", False)
    gone = await desk.http.delete(f"{first.public_url}/v1/oauth/consents/t/one", headers=await key(desk, "ann", INVOKE))
    assert gone.status_code == 200
    async with asyncio.timeout(WITHIN):
        while not (found := await desk.run("y", tool="get_one", at=second))[1]:
            await asyncio.sleep(0.2)
    assert found[0].startswith("consent_required:")


async def test_by_hand_a_person_acts_for_themselves(desk: Box, auth: Authorization) -> None:
    base, headers = f"{desk.gateways[0].public_url}/v1/toolboxes/t", await key(desk, "boss", OPERATOR)
    listed = (await desk.http.get(f"{base}/tools", headers=headers)).json()
    assert "user 'boss' has to allow it first" in listed["unavailable"]["one"]
    await consented(desk)
    body = {"tool": "add", "arguments": {"text": "x"}}
    tried = (await desk.http.post(f"{base}/call", json=body, headers=headers)).json()["result"]
    assert tried["isError"] and "user 'boss'" in tried["content"][0]["text"] and desk.tools.ran == [], (
        "ann's is not theirs"
    )
    await Browser().consents(tried["_meta"]["dev.moorage/consentLink"])
    tried = (await desk.http.post(f"{base}/call", json=body, headers=headers)).json()["result"]
    assert (
        tried["isError"] is False and len((await desk.http.get(f"{base}/tools", headers=headers)).json()["data"]) == 3
    )


async def test_a_search_finds_nothing_that_another_user_was_told(desk: Box, auth: Authorization) -> None:
    await desk.toolbox("t", upstream(desk, auth), toolSearch=True)
    assert "user 'ann' has to allow it first" in await searched(desk)
    await consented(desk)
    await as_user(desk, "ann", 7)
    assert "add a text" in await searched(desk)
    await as_user(desk, "bob", 8)
    found = await searched(desk)
    assert "add a text" not in found and "user 'bob' has to allow it first" in found


async def test_without_a_key_no_consent_can_be_given(desk: Box, auth: Authorization) -> None:
    bare = await at(desk, auth, consent_keys="")
    text, error = await desk.run("x", at=bare)
    assert error and "MOORAGE_CONSENT_KEYS" in text and "link=" not in text


async def test_a_key_can_be_replaced_and_a_lost_one_costs_a_consent(desk: Box, auth: Authorization) -> None:
    await consented(desk)
    both = await at(desk, auth, consent_keys=f"{'6b' * 32},{KEYS}")
    assert await desk.run("x", at=both) == ("add 1: x", False)
    other = await at(desk, auth, consent_keys="6b" * 32)
    await link_of(desk, "y", at=other)


async def test_no_token_code_or_secret_is_in_any_sink(
    desk: Box, auth: Authorization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="moorage_gateway")
    browser = Browser()
    callback = await browser.back(await link_of(desk))
    held = "".join(map(str, await desk.everything()))
    shown = (await browser.get(callback)).text
    auth.expire()
    shown += (await desk.run("leak", tool="get_one"))[0]
    verifiers = [each["code_verifier"] for each in auth.granted("authorization_code")]
    held += "".join(map(str, await desk.everything()))
    kept = b"".join(data for _, data in stored(desk)).decode("latin-1")
    assert '"sealed"' in kept and "oauth:state" in str(await desk.ledger.read("KEYS", "*"))
    state = parse_qs(urlsplit(callback).query)["state"][0]
    logged = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("moorage"))
    for sink in (held, kept, shown, logged):
        for secret in (ACCESS, REFRESH, CODE, SECRET, *verifiers):
            assert secret not in sink
    assert state not in kept + logged
