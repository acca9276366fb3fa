"""Kinds: the objects a person writes.

One kind a file; each is the only source of its schema, reference page and messages.
"""

from moorage_api.kinds.agent import HostedAgent, HostedAgentSpec
from moorage_api.kinds.documents import (
    KINDS,
    ManifestError,
    Object,
    Problem,
    notes_outside_kubernetes,
    parse,
    parse_all,
    parse_any,
    warnings_of,
)
from moorage_api.kinds.model_endpoint import ModelEndpoint
from moorage_api.kinds.routine import Routine
from moorage_api.kinds.toolbox import Toolbox

__all__ = [
    "KINDS",
    "HostedAgent",
    "HostedAgentSpec",
    "ManifestError",
    "ModelEndpoint",
    "Object",
    "Problem",
    "Routine",
    "Toolbox",
    "notes_outside_kubernetes",
    "parse",
    "parse_all",
    "parse_any",
    "warnings_of",
]
