"""What a tool server keeps for a user's account is gone on with by that account alone."""

from __future__ import annotations

import asyncio
import time

import pytest

from component.tools.conftest import WITHIN, Box
from component.tools.consents.consenting import consented, upstream
from fakes.authorization import Authorization
from moorage_gateway.consents.shapes import Subject

pytestmark = pytest.mark.component


async def test_a_server_begins_anew_with_a_user_who_consents_anew(desk: Box, auth: Authorization) -> None:
    """It may have asked who somebody is when the session was begun, and the new consent may be another account's."""
    desk.old.tokens = auth.accepted
    asked = {**upstream(desk, auth), "name": "two", "mcp": {"url": desk.old.url}}
    desk.put_secret("two")
    await desk.gateway(allowed_upstreams=f"127.0.0.1:{auth.port},127.0.0.1:{desk.old.port}")
    await desk.toolbox("t", asked)
    await consented(desk)
    assert await desk.run("a") == ("add 1: a", False)
    auth.expire()
    assert not (await desk.run("b", tool="get_one"))[1]
    first, after_renewal = (str(each["headers"]["mcp-session-id"]) for each in desk.old.ran)
    assert first == after_renewal, "a renewed token is the same account's"
    given, consents = int(time.time()), desk.gateways[0].core.consents
    assert await consents.revoke(Subject("acme", "ann", "t", "two"))
    async with asyncio.timeout(WITHIN):
        while int(time.time()) == given:  # a consent is told from the one before by its second
            await asyncio.sleep(0.05)
    await consented(desk)
    assert await desk.run("c") == ("add 3: c", False)
    assert desk.old.ran[2]["headers"]["mcp-session-id"] != first
