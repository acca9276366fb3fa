"""What a revision's zygote, sandbox and shim are made of, by its spec. Layer: local; decides, and starts nothing."""

from __future__ import annotations

from pathlib import Path

from moorage_api import names, tokens
from moorage_api.kinds import quantities
from moorage_api.provider.base import Revision
from moorage_local import agent_logs, cgroups, enclosure
from moorage_local.program import Program
from moorage_local.state import State
from moorage_sandbox import launcher
from moorage_sandbox.config import ShimConfig

LAUNCHER = Path(launcher.__file__).parent


def zygote(
    revision: Revision, program: Program, state: State, volumes: Path, *, uid: int | None, ready_within: float
) -> enclosure.ZygoteSpec:
    """Of `program`, for sandboxes on `volumes`; seconds."""
    return enclosure.ZygoteSpec(
        name=revision.agent,
        python=program.python,
        code=program.code,
        entry=program.entry,
        volumes=volumes,
        launcher=LAUNCHER,
        program=revision.contract != "moorage",
        env={**program.env, **revision.environment},
        uid=uid,
        ca_file=program.ca_file,
        mounts=tuple(enclosure.Bind(str(path), target) for path, target in program.mounts),
        private=(state.valkey, state.objects, state.manifests),
        ready_seconds=ready_within,
    )


def limits(revision: Revision) -> cgroups.Limits:
    """Of one sandbox."""
    resources = revision.spec.resources
    return cgroups.Limits(
        memory=quantities.octets(resources.memory),
        cpu=quantities.millicores(resources.cpu) / 1000,
        pids=resources.pids,
        tmp=quantities.octets(resources.ephemeral_storage),
        fsize=quantities.octets(revision.spec.workspace.size),
    )


def shim(
    revision: Revision,
    identity: tokens.Identity,
    state: State,
    volume: Path,
    *,
    token_key: str,
    gateways: tuple[str, ...],
    egress: str | None,
    ready_within: float,
) -> ShimConfig:
    """Of the sandbox that `identity` names, with a new secret; `volume` is its folder, `ready_within` seconds."""
    spec = revision.spec
    agentcore = revision.contract == "agentcore"
    return ShimConfig(
        sandbox=identity.sandbox,
        tenant=revision.tenant,
        agent=revision.agent,
        revision=revision.revision,
        endpoint=f"unix:{state.sockets / identity.sandbox}",
        secret=names.new_secret(),
        token=tokens.sign(identity, token_key),
        volume=str(volume),
        gateways=gateways,
        egress=egress,
        contract=revision.contract,
        readiness=spec.readiness or ("/ping" if agentcore else "/readiness"),
        port=spec.port or (8080 if agentcore else 8088),
        keeps=spec.workspace.file_system,
        ready_timeout=ready_within,
        variables=revision.door_variables,
        log_file=str(agent_logs.path_of(state.logs, revision.tenant, revision.agent, identity.sandbox)),
    )
