"""Where an agent's code comes from: the `source` part of a HostedAgent. Layer: the floor; pure."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from moorage_api.kinds.values import Part, is_host, is_port, relative_path

ENTRYPOINTS = ("host.py", "agent.py", "main.py")

_BUNDLE = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
_ENTRY_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")
_OVER_HTTP = re.compile(r"https?://([^/?#:]*)(:[^/?#]*)?(/[^\x00-\x20\x7f]*)?\Z")
_USER = re.compile(r"(https?://[^/?#]*|ssh://[^/?#]*:[^/?#]*)@")
_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,2})?\Z")


class Git(Part):
    """A folder in a git repository. Works with a plain `kubectl apply`."""

    url: str = Field(min_length=1, max_length=2048)
    """URL of the repository (https or ssh). Over https with nothing before the host; never with a password in it."""
    ref: str = Field(default="HEAD", min_length=1, max_length=255)
    """Branch, tag or commit; it is resolved to a commit, which the status shows."""
    path: str = Field(default=".", max_length=1024)
    """Folder of the agent inside the repository."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if re.match(r"(https?|ssh|file)://|[\w.-]+@[\w.-]+:", url) is None:
            raise ValueError("must be an https:// or ssh:// URL")
        if _USER.match(url):
            raise ValueError("holds a user or a password; use a public URL or the ssh form with the platform's own key")
        if url.startswith("http"):
            found = _OVER_HTTP.match(url)
            if found is None or not is_host(found[1]) or not (found[2] is None or is_port(found[2][1:])):
                raise ValueError("names no plain host; write it like https://git.example/agents.git")
        return url

    @field_validator("ref")
    @classmethod
    def _plain_ref(cls, ref: str) -> str:
        if ref.startswith("-") or re.search(r"[\s~^:?*\[\\]|\.\.", ref):
            raise ValueError("is not the name of a branch, tag or commit")
        return ref

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        return relative_path(path)


class Source(Part):
    """The agent's code: exactly one of `path`, `bundle` and `git`."""

    path: str | None = Field(default=None, min_length=1, max_length=4096)
    """Folder beside the manifest; for `moorage dev` and `moorage up` only."""
    bundle: str | None = None
    """Digest of an uploaded bundle (`sha256:` and 64 hex): what `moorage up` writes."""
    git: Git | None = None
    """A folder in a git repository."""
    entrypoint: str | None = Field(default=None, min_length=1, max_length=1024)
    """File, or `module:object`. Default: the first of `host.py`, `agent.py`, `main.py` that exists."""
    python: str | None = None
    """Python version of the environment, such as `3.12`. Default: the platform's own."""
    requirements: str | None = Field(default=None, min_length=1, max_length=1024)
    """Requirements file.

    Default: a lock file, `requirements.txt` or `pyproject.toml` found in the source, in this order.
    """

    @field_validator("bundle")
    @classmethod
    def _digest(cls, bundle: str | None) -> str | None:
        if bundle is None:
            return None
        found = _BUNDLE.match(bundle)
        if found is None:
            raise ValueError("is not a bundle's digest: sha256: and 64 hex digits; `moorage up` writes it")
        return f"sha256:{found.group(1)}"

    @field_validator("entrypoint", "requirements")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        if value is None or _ENTRY_MODULE.match(value):
            return value
        return relative_path(value)

    @field_validator("python")
    @classmethod
    def _version(cls, value: str | None) -> str | None:
        if value is not None and _PYTHON.match(value) is None:
            raise ValueError("is not a Python version; write it in quotes, like '3.12'")
        return value

    @model_validator(mode="after")
    def _one(self) -> Source:
        given = [name for name in ("path", "bundle", "git") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of path, bundle and git (found: {', '.join(given) or 'none'})")
        return self
