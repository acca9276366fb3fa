"""Kinds: the objects a person writes.

One kind a file; each is the only source of its schema, reference page and messages.
"""

from moorage_api.kinds.agent import HostedAgent, HostedAgentSpec
from moorage_api.kinds.documents import ManifestError, Problem, notes_outside_kubernetes, parse, parse_all, warnings_of

__all__ = [
    "HostedAgent",
    "HostedAgentSpec",
    "ManifestError",
    "Problem",
    "notes_outside_kubernetes",
    "parse",
    "parse_all",
    "warnings_of",
]
