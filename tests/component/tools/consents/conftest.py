"""A desk whose toolbox asks for its users' own accounts, and the authorization server that has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from component.tools.conftest import SECRET, Box
from component.tools.consents.consenting import (
    KEYS,
    upstream,
)
from fakes.authorization import Authorization, serving


@pytest.fixture
def auth() -> Iterator[Authorization]:
    with serving(SECRET) as made:
        yield made


@pytest.fixture
def settings(auth: Authorization) -> dict[str, str]:
    return {"allowed_upstreams": f"127.0.0.1:{auth.port}", "consent_keys": KEYS}


@pytest.fixture
async def desk(box: Box, auth: Authorization) -> Box:
    """A toolbox `t` whose one server takes the tokens of its user, at a gateway that can keep them."""
    box.put_secret("one")
    box.tools.tokens = auth.accepted
    auth.redirects.add(f"{box.gateways[0].public_url}/v1/oauth/callback")
    await box.toolbox("t", upstream(box, auth))
    return box
