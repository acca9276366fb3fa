"""What looks like a secret in a manifest's `env`.

Layer: the floor; stdlib only, pure. Certain shapes are refused by the HostedAgent model; mere suspicion is a warning
(`suspicion`). Nothing here ever repeats the value in a message.
"""

from __future__ import annotations

import re

# (what it is, pattern at the start of the value). Shapes that cannot be anything else; the rest is suspicion.
_CERTAIN: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a PEM block", re.compile(r"\s*-----BEGIN [A-Z ]+-----")),
    ("an OpenAI or Anthropic key", re.compile(r"sk-[A-Za-z0-9_-]{16,}")),
    ("a Stripe key", re.compile(r"[rs]k_(live|test)_[A-Za-z0-9]{16,}")),
    ("an AWS access key", re.compile(r"(AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})")),
    ("a GitLab token", re.compile(r"gl(pat|dt|ft|rt)-[A-Za-z0-9_-]{16,}")),
    ("a Slack token", re.compile(r"xox[abprs]-[A-Za-z0-9-]{10,}")),
    ("a Google API key", re.compile(r"AIza[0-9A-Za-z_-]{30,}")),
    ("a Google OAuth token", re.compile(r"ya29\.[0-9A-Za-z_-]{20,}")),
    ("a Hugging Face token", re.compile(r"hf_[A-Za-z0-9]{20,}")),
    ("a SendGrid key", re.compile(r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")),
    ("an npm token", re.compile(r"npm_[A-Za-z0-9]{30,}")),
    ("a PyPI token", re.compile(r"pypi-[A-Za-z0-9_-]{30,}")),
    ("a Docker token", re.compile(r"dckr_pat_[A-Za-z0-9_-]{16,}")),
    ("a Groq key", re.compile(r"gsk_[A-Za-z0-9]{30,}")),
    ("an xAI key", re.compile(r"xai-[A-Za-z0-9]{30,}")),
    ("a signed JSON web token", re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")),
)

_SUSPECT_NAME = re.compile(r"(^|_)(API_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|PRIVATE_KEY)($|_)", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)
_RANDOM = re.compile(r"[A-Za-z0-9+/_=-]{32,}\Z")
_HARMLESS = frozenset({"", "none", "dummy", "unused", "not-needed", "placeholder", "changeme", "true", "false"})

WHERE_INSTEAD = (
    "a manifest never holds secrets: give a model's key to a ModelEndpoint (`spec.models`) and a tool's credentials to "
    "a Toolbox (`spec.toolboxes`); the gateway adds them outside the sandbox"
)


def certain(value: str) -> str | None:
    """What kind of secret this value certainly is (`a GitHub token`), or None."""
    for what, pattern in _CERTAIN:
        if pattern.match(value):
            return what
    return None


def suspicion(name: str, value: str) -> str | None:
    """Why a name and value look like a secret without being certain, or None."""
    if value.lower() in _HARMLESS:
        return None
    if _URL_PASSWORD.match(value):
        return "the value is a URL with a password in it"
    if _SUSPECT_NAME.search(name):
        return "the name reads like a credential"
    if _RANDOM.match(value) and _mixed(value):
        return "the value looks random"
    return None


def _mixed(value: str) -> bool:
    kinds = (str.islower, str.isupper, str.isdigit)
    return all(any(kind(character) for character in value) for kind in kinds) and len(set(value)) >= 16
