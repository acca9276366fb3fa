"""Bodies of the control API, in and out. Layer: gateway, rim; the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(max_length=100)]


class In(BaseModel):
    """A request body: an unknown field is an error that names it."""

    model_config = ConfigDict(extra="forbid", strict=True)


class NewSession(In):
    """Makes a session before its first turn."""

    agent: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Name of the agent; left out under /v1/agents/NAME."""
    agent_session_id: Annotated[str, StringConstraints(max_length=128)] | None = None
    """8 to 128 letters, digits, '-' and '_'; made when left out."""


class FromCheckpoint(In):
    """Names one of the session's checkpoints."""

    checkpoint: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Its id; the newest when left out."""


class NewFork(In):
    """Makes a session that begins with another's files."""

    checkpoint: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Id of a checkpoint of the old session; left out, one is made of the files as they are now."""
    agent_session_id: Annotated[str, StringConstraints(max_length=128)] | None = None
    """The new session's: 8 to 128 letters, digits, '-' and '_'; made when left out."""


class NewKey(In):
    """Makes an API key."""

    name: Name = ""
    """What it is for."""
    user: Annotated[str, StringConstraints(max_length=128)] | None = None
    """Whom it speaks for; the caller itself when left out."""
    scopes: Annotated[list[Literal["invoke", "deploy", "operator", "admin"]], Field(min_length=1, max_length=4)] = [
        "invoke"
    ]
    """What it may do."""
    agents: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    """Agents it may use; all of the tenant when left out."""


class NewUpload(In):
    """Begins, or goes on with, the upload of a bundle."""

    digest: Annotated[str, StringConstraints(max_length=71)]
    """sha256 of the bundle, 64 hex digits."""
    size: Annotated[int, Field(ge=1)]
    """Bytes of the bundle."""


class Problem(BaseModel):
    """What went wrong and what to do next."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: Problem


class Revision(BaseModel):
    """One immutable revision; `weight` is its share of new sessions in percent."""

    revision: str
    weight: int
    ready: bool


class Agent(BaseModel):
    """An agent as its callers see it."""

    id: str
    object: Literal["agent"] = "agent"
    name: str
    ready: bool
    revision: str | None
    revisions: list[Revision]
    protocols: list[str]
    contract: str
    conditions: list[dict[str, Any]]
    message: str | None
    url: str
    responses_url: str
    invocations_url: str


class Agents(BaseModel):
    """All agents the key may use."""

    object: Literal["list"] = "list"
    data: list[Agent]
    has_more: bool = False


class DeployedAgent(BaseModel):
    """The provider took the manifest."""

    name: str
    object: Literal["agent.deployed"] = "agent.deployed"
    revision: str
    generation: int = 0
    url: str
    warnings: list[str]


class Deleted(BaseModel):
    """It is gone."""

    id: str
    object: str
    deleted: Literal[True] = True


class Model(BaseModel):
    """An agent in the form of a model, for clients that list models."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class Models(BaseModel):
    """All agents the key may use, as models."""

    object: Literal["list"] = "list"
    data: list[Model]


class Sandbox(BaseModel):
    """Where a session runs; for keys with the operator scope."""

    id: str
    epoch: int
    pids: list[int]


class Session(BaseModel):
    """One session."""

    id: str
    object: Literal["session"] = "session"
    agent_session_id: str
    agent: str
    status: str
    revision: str
    created_at: int
    last_accessed_at: int
    reason: str | None
    response_id: str | None
    sandbox: Sandbox | None


class SessionList(BaseModel):
    """One page of the caller's sessions, newest first."""

    object: Literal["list"] = "list"
    data: list[Session]
    has_more: bool


class Checkpoint(BaseModel):
    """Saved files of a session. `quiet`: nothing ran while they were read. `bytes`: what the files take."""

    id: str
    object: Literal["session.checkpoint"] = "session.checkpoint"
    created_at: int
    quiet: bool
    reason: str
    files: int
    bytes: int


class CheckpointList(BaseModel):
    """All checkpoints of a session, newest first."""

    object: Literal["list"] = "list"
    data: list[Checkpoint]
    has_more: Literal[False] = False


class Key(BaseModel):
    """An API key without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    tenant: str
    user: str
    scopes: list[str]
    agents: list[str] | None
    created_at: int
    created_by: str
    revoked_at: int | None


class MadeKey(Key):
    """A new key: the only time that its text is shown."""

    key: str


class KeyList(BaseModel):
    """All keys of the tenant."""

    object: Literal["list"] = "list"
    data: list[Key]
    has_more: bool = False


class BundleUpload(BaseModel):
    """How far an upload is."""

    id: str
    object: Literal["bundle.upload"] = "bundle.upload"
    digest: str
    size: int
    offset: int
    complete: bool


class AuditRecord(BaseModel):
    """One action: when, who, what, on what, with which outcome."""

    time: int
    tenant: str
    user: str
    key: str
    action: str
    object: str
    outcome: str
    request_id: str
    trace_id: str
    writer: str
    sequence: int
    hash: str


class AuditRecords(BaseModel):
    """The newest records from a time on, oldest first; `has_more` says that older ones were left out."""

    object: Literal["list"] = "list"
    data: list[AuditRecord]
    has_more: bool


class Chain(BaseModel):
    """What one chain of audit records proves."""

    writer: str
    ok: bool
    records: int
    anchored: bool
    problem: str | None
    sequence: int | None


class Chains(BaseModel):
    """Every chain; `ok` only when all are."""

    object: Literal["list"] = "list"
    ok: bool
    data: list[Chain]
