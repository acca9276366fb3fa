"""Tool servers that are opened by the gateway's own identity: a projected token shown to a token server, which checks it, and a server that
takes what came of it and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from component.tools.conftest import Box
from fakes.authorization import ACCESS, Authorization
from fakes.projected import AUDIENCE, SUBJECT, exchanging, projected, write

pytestmark = pytest.mark.component


@pytest.fixture
def auth() -> Iterator[Authorization]:
    with exchanging() as made:
        yield made


@pytest.fixture
def settings(auth: Authorization, tmp_path: Path) -> dict[str, str]:
    place = f"127.0.0.1:{auth.port}"
    return {"allowed_upstreams": place, "workload_hosts": place, "workload_tokens": str(tmp_path / "workload")}


@pytest.fixture
async def desk(box: Box, auth: Authorization) -> Box:
    """A toolbox `t` whose one server takes the token server's tokens alone; the gateway has its tenant's projected one."""
    write(box.folder, projected())
    box.tools.tokens = auth.accepted
    await box.toolbox("t", upstream(box, auth))
    return box


def upstream(box: Box, auth: Authorization, **more: Any) -> dict[str, Any]:
    said = {"tokenUrl": f"{auth.url}/token", "clientId": "c-1", "scopes": ["tickets"], **more}
    return box.upstream(
        workloadIdentity={name: value for name, value in said.items() if value is not None}, readOnly=["get_*"]
    )


async def test_a_projected_token_opens_a_server_of_tools(desk: Box, auth: Authorization) -> None:
    found = await asyncio.gather(*(desk.run(f"n{number}", tool="get_one") for number in range(4)))
    assert not any(error for _, error in found)
    (asked,) = auth.asked
    assert jwt.decode(asked.pop("client_assertion"), options={"verify_signature": False})["sub"] == SUBJECT
    assert asked == {
        "grant_type": "client_credentials", "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_id": "c-1", "scope": "tickets",
    }  # fmt: skip
    listed = await desk.rpc("tools/list")
    assert {each["name"] for each in listed.json["result"]["tools"]} == {"add", "get_one", "put"}
    for grant, more in [("tokenExchange", {"clientId": None, "audience": "//iam/pool"}), ("jwtBearer", {})]:
        await desk.toolbox("t", upstream(desk, auth, grant=grant, **more))
        assert await desk.run(grant) == (f"add {5 + (grant == 'jwtBearer')}: {grant}", False)
        assert auth.asked[-1]["grant_type"].endswith(
            {"tokenExchange": ":token-exchange", "jwtBearer": ":jwt-bearer"}[grant]
        )


async def test_an_api_is_opened_by_it_and_does_not_tell_it(desk: Box, auth: Authorization) -> None:
    desk.api.tokens = auth.accepted
    api = {"server": desk.api.url, "url": desk.api.document_url}
    opened = upstream(desk, auth)["workloadIdentity"]
    await desk.toolbox("t", {"name": "one", "openapi": api, "workloadIdentity": opened})
    text, error = await desk.run("leak", tool="list_tickets")
    assert not error and "Bearer [credential]" in text and ACCESS not in text
    assert desk.api.ran[-1]["headers"]["authorization"] == f"Bearer {ACCESS}-1"


async def test_a_token_that_is_not_accepted_any_more_is_replaced_where_nothing_is_done_twice(
    desk: Box, auth: Authorization
) -> None:
    assert (await desk.run("a", tool="get_one"))[1] is False
    auth.expire()
    assert (await desk.run("b", tool="get_one"))[1] is False and len(auth.asked) == 2
    auth.expire()
    text, error = await desk.run("c")
    assert error and "it answered 401. It was not carried out." in text
    assert (await desk.run("d"))[1] is False and len(auth.asked) == 3


async def test_what_goes_wrong_is_named_and_no_token_with_it(
    desk: Box, auth: Authorization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="moorage_gateway")
    write(desk.folder, projected(), "globex_theirs")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"token": "other"}, "no projected token 'other' for tenant 'acme'"),
        ({"token": "theirs"}, "no projected token 'theirs' for tenant 'acme'"),
        ({"tokenUrl": f"{desk.tools.url}"}, "may not be shown at 127.0.0.1"),
        ({"tokenUrl": f"http://localhost:{auth.port}/token"}, "may not be shown at localhost"),
    ]
    for number, (more, says) in enumerate(cases):
        await desk.toolbox("t", upstream(desk, auth, **more))
        text, error = await desk.run(f"a{number}", tool="get_one")
        assert error and says in text and "It was not carried out." in text
    assert auth.asked == [] and desk.tools.ran == []
    answers: list[tuple[tuple[int, dict[str, Any]] | None, str]] = [
        (None, "its token server answered 400 invalid_grant"), ((503, {}), "its token server answered 503"),
        ((200, {"access_token": ACCESS, "token_type": "mac"}), "gave no bearer token"), ((302, {}), "it redirects elsewhere"),
    ]  # fmt: skip
    write(desk.folder, projected(audience=f"not {AUDIENCE}"))
    for number, (answer, says) in enumerate(answers):
        auth.answer = answer
        await desk.toolbox("t", upstream(desk, auth, parameters={"n": str(number)}))
        text, error = await desk.run(f"b{number}")
        assert error and says in text and "eyJ" not in text and ACCESS not in text
    assert desk.tools.ran == [] and "eyJ" not in caplog.text and ACCESS not in caplog.text
    kept = "".join(map(str, await desk.everything()))
    assert "eyJ" not in kept and ACCESS not in kept
