"""What users do to consent, and what is kept of it. Layer: tests."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from component.tools.conftest import WITHIN, Box
from fakes.authorization import Authorization
from moorage_api.ledger.consents import ConsentLedger
from moorage_gateway.app import Gateway
from moorage_gateway.clock import SystemClock
from moorage_gateway.consents.holding import Holding
from moorage_gateway.consents.records import ConsentRecords
from moorage_gateway.consents.sealing import Sealing
from moorage_gateway.consents.shapes import Subject, Terms
from moorage_gateway.core import Core

KEYS = "5a" * 32


LINK = re.compile(r"http://127\.0\.0\.1:\d+/v1/oauth/start\?link=[\w-]{43}")


async def at(box: Box, auth: Authorization, **more: Any) -> Gateway:
    """One more gateway, which has the tests' calls from now on."""
    ports = f"127.0.0.1:{auth.port},127.0.0.1:{box.tools.port}"
    made = await box.gateway(**{"allowed_upstreams": ports, "consent_keys": KEYS, **more})
    box.gateways.insert(0, box.gateways.pop())
    auth.redirects.add(f"{made.public_url}/v1/oauth/callback")
    await box.toolbox("t", upstream(box, auth))
    return made


def upstream(box: Box, auth: Authorization, **oauth: Any) -> dict[str, Any]:
    said = {
        "grant": "authorizationCode", "authorizationUrl": f"{auth.url}/authorize", "tokenUrl": f"{auth.url}/token",
        "revocationUrl": f"{auth.url}/revoke", "clientId": "moorage", "clientSecret": {"secret": "s"}, "scopes": ["tickets.read"],
        "resource": box.tools.url, **oauth,
    }  # fmt: skip
    return box.upstream(oauth=said, readOnly=["get_*"])


class Browser:
    """One person's, with its cookies: goes where it is sent, one step at a time."""

    def __init__(self) -> None:
        self.cookies: dict[str, str] = {}

    async def get(self, url: str) -> httpx2.Response:
        return await self._asked("GET", url)

    async def post(self, url: str, data: dict[str, str]) -> httpx2.Response:
        return await self._asked("POST", url, data=data)

    async def check(self, link: str) -> str:
        """Opened, and read."""
        page = await self.get(link)
        found = re.search(r'name="check" value="([0-9a-f]+)"', page.text)
        assert page.status_code == 200 and found is not None, page.text
        return found[1]

    async def sent(self, link: str) -> str:
        """The same, and gone on: where it is at the authorization server."""
        went = await self.post(link, {"check": await self.check(link)})
        assert went.status_code == 303, went.text
        return went.headers["location"]

    async def back(self, link: str) -> str:
        """The same, and decided there: the callback with its code."""
        answered = await self.get(await self.sent(link))
        assert answered.status_code == 302
        return answered.headers["location"]

    async def consents(self, link: str) -> httpx2.Response:
        return await self.get(await self.back(link))

    async def _asked(self, method: str, url: str, **more: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(timeout=WITHIN, cookies=self.cookies) as http:
            answer = await http.request(method, url, **more)
            self.cookies |= dict(answer.cookies)
            return answer


async def link_of(box: Box, text: str = "x", **over: Any) -> str:
    """What a call without a consent says."""
    said, error = await box.run(text, **over)
    assert error and said.startswith("consent_required:"), said
    found = LINK.search(said)
    assert found is not None
    return found[0]


async def consented(box: Box) -> Browser:
    browser = Browser()
    done = await browser.consents(await link_of(box))
    assert done.status_code == 200 and "Allowed" in done.text
    return browser


async def searched(box: Box) -> str:
    """What a search tells, whole."""
    params = {"name": "tool_search", "arguments": {"query": "text"}}
    return (await box.rpc("tools/call", params)).body.decode()


async def as_user(box: Box, user: str, number: int) -> None:
    """Another user's session and turn from now on."""
    box.session = f"acme:{number:016d}"
    box.turn = f"caresp_{number:016d}00" + "y" * 32
    box.sandbox = f"sb-{number}"
    await box.begin(user)


async def key(box: Box, user: str, *scopes: str) -> dict[str, str]:
    _, text = await box.gateways[0].core.keys.create(tenant="acme", user=user, scopes=scopes)
    return {"authorization": f"Bearer {text}"}


def stored(box: Box) -> Iterator[tuple[str, bytes]]:
    for folder, _, names in os.walk(box.folder / "store"):
        for name in names:
            yield name, (Path(folder) / name).read_bytes()


class Hasty(SystemClock):
    """Its pauses are over at once, until it is so many seconds `ahead`; its wall is `late` seconds ahead of the machine's."""

    ahead = 0.0

    def __init__(self, most: float = float("inf"), late: float = 0.0) -> None:
        self._most = most
        self.late = late

    def now_ms(self) -> int:
        return super().now_ms() + int(self.late * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead

    async def sleep(self, seconds: float) -> None:
        if self.ahead >= self._most:
            await asyncio.sleep(0.02)
            return
        self.ahead += seconds
        await asyncio.sleep(0)


def holding_of(core: Core, clock: Hasty | None = None) -> Holding:
    """As another gateway's, which knows nothing yet."""
    records = ConsentRecords(core.store, Sealing([KEYS]))
    return Holding(records, ConsentLedger(core.runner), core.upstreams, clock or Hasty())


async def known(core: Core) -> tuple[Subject, Terms]:
    """Whose the one consent is, and for what."""
    (consent,) = (await core.consents.given("acme", "ann")).data
    found = core.consents.terms("acme", "t", "one")
    assert found is not None
    return consent.subject, found
