"""Calls past the boundary: what a shim says to the gateway's sandbox port, and what the agent is told. Layer: the floor.

    POST /sandbox/v1/calls     body: one line of JSON (`Call`), then the agent's body as it was
    answer                     the answer for the agent, with `ENTRY`; or with `REFUSED` and a word, which is the shim's alone

A broken answer is one whose end did not come: the shim must not pass it on as whole (turns.md §6). Words of `REFUSED`:

    again      not now: send it again under its number after `retry-after` seconds
    fenced     this attempt, or this sandbox, is no longer wanted: nothing must be answered
    no         the body is the answer: an error in the form of the protocol that was asked, which the journal does not hold
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

PATH: Final = "/sandbox/v1/calls"
ENTRY: Final = (
    "x-moorage-entry"  # gateway → shim: the journal's entry, with ` replayed` behind it where it was recorded before
)
REFUSED: Final = "x-moorage-refused"
AGAIN: Final = "again"
FENCED: Final = "fenced"
NO: Final = "no"

MAX_BODY = 16 * 2**20
"""Bytes of an agent's body: a model's context with images."""
MAX_HEAD = 48 * 1024
"""Bytes of the line before it."""
MAX_HEADERS = 16
MAX_HEADER = 2048
PASSED: Final = frozenset(
    {
        "content-type",
        "accept",
        "anthropic-version",
        "anthropic-beta",
        "openai-beta",
        "idempotency-key",
        "traceparent",
        "mcp-protocol-version",
        "mcp-method",
        "mcp-name",
    }
)
"""Headers of the agent's client that a shim hands on; the kind of call decides which of them count."""

DOOR_PORT = 8099
"""Where the agent finds its door, but in plain mode, which takes a free port (sandbox-image/README.md)."""
MODELS: Final = "/models/"
STEPS: Final = "/steps/"
ANY: Final = "~"
"""`~PROTOCOL` in place of an endpoint's name: the agent's first one that speaks it."""
TOOLBOXES: Final = "/toolboxes/"
"""`/toolboxes/NAME/mcp` is a toolbox' MCP URL."""
KINDS: Final = (MODELS, TOOLBOXES, STEPS)
"""What the door takes for a call: the gateway knows what kind each is."""
TOOLBOXES_URL: Final = "MOORAGE_TOOLBOXES_URL"
"""The agent's variable for what stands before `/NAME/mcp`."""
TOOL_SEARCH: Final = "toolSearch"
"""In the query of that URL, `true` or `false`: how this client is shown the tools, whatever the manifest says. Calls stay what they are."""


class Call(BaseModel):
    """One request of an agent. Without an attempt `turn` is empty: a relayed request, which belongs to none.

    `number` counts the attempt's requests from 1; `resent`: it left before, and may have reached a gateway.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: str = Field(max_length=128)
    epoch: int = Field(ge=0, lt=10**20)
    turn: str = Field(default="", max_length=128)
    begun: int = Field(default=0, ge=0, lt=10**20)
    number: int = Field(default=0, ge=0, lt=10**9)
    resent: bool = False
    method: str = Field(max_length=16)
    target: str = Field(max_length=4096)
    headers: list[tuple[str, str]] = Field(default_factory=list, max_length=MAX_HEADERS)

    def encode(self, body: bytes) -> bytes:
        """The request's body."""
        return self.model_dump_json().encode() + b"\n" + body

    @classmethod
    def decode(cls, data: bytes) -> tuple[Call, bytes]:
        """What `encode` made. Raises ValueError."""
        end = data.find(b"\n", 0, MAX_HEAD + 1)
        if end < 0:
            raise ValueError(f"a call begins with a line of JSON of at most {MAX_HEAD} bytes")
        return cls.model_validate_json(data[:end]), data[end + 1 :]


class Refusal(BaseModel):
    """The body beside `again` and `fenced`, and of a call that is none."""

    error: str

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(self.model_dump()).encode()


STEPS_VARIABLE: Final = "MOORAGE_STEPS_URL"
"""The agent's variable that says where steps are begun and ended."""
MAX_STEP_NAME: Final = 128
MAX_STEP_RESULT: Final = 8 * 2**20
"""Bytes of a step's result, as JSON."""

PROGRESS: Final = "/steps/progress"
"""Where an agent says how far it is. Its shim answers by itself, and tells a gateway the newest; no number of the attempt's is taken."""
MAX_PROGRESS_TEXT: Final = 400
MAX_PROGRESS: Final = 4096
"""Bytes of the body."""


class Progress(BaseModel):
    """How far a turn is. `fraction`: 0 to 1, None where nobody can tell."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str = Field(max_length=MAX_PROGRESS_TEXT)
    fraction: float | None = Field(default=None, ge=0, le=1)


DUMMY_KEY: Final = "moorage"
"""What stands where a client insists on a key: it opens nothing, the gateway has the real one."""


def agent_environment(port: int, *, without: Iterable[str] = ()) -> dict[str, str]:
    """What makes stock model clients in the agent talk to its door, and says where toolboxes are; `without`: names the manifest sets by
    itself.

    A manifest that sets one variable of a client's keeps all of that client's: half of each would speak to a place that is neither.
    """
    door, own = f"http://127.0.0.1:{port}{MODELS}{ANY}", frozenset(without)
    clients: tuple[dict[str, str], ...] = (
        {"OPENAI_BASE_URL": f"{door}openai/v1", "OPENAI_API_KEY": DUMMY_KEY},
        {"ANTHROPIC_BASE_URL": f"{door}anthropic", "ANTHROPIC_API_KEY": DUMMY_KEY},
        {"AZURE_OPENAI_ENDPOINT": f"{door}azure", "AZURE_OPENAI_API_KEY": DUMMY_KEY},
    )
    found = {name: value for one in clients if not own & one.keys() for name, value in one.items()}
    here = f"http://127.0.0.1:{port}"
    return found | {"MOORAGE_MODELS_URL": here + MODELS.rstrip("/"), TOOLBOXES_URL: here + TOOLBOXES.rstrip("/")}


def steps_environment(port: int) -> dict[str, str]:
    """Where the agent's code begins its steps: every agent is told."""
    return {STEPS_VARIABLE: f"http://127.0.0.1:{port}{STEPS.rstrip('/')}"}
