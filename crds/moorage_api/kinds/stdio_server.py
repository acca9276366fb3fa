"""The type `stdio` of a toolbox' upstreams: a program that speaks MCP over its standard input and output. Layer: the floor; a part of the
kind in `toolbox.py`.
"""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from moorage_api.kinds import secret_shapes
from moorage_api.kinds.agent import ENV_NAME, RESERVED_ENV
from moorage_api.kinds.model_endpoint import Credential
from moorage_api.kinds.values import Cpu, Part, Size, relative_path

_LOADERS = frozenset({"GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"})
"""Beside `LD_…`: by these the C library loads code, or is steered, in whatever is started with them (ld.so(8), locale(7)). A plain value
reaches the program alone; a secret stands in the environment of its pod, and so of what runs it there."""


class ServerVariable(Part):
    """One environment variable of the program: a plain value, or where a secret is."""

    name: str
    """Name of the variable. `PORT`, `HOME`, the proxy variables and `MOORAGE_…` belong to the platform; `LD_…` and
    the like have a plain value."""
    value: str | None = Field(default=None, max_length=32768)
    """Its value, a string: quote numbers and true/false. Never a secret."""
    secret: Credential | None = None
    """Where its value is, in place of `value`. It reaches the program and nothing else."""

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if ENV_NAME.match(name) is None:
            raise ValueError(f"{name[:60]!r} is not a name of an environment variable")
        if name.upper() in RESERVED_ENV or name.startswith("MOORAGE_"):
            raise ValueError(f"{name} is set by the platform; choose another name")
        return name

    @field_validator("value")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        kind = secret_shapes.certain(value or "")
        if kind is not None:
            raise ValueError(f"looks like {kind}; put it into a Secret and name that under secret")
        return _text(value or "") if value is not None else None

    @model_validator(mode="after")
    def _one(self) -> ServerVariable:
        if (self.value is None) == (self.secret is None):
            raise ValueError("has either value or secret, and not both")
        if self.secret is not None and (self.name.startswith("LD_") or self.name in _LOADERS):
            raise ValueError(f"{self.name} from a secret would reach what runs the program, too; give it a value")
        return self


class ServerResources(Part):
    """Limits of the program with all its processes."""

    cpu: Cpu = "500m"
    """Processor time: `500m` is half a core."""
    memory: Size = "512Mi"
    """Memory; a program over it is killed, and begun again."""


class StdioServer(Part):
    """A program that speaks MCP over stdin and stdout. The platform runs one for this upstream, beside the sandboxes and never in one: all
    agents of the tenant that may use the toolbox share it. When it ends it is begun again."""

    image: str | None = Field(default=None, min_length=1, max_length=1024)
    """In a cluster: the container image that holds the program, its files in `/app`, and a `python3` of 3.11 or newer, by which it is run.
    With `moorage dev` it is not looked at."""
    command: str = Field(min_length=1, max_length=1024)
    """The program: a name that is looked for in `PATH`, or a path in its folder like `./server`."""
    args: list[str] = Field(default_factory=list, max_length=256)
    """Its arguments; never a secret."""
    env: list[ServerVariable] = Field(default_factory=list, max_length=64)
    """Its environment variables. It has no others but those that the platform sets."""
    working_dir: str = Field(default="", max_length=1024)
    """Where it begins: a path in `/app`, which is the folder in which the manifest stands, in a cluster the image's own."""
    requirements: str | None = Field(default=None, min_length=1, max_length=1024)
    """A file in that folder whose packages it finds: `requirements.txt`, a lock file or `pyproject.toml`, in an environment that is made
    as an agent's is. Default: it has the system's programs only. In a cluster the image has them."""
    resources: ServerResources = Field(default_factory=ServerResources)
    """Its limits."""

    @field_validator("command")
    @classmethod
    def _is_a_program(cls, value: str) -> str:
        if any(each.isspace() for each in value):
            raise ValueError(f"{value[:40]!r} is no program by its name alone; its arguments go under args")
        return _text(value)

    @field_validator("args")
    @classmethod
    def _are_texts(cls, value: list[str]) -> list[str]:
        for each in value:
            if len(each) > _LONGEST:
                raise ValueError(f"holds one of more than {_LONGEST} characters; put it into a file")
            kind = secret_shapes.certain(_text(each))
            if kind is not None:
                raise ValueError(f"holds what looks like {kind}; put it into a Secret and name that under env")
        return value

    @field_validator("working_dir", "requirements")
    @classmethod
    def _is_inside(cls, value: str | None) -> str | None:
        return value and relative_path(_text(value))

    @model_validator(mode="after")
    def _distinct(self) -> StdioServer:
        called = [each.name for each in self.env]
        for each in called:
            if called.count(each) > 1:
                raise ValueError(f"env: sets {each} twice")
        return self

    @property
    def secrets(self) -> dict[str, Credential]:
        """Its variables whose values are secrets."""
        return {each.name: each.secret for each in self.env if each.secret is not None}


_LONGEST = 8192


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return value
