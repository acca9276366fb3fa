"""HostedAgent as a custom resource: columns, status, and the rules that its schema alone cannot say. Layer: the floor; values only.

Rules repeat those of `kinds/agent.py` and `kinds/source.py` that CEL can express, so that a wrong object is refused by `kubectl apply`
and not only reported afterwards. They hold for an empty part too: an API server tries them on the default `{}`. Shapes of secrets and
hosts stay with the operator, which reports them in a condition.
"""

from __future__ import annotations

from typing import Any

from moorage_api.resources.definition import CONDITIONS, GENERATION, Column, Resource, Rule, named

_SOURCE = ("spec", "source")
_RESERVED = "['PORT', 'HOME', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']"

_RULES = (
    named("review-agent"),
    Rule(("spec",), "has(self.image) != has(self.source)", "give exactly one of image and source"),
    Rule(
        ("spec",),
        "!has(self.mounts) || self.mounts.size() == 0",
        "mounts are folders of a laptop: moorage dev only",
    ),
    Rule(
        _SOURCE,
        "!has(self.path)",
        "source.path is a folder of a laptop: use git or an image, or deploy the folder with moorage up",
    ),
    Rule(_SOURCE, "has(self.bundle) != has(self.git)", "give exactly one of bundle and git"),
    Rule(
        (*_SOURCE, "git"),
        "!self.url.matches('^https?://[^/?#]*@')",
        "url holds a user or a password; use a public URL or the ssh form with the platform's own key",
    ),
    Rule(
        (*_SOURCE, "git"),
        "!self.url.startsWith('http') || self.url.matches('^https?://[A-Za-z0-9_][A-Za-z0-9_.-]*(:[0-9]{1,5})?(/[^ ]*)?$')",
        "url names no plain host; write it like https://git.example/agents.git",
    ),
    Rule((*_SOURCE, "git"), "!self.path.startsWith('/') && !self.path.contains('..')", "path lies inside the repository"),
    Rule(("spec", "pool"), "!has(self.min) || !has(self.max) || self.min <= self.max", "min is more than max"),
    Rule(
        ("spec", "env", "[]"),
        f"!self.name.startsWith('MOORAGE_') && !(self.name.upperAscii() in {_RESERVED})",
        "the platform sets this variable; choose another name",
    ),
    Rule(
        ("spec", "workspace"),
        "!has(self.mount) || !self.mount.contains('..') && !self.mount.matches('^/(proc|sys|dev|tmp)(/|$)')",
        "mount is an absolute path, not in /proc, /sys, /dev or /tmp",
    ),
)  # fmt: skip

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "format": "int32", "minimum": 0}
_STATUS: dict[str, Any] = {
    "type": "object",
    "description": "Written by the operator.",
    "properties": {
        "observedGeneration": GENERATION,
        "conditions": CONDITIONS,
        "revision": {**_TEXT, "description": "The newest revision that new sessions get."},
        "source": {**_TEXT, "description": "What the source was resolved to: a commit, or a bundle's digest."},
        "url": {**_TEXT, "description": "Where callers reach the agent."},
        "sessions": {
            "type": "object",
            "description": "Sandboxes and sessions by state.",
            "properties": {
                "warm": {**_COUNT, "description": "Ready sandboxes that nobody uses yet."},
                "active": {**_COUNT, "description": "Sessions with a running turn."},
                "idle": {**_COUNT, "description": "Sessions with a sandbox and no turn."},
                "hibernated": {**_COUNT, "description": "Sessions whose workspace waits without a sandbox."},
            },
        },
    },
}

HOSTED_AGENT = Resource(
    kind="HostedAgent",
    plural="hostedagents",
    short=("ha", "hagent"),
    columns=(
        Column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Revision", "string", ".status.revision"),
        Column("Warm", "integer", ".status.sessions.warm"),
        Column("Sessions", "integer", ".status.sessions.active"),
        Column("URL", "string", ".status.url"),
        Column("Age", "date", ".metadata.creationTimestamp"),
        Column("Reason", "string", '.status.conditions[?(@.type=="Ready")].message', priority=1),
    ),
    rules=_RULES,
    status=_STATUS,
    more={
        ("spec", "env"): {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ("spec", "env", "[]", "name"): {"maxLength": 128, "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        (*_SOURCE, "bundle"): {"pattern": "^(sha256:)?[0-9a-f]{64}$"},
        (*_SOURCE, "python"): {"pattern": "^3\\.[0-9]{1,2}(\\.[0-9]{1,2})?$"},
        ("spec", "protocols"): {"x-kubernetes-list-type": "set"},
        ("spec", "egress"): {"x-kubernetes-list-type": "set"},
    },
)
