"""What gateways saw authorization servers not take of a toolbox' `oauth`, as its status says it. Layer: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moorage_api.catalog import ToolboxEntry
from moorage_api.ledger.consents import Wrong, named


def of_users(entry: object) -> dict[str, Mapping[str, Any]]:
    """`oauth` of upstreams that are opened by their users' own tokens, by their names; of another kind's entry none."""
    every = entry.spec["upstreams"] if isinstance(entry, ToolboxEntry) else ()
    oauth = {str(each["name"]): each.get("oauth") or {} for each in every}
    return {name: said for name, said in oauth.items() if said.get("grant") == "authorizationCode"}


def told(entry: object, wrongs: Mapping[tuple[str, str], Wrong]) -> str:
    """What is wrong with it as it is now; `wrongs` are its tenant's, by toolbox and upstream."""
    if not isinstance(entry, ToolboxEntry):
        return ""
    found = ((name, wrongs.get((entry.name, name)), oauth) for name, oauth in of_users(entry).items())
    return "\n".join(
        f"upstream {name}: {each.says}" for name, each, oauth in found if each and each.oauth == named(oauth)
    )
