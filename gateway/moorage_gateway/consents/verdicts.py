"""What a refusal means: is it the user who must consent again, or whoever wrote the toolbox who must mend it? Layer: pure.

over   what was granted is gone (RFC 6749, 5.2: `invalid_grant`), or is not enough any more: a person can mend that. `invalid_scope`
       is of these where a token is renewed, for a renewal names no scopes: those that were granted are meant.
wrong  client, grant, resource, scopes or addresses are not what the other side knows: a consent would end the same way.
else   neither: it may be otherwise in a moment.
"""

from __future__ import annotations

OVER = frozenset(
    {
        "invalid_grant",
        "invalid_scope",
        # OpenID Connect Core, 3.1.2.6; some servers say them to renewals, too
        "interaction_required",
        "login_required",
        "consent_required",
        "account_selection_required",
    }
)

_WRONG = {
    # RFC 6749, 5.2 and 4.1.2.1
    "invalid_client": "`clientId`, `clientSecret` or `auth` are not what it knows",
    "unauthorized_client": "it does not let this `clientId` do that: allow it codes and refresh tokens there",
    "unsupported_grant_type": "`tokenUrl` gives no tokens for codes or refresh tokens",
    "unsupported_response_type": "`authorizationUrl` gives no codes",
    "invalid_request": "it does not understand the request: look at `parameters`, `auth` and the addresses",
    "invalid_scope": "it does not know all of `scopes`, or does not give them to this `clientId`",
    # RFC 8707, RFC 7009, RFC 6750
    "invalid_target": "it does not know that `resource`",
    "unsupported_token_type": "`revocationUrl` takes no refresh tokens back",
    "insufficient_scope": "`scopes` do not suffice for what was called",
    "invalid_token": "it does not take tokens that were just given: look at `resource` and `scopes`",
}
_OF_A_CODE = frozenset({"invalid_request", "invalid_grant"})
_UNAUTHORIZED = 401


def over(code: str) -> bool:
    """Whether a renewal that is refused so needs its user's consent anew."""
    return code in OVER


def of_a_code(code: str) -> bool:
    """Whether a token server may say so of a code alone: a browser brought that, and may have made it up. The manifest is not to blame."""
    return code in _OF_A_CODE


def wrong(code: str, status: int = 0) -> str:
    """What of the manifest is to be looked at; empty: nothing is known to be wrong with it. `status` of a token server, which says by 401
    alone that it does not know its client."""
    return _WRONG.get(code) or (_WRONG["invalid_client"] if status == _UNAUTHORIZED and not code else "")
