"""The name of a revision: a hash of what its sandboxes are made from. Layer: the floor; pure."""

from __future__ import annotations

import json

from moorage_api import names
from moorage_api.kinds.agent import HostedAgentSpec

# What may change without new sandboxes.
_NOT_OF_THE_REVISION = frozenset({"pool", "rollout", "access", "session", "turn"})


def revision_of(spec: HostedAgentSpec, *made_from: str) -> str:
    """The revision that this spec makes with what its source was resolved to (digests, in a fixed order)."""
    kept = {k: v for k, v in spec.model_dump(mode="json", by_alias=True).items() if k not in _NOT_OF_THE_REVISION}
    kept["durableState"] = spec.turn.durable_state  # the one part of `turn` that the program itself is held against
    text = json.dumps([kept, *made_from], sort_keys=True, separators=(",", ":"))
    return names.revision(text.encode())
