"""Model endpoints that are opened by the gateway's own identity: a projected token shown to a token server, which checks it, and a server
of models that is sent what came of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from component.journal.conftest import WITHIN, Desk
from fakes.authorization import ACCESS, Authorization
from fakes.projected import SUBJECT, exchanging, projected, write
from moorage_api.catalog import EndpointEntry
from moorage_gateway.models.identity import NoToken, WorkloadTokens, of_endpoint

pytestmark = pytest.mark.component


@pytest.fixture
def auth() -> Iterator[Authorization]:
    with exchanging() as made:
        yield made


async def at(desk: Desk, auth: Authorization, **more: Any) -> None:
    """The one gateway, which has the tenant's token."""
    place = f"127.0.0.1:{auth.port}"
    write(desk.folder, projected())
    await desk.gateway(
        allowed_upstreams=f"127.0.0.1:{desk.models.port},{place}", workload_tokens=str(desk.folder / "workload"),
        **{"workload_hosts": place, **more},
    )  # fmt: skip
    desk.gateways.insert(0, desk.gateways.pop())


def identity(auth: Authorization, **more: Any) -> dict[str, Any]:
    said = {"tokenUrl": f"{auth.url}/token", "clientId": "c-1", "scopes": ["https://models/.default"], **more}
    return {name: value for name, value in said.items() if value is not None}


async def shown(desk: Desk) -> str:
    """The authorization header that the server of models was sent."""
    said = await desk.chat("leak")
    assert said.status == 200, said
    return str(desk.models.asked[-1]["headers"].get("authorization"))


async def refused(desk: Desk, text: str = "x") -> str:
    said = await desk.chat(text)
    assert said.status == 503 and said.json["error"]["code"] == "no_credential", said
    message = str(said.json["error"]["message"])
    assert "eyJ" not in said.body.decode() and ACCESS not in said.body.decode()
    return message


async def test_a_projected_token_becomes_a_bearer_that_is_kept(desk: Desk, auth: Authorization) -> None:
    await at(desk, auth)
    await desk.publish(workloadIdentity=identity(auth))
    await asyncio.gather(*(desk.chat(f"n{n}") for n in range(4)))
    (asked,) = auth.asked
    assert jwt.decode(asked.pop("client_assertion"), options={"verify_signature": False})["sub"] == SUBJECT
    assert asked == {
        "grant_type": "client_credentials", "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_id": "c-1", "scope": "https://models/.default",
    }  # fmt: skip
    assert await shown(desk) == f"Bearer {ACCESS}-1"
    said = await desk.chat("leak again")
    assert ACCESS not in said.body.decode(), "the server repeats what it was shown"


@pytest.mark.parametrize("protocol", ["azure", "anthropic"])
async def test_it_is_a_bearer_in_every_protocol(desk: Desk, auth: Authorization, protocol: str) -> None:
    await at(desk, auth)
    await desk.publish(protocol=protocol, baseUrl=desk.models.url, workloadIdentity=identity(auth))
    path = "openai/deployments/m-1/chat/completions?api-version=1" if protocol == "azure" else "v1/messages"
    said = await desk.chat("x", target=f"/models/m/{path}")
    assert said.status == 200, said
    headers = desk.models.asked[-1]["headers"]
    assert headers["authorization"] == f"Bearer {ACCESS}-1" and not headers.keys() & {"api-key", "x-api-key"}


async def test_it_is_shown_in_the_ways_that_providers_know(desk: Desk, auth: Authorization) -> None:
    await at(desk, auth)
    await desk.publish(workloadIdentity=identity(auth, grant="tokenExchange", clientId=None, audience="//iam/pool"))
    await shown(desk)
    exchange = auth.asked[-1]
    assert (
        exchange["grant_type"].endswith(":token-exchange")
        and exchange["audience"] == "//iam/pool"
        and "client_id" not in exchange
    )
    assert exchange["subject_token_type"].endswith(":jwt") and exchange["requested_token_type"].endswith(
        ":access_token"
    )
    await desk.publish(workloadIdentity=identity(auth, grant="jwtBearer", parameters={"resource": "r"}))
    await shown(desk)
    bearer = auth.asked[-1]
    assert bearer["grant_type"].endswith(":jwt-bearer") and bearer["assertion"] and bearer["resource"] == "r"


async def test_the_file_is_read_at_each_exchange_for_the_kubelet_replaces_it(desk: Desk, auth: Authorization) -> None:
    await at(desk, auth)
    auth.expires_in = 0
    await desk.publish(workloadIdentity=identity(auth))
    for mark in ("first", "second"):
        write(desk.folder, projected(mark=mark))
        await desk.chat(mark)
    assert auth.revoked == ["first", "second"]


async def test_a_bearer_that_is_not_accepted_any_more_is_replaced_once(desk: Desk, auth: Authorization) -> None:
    await at(desk, auth)
    await desk.publish(workloadIdentity=identity(auth))
    said = await desk.chat("fail 401 1")
    assert said.status == 200 and len(auth.asked) == 2
    said = await desk.chat("fail 401 9")
    assert said.status == 401 and len(auth.asked) == 3, "and not for ever"


async def test_what_goes_wrong_is_named_and_no_token_with_it(
    desk: Desk, auth: Authorization, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="moorage_gateway")
    await at(desk, auth)
    await desk.publish(workloadIdentity=identity(auth))
    write(desk.folder, projected(audience="another"))
    message = await refused(desk, "a")
    assert "model endpoint 'm'" in message and "its token server answered 400 invalid_grant" in message
    cases: list[tuple[dict[str, Any], str]] = [
        ({"token": "other"}, "no projected token 'other' for tenant 'acme'"),
        ({"tokenUrl": f"http://127.0.0.1:{desk.models.port}/token"}, "may not be shown at 127.0.0.1"),
        ({"tokenUrl": f"http://localhost:{auth.port}/token"}, "may not be shown at localhost"),
    ]
    for number, (said, says) in enumerate(cases):
        await desk.publish(workloadIdentity=identity(auth, **said))
        assert says in await refused(desk, f"b{number}")
    answers: list[tuple[tuple[int, dict[str, Any]], str]] = [
        ((503, {}), "its token server answered 503"), ((200, {}), "gave no token"),
        ((200, {"access_token": "x", "token_type": "mac"}), "gave no bearer token"), ((302, {}), "it redirects elsewhere"),
        ((400, {"error": "eyJ<script>"}), "answered 400."),
    ]  # fmt: skip
    for number, (answer, says) in enumerate(answers):
        auth.answer = answer
        await desk.publish(workloadIdentity=identity(auth, parameters={"n": str(number)}))
        write(desk.folder, projected())
        assert says in await refused(desk, f"c{number}")
    assert desk.models.asked == [] and "eyJ" not in caplog.text.replace("eyJ<script>", "")


async def test_another_tenants_token_is_not_used(desk: Desk, auth: Authorization) -> None:
    await at(desk, auth)
    write(desk.folder, projected(), "globex_theirs")
    await desk.publish(workloadIdentity=identity(auth, token="theirs"))
    assert "for tenant 'acme'" in await refused(desk) and auth.asked == []


async def test_an_endpoint_without_a_token_is_stood_in_for(desk: Desk, auth: Authorization) -> None:
    await at(desk, auth, workload_hosts="")
    await desk.publish("backup")
    await desk.publish(workloadIdentity=identity(auth), failover=["backup"])
    async with asyncio.timeout(WITHIN):
        assert (await desk.chat("x")).status == 200
    assert auth.asked == []


async def test_a_token_server_that_hangs_or_refuses_costs_nothing_while_the_token_counts(
    desk: Desk, auth: Authorization
) -> None:
    await at(desk, auth)
    now = [0.0]
    hosts = frozenset({f"127.0.0.1:{auth.port}"})
    tokens = WorkloadTokens(desk.gateways[0].core.upstreams, desk.folder / "workload", hosts, lambda: now[0])
    spec = {"workloadIdentity": {"token": "default", "grant": "clientAssertion", "parameters": {}} | identity(auth)}
    endpoint = of_endpoint(EndpointEntry("acme", "m", spec))
    assert await tokens.get(endpoint, 10) == f"{ACCESS}-1"
    auth.gate, now[0] = threading.Event(), 3500.0  # of 3600
    assert await asyncio.gather(*(tokens.get(endpoint, 0.5) for _ in range(3))) == [f"{ACCESS}-1"] * 3
    assert len(auth.asked) == 2, "one asks, and nobody waits for it"
    auth.gate.set()
    auth.answer, now[0] = (400, {"error": "invalid_grant"}), 3550.0
    assert await tokens.get(endpoint, 0.5) == f"{ACCESS}-1" and len(auth.asked) == 3
    now[0] = 3601.0
    with pytest.raises(NoToken, match="400 invalid_grant"):
        await tokens.get(endpoint, 0.5)
    auth.answer, now[0] = None, 3610.0
    assert await tokens.get(endpoint, 10) == f"{ACCESS}-3"
