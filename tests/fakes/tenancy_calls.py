"""What the tenancy tests call: URL forms, verbs and bodies, made from the gateway's table of data routes."""

from __future__ import annotations

from typing import Any

from moorage_gateway import inbound

ATTACKERS = ("bob", "rival")  # another user of the tenant; the same user name in another tenant. Both with every scope
UNKNOWN_RESPONSE = "caresp_" + "0" * 16 + "00" + "a" * 32

# protocols.md §2: the addresses at which clients find the Responses API.
FORMS = {
    "openai, agent in the body": "/v1/responses",
    "openai": "/v1/agents/{agent}/responses",
    "azure": "/v1/agents/{agent}/openai/responses",
    "azure v1": "/v1/agents/{agent}/openai/v1/responses",
    "project": "/api/projects/p/agents/{agent}/endpoint/protocols/openai/responses",
    "project v1": "/api/projects/p/agents/{agent}/endpoint/protocols/openai/v1/responses",
    "project, agent in the body": "/api/projects/p/openai/v1/responses",
}


def calls() -> list[tuple[str, str]]:
    """(method, verb) of everything that may follow a response id."""
    return [(method, verb) for verb, methods in inbound._BELOW_ID.items() for method in methods]


def body_of(verb: str) -> dict[str, Any] | None:
    """A valid body for the verb, so that nothing but ownership can refuse it."""
    return {"rating": "negative", "comment": "mine now"} if verb == "feedback" else None
