"""What the parts of a manifest are made of: the base model, metadata, quantities, and checks of paths and hosts.

Layer: the floor; pure. Used by the kinds beside it only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from moorage_api import names
from moorage_api.kinds import quantities

PACKAGE_INDEX = "package-index"

_HOST = re.compile(r"(\*\.)?(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\Z")

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\Z")


def _checked(parse: Callable[[str], float]) -> AfterValidator:
    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


_Text = BeforeValidator(quantities.text_of)
Cpu = Annotated[str, _Text, _checked(quantities.millicores), Field(json_schema_extra={"x-quantity": "cpu"})]
Size = Annotated[str, _Text, _checked(quantities.octets), Field(json_schema_extra={"x-quantity": "bytes"})]
Duration = Annotated[str, _Text, _checked(quantities.seconds), Field(json_schema_extra={"x-quantity": "duration"})]


def list_default(*values: Any) -> Callable[[], list[Any]]:
    return lambda: list(values)


class Part(BaseModel):
    """What every part of the manifest shares: camelCase names, nothing unknown, no silent conversions, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
    )


# What an API server adds to metadata; a manifest read back with kubectl must stay valid.
_SERVER_METADATA = frozenset(
    {
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "selfLink",
        "generateName",
    }
)


class Metadata(Part):
    """Name and labels."""

    name: str
    """Unique in its tenant: lower-case letters, digits and `-`, at most 63."""
    namespace: str | None = Field(default=None, max_length=63)
    """Kubernetes namespace; elsewhere ignored."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations."""

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if names.AGENT.match(name) is None:
            raise ValueError(
                f"{name[:80]!r} is not a name: lower-case letters, digits and -, at most 63, like review-agent"
            )
        return name

    @model_validator(mode="before")
    @classmethod
    def _without_server_fields(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if k not in _SERVER_METADATA} if isinstance(data, dict) else data


def relative_path(path: str) -> str:
    if path.startswith(("/", "\\", "~")) or "\0" in path or ".." in re.split(r"[/\\]", path):
        raise ValueError("must be a path inside the source, without ..")
    return path


def absolute_path(path: str) -> str:
    parts = path.split("/")
    if not path.startswith("/") or len(path) < 2 or ".." in parts or "\0" in path:
        raise ValueError("must be an absolute path, without ..")
    if parts[1] in {"proc", "sys", "dev", "tmp"}:
        raise ValueError(f"may not lie in /{parts[1]}")
    return path.rstrip("/")


def is_host(text: str) -> bool:
    """Whether it is one host by a plain name, as the egress proxy reads them: no wildcard, nothing around it."""
    return len(text) <= 253 and _NAME.match(text.lower()) is not None


def is_port(text: str) -> bool:
    """Whether it is a port by its number."""
    return re.fullmatch("[0-9]{1,5}", text) is not None and 1 <= int(text) <= 65535


def egress_host(entry: str) -> str:
    if entry == PACKAGE_INDEX:
        return entry
    host, colon, port = entry.partition(":")
    if "/" in entry:
        raise ValueError(f"{entry!r} is not a host; write host or host:port, without a scheme or path")
    if _HOST.match(host.lower()) is None or len(host) > 253:
        raise ValueError(f"{entry!r} is not a host; write it like api.example.com, *.example.com or example.com:8443")
    if colon and not is_port(port):
        raise ValueError(f"{entry!r} has no valid port")
    return entry


def server_url(url: str, *, like: str, key: str) -> str:
    """The URL without a slash at its end. `like` is a right one, `key` the field that a key belongs into. Raises ValueError, which
    repeats nothing that may be a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"is no URL; write it like {like}") from None
    if parts.scheme not in ("http", "https") or "\\" in url or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(f"is no http(s) URL; write it like {like}")
    if "@" in parts.netloc:
        raise ValueError(f"holds a user or a password; give the key as {key}")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("has a query or a fragment; write the path only")
    host = parts.hostname or ""
    literal = re.fullmatch(r"[0-9a-f:.]+", host) is not None and ":" in host
    if not (literal or is_host(host)) or (port is not None and not is_port(str(port))):
        raise ValueError(f"names no host; write it like {like}")
    if ".." in parts.path.split("/") or "//" in parts.path or "%" in parts.path:
        raise ValueError("has a path with .., // or %")
    return url.rstrip("/")
